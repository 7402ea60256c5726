"""What the endpoints share: settings, models, and threads for slow codecs."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from service.api.admission import Admission
from service.api.catalogue import Catalogue
from service.errors import Cancelled
from service.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Context:
    """Made once, by the composition root."""

    settings: Settings
    catalogue: Catalogue
    admission: Admission
    codecs: ThreadPoolExecutor
    """Runs what takes longer than about 100 microseconds, so that the event loop does not."""
    header_reader: ThreadPoolExecutor
    """A thread that reads headers of files, so that whoever is refused need not wait for the codecs to be told."""

    async def off_loop(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do slow work on a codec thread."""
        return await _on(self.codecs, partial(work, *args, **kwargs))

    async def ahead_of_codecs(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Look into what the codecs would get, without waiting for them."""
        return await _on(self.header_reader, partial(work, *args, **kwargs))


_thread = threading.local()


def go_on_if_wanted() -> None:
    """To be asked within long work on a thread, now and then.

    Raises:
        Cancelled: whoever waited for it was cancelled.
    """
    if not getattr(_thread, "wanted", True):
        raise Cancelled("nobody waits for this any more")


async def _on(threads: ThreadPoolExecutor, work: Callable[[], R]) -> R:
    """Work on one of these threads. Whoever is cancelled before it began leaves nothing of it in their queue."""
    wanted = [work]

    def begin() -> R:
        _thread.wanted = wanted
        return wanted[0]()

    try:
        return await asyncio.get_running_loop().run_in_executor(threads, begin)
    finally:
        wanted.clear()
