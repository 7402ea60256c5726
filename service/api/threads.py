"""Threads for work that would block the event loop: whatever takes longer than about 100 microseconds."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from service.errors import Cancelled

P = ParamSpec("P")
R = TypeVar("R")

_thread = threading.local()


class ThreadPool:
    """A named pool of `count` threads."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` on a thread. If the caller is cancelled first, the queue keeps no reference to the work."""
        wanted = [partial(work, *args, **kwargs)]

        def begin() -> R:
            _thread.wanted = wanted
            return wanted[0]()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, begin)
        finally:
            wanted.clear()

    def close(self) -> None:
        """Start no more work; do not wait for running work."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def raise_if_abandoned() -> None:
    """Stop work whose caller has been cancelled. Long work calls this now and then.

    Raises:
        Cancelled: the caller was cancelled.
    """
    if not getattr(_thread, "wanted", True):
        raise Cancelled("nobody waits for this any more")
