"""What the process ends with, for whoever supervises it."""

START_FAILURE = 3
"""It could not start, and would not the next time. uvicorn's own supervisor takes this as a reason to give up."""
BEYOND_REPAIR = 70
"""EX_SOFTWARE: a batch hangs, a runtime is broken, or nobody supervises any more; another process may do better."""
