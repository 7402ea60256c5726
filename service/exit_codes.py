"""Exit codes of the process, for its supervisor."""

START_FAILURE = 3
"""It could not start, and would not the next time. uvicorn's own supervisor takes this as a reason to give up."""
BEYOND_REPAIR = 70
"""EX_SOFTWARE: a batch hangs, a runtime is broken, or supervision has failed; another process may do better."""
