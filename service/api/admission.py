"""Admission: who is let in, and when the last of them has left.

What is admitted is finished: a process that drains lets nobody in and waits for whoever is inside, whatever they still
have before them. The engines' queues have a limit of their own, in rows.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import NotReady, Overloaded


class Admission:
    """Counts the exchanges in hand. Belongs to the event loop."""

    def __init__(self, most: int) -> None:
        """Admit at most so many at a time."""
        self._most = most
        self._in_hand = 0
        self._aside = 0
        self._emptied = asyncio.Event()
        self.is_draining = False
        """Whether nobody is let in any more."""

    def enter(self) -> None:
        """Let one in.

        Raises:
            NotReady: the process is draining.
            Overloaded: there are as many as may be.
        """
        if self.is_draining:
            raise NotReady("the service is shutting down and takes no new requests")
        self._check(1)
        self._in_hand += 1

    @contextmanager
    def aside(self) -> Iterator[None]:
        """One who was let in takes nobody's place within, though a drain waits for it: it waits for its client's body.

        Raises:
            Overloaded: at the end, there are as many others as may be.
        """
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1
        self._check(0)

    def leave(self) -> None:
        """Take leave of one who was let in."""
        self._in_hand -= 1
        if self.is_draining and not self._in_hand:
            self._emptied.set()

    def _check(self, newcomers: int) -> None:
        in_progress = self._in_hand - self._aside
        if in_progress + newcomers > self._most:
            raise Overloaded(f"{self._most} requests are in progress, the most at a time")

    async def drain(self, timeout_seconds: float) -> bool:
        """Let nobody in, and wait for all to leave; answers whether they did in time."""
        self.is_draining = True
        if not self._in_hand:
            return True
        try:
            await asyncio.wait_for(self._emptied.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True
