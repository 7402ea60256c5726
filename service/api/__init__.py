"""The HTTP layer: endpoints by subject, and what they share. The layers below know nothing of HTTP."""
