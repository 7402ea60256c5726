"""HTTP: endpoints by subject, and what they share. Knows tasks and engines; nothing below knows HTTP."""
