"""The budget of memory: what the bodies and pictures of all requests in progress may take between them.

The limits of a request bound that request alone, and a picture of many pixels can come in few bytes: a few megabytes of
uploads would fill gigabytes. Whoever finds too little left is refused at once, as one who finds a full queue is.
"""

from threading import Lock

from service.errors import Cancelled, Overloaded


class MemoryBudget:
    """Counts bytes, of whatever thread."""

    def __init__(self, most_bytes: int) -> None:
        """Let so many be taken at a time."""
        self.most_bytes = most_bytes
        self.taken_bytes = 0
        self.lock = Lock()


class Share:
    """What one request takes of it."""

    __slots__ = ("_is_over", "_memory", "_taken_bytes")

    def __init__(self, memory: MemoryBudget) -> None:
        self._memory = memory
        self._taken_bytes = 0
        self._is_over = False

    def take(self, size: int) -> None:
        """Take so many bytes, before they are filled.

        Raises:
            Overloaded: there are not so many left.
            Cancelled: the request is over; a codec comes to it too late.
        """
        memory = self._memory
        with memory.lock:
            if self._is_over:
                raise Cancelled("nobody waits for this any more")
            if memory.taken_bytes + size > memory.most_bytes:
                raise Overloaded(
                    f"requests in progress hold {memory.taken_bytes} of {memory.most_bytes} bytes of memory; "
                    f"this one needs {size} more"
                )
            memory.taken_bytes += size
            self._taken_bytes += size

    def give_back(self) -> None:
        """At the request's end: all that it has taken."""
        with self._memory.lock:
            self._is_over = True
            self._memory.taken_bytes -= self._taken_bytes
            self._taken_bytes = 0
