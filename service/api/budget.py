"""The memory budget: how many bytes all requests in progress may hold together.

The other limits apply to each request by itself, and a few kilobytes can require many megabytes: a picture with many
pixels, or a large response. If too little is left for a request, it is refused at once, as with a full queue.
"""

from threading import Lock

from service.errors import Cancelled, Overloaded, TooLarge


class MemoryBudget:
    """Counts the bytes that are taken. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: maximum number of bytes taken at any time."""
        self.max_bytes = max_bytes
        self.taken_bytes = 0
        self.lock = Lock()


class Share:
    """The part of the budget that one request has taken."""

    __slots__ = ("_budget", "_is_over", "_taken_bytes")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._taken_bytes = 0
        self._is_over = False

    def take(self, size: int) -> None:
        """Take `size` more bytes, before they are used.

        Raises:
            Overloaded: fewer are left.
            TooLarge: the request would need more than the whole budget.
            Cancelled: the request has ended before a codec thread got to it.
        """
        budget = self._budget
        with budget.lock:
            if self._is_over:
                raise Cancelled("nobody waits for this any more")
            needed = self._taken_bytes + size
            if needed > budget.max_bytes:
                raise TooLarge(f"the request needs {needed} bytes of memory; at most {budget.max_bytes} are allowed")
            if budget.taken_bytes + size > budget.max_bytes:
                raise Overloaded(
                    f"requests in progress hold {budget.taken_bytes} of {budget.max_bytes} bytes of memory; "
                    f"this one needs {size} more"
                )
            self._set(needed)

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on, instead of all that was taken. They are in use already: this never fails."""
        with self._budget.lock:
            if not self._is_over:
                self._set(size)

    def give_back(self) -> None:
        """Give everything back, at the request's end."""
        with self._budget.lock:
            self._set(0)
            self._is_over = True

    def _set(self, size: int) -> None:
        self._budget.taken_bytes += size - self._taken_bytes
        self._taken_bytes = size
