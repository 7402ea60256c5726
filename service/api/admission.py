"""Admission: limits the requests in progress, and drains them before a shutdown.

A draining process refuses new requests and waits, for a limited time, until those it has admitted are done. The
engines' queues have a limit of their own, in rows.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import NotReady, Overloaded


class Admission:
    """Counts the admitted requests. Use it on the event loop only."""

    def __init__(self, most: int) -> None:
        """`most`: maximum number of requests in progress."""
        self._most = most
        self._in_hand = 0
        self._receiving = 0
        self._emptied = asyncio.Event()
        self.is_draining = False
        """Whether new requests are refused."""

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
            raise Overloaded(f"{self._most} requests are in progress, which is the maximum")

    async def drain(self, timeout_seconds: float) -> bool:
        """Refuse new requests, wait for the admitted ones, and return whether they were done in time."""
        self.is_draining = True
        if not self._in_hand:
            return True
        try:
            await asyncio.wait_for(self._emptied.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True
