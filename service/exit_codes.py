"""Exit codes of the process, for its supervisor."""

START_FAILURE = 3
"""Code of a start that failed, and would fail again. uvicorn's own supervisor stops when it sees this code."""
BEYOND_REPAIR = 70
"""EX_SOFTWARE: a batch hangs, a runtime is broken, or supervision has failed; a restart may help."""
