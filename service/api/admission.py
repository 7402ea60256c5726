"""Admission: which requests are accepted, and when the last of them is done.

What is admitted is finished: a process that drains admits nothing and waits for the requests in hand, however long they
still take. The engines' queues have a limit of their own, in rows.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import NotReady, Overloaded


class Admission:
    """Counts the requests in hand. Belongs to the event loop."""

    def __init__(self, most: int) -> None:
        """`most`: how many may be in progress at a time."""
        self._most = most
        self._in_hand = 0
        self._receiving = 0
        self._emptied = asyncio.Event()
        self.is_draining = False
        """Whether nothing is admitted any more."""

    def enter(self) -> None:
        """Admit a request.

        Raises:
            NotReady: the process is draining.
            Overloaded: too many are in progress.
        """
        if self.is_draining:
            raise NotReady("the service is shutting down and takes no new requests")
        self._check(1)
        self._in_hand += 1

    @contextmanager
    def receiving_body(self) -> Iterator[None]:
        """While the body is being received, do not count the request against the limit; a drain still waits for it.

        Raises:
            Overloaded: at the end, too many others are in progress.
        """
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1
        self._check(0)

    def leave(self) -> None:
        """Count an admitted request as done."""
        self._in_hand -= 1
        if self.is_draining and not self._in_hand:
            self._emptied.set()

    def _check(self, newcomers: int) -> None:
        in_progress = self._in_hand - self._receiving
        if in_progress + newcomers > self._most:
            raise Overloaded(f"{self._most} requests are in progress, the most at a time")

    async def drain(self, timeout_seconds: float) -> bool:
        """Admit nothing any more, wait for what is in hand, and return whether it was done in time."""
        self.is_draining = True
        if not self._in_hand:
            return True
        try:
            await asyncio.wait_for(self._emptied.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True
