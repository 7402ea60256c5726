"""Tasks: from pictures and bits to the models' inputs, and from the models' outputs to results. No HTTP, no threads."""
