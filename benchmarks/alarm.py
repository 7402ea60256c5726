"""An alarm clock that is exact to some tens of microseconds, on an asyncio loop. Linux only.

Loops count whole milliseconds, in which several requests are answered; spinning until it is time would take a core
from the server under test. The kernel's timer file descriptors do neither.
"""

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable

TIMER_ABSOLUTE = 1


class Alarm:
    """Rings once for every time that it is set to; a time that has passed rings at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._ring = ring
        self._loop = loop
        self._file = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "this system has no timer file descriptors")
        loop.add_reader(self._file, self._on_time)

    def set(self, at: float) -> None:
        """Ring at a time of `time.monotonic()`, and at no other that was set before."""
        nanoseconds = max(1, round(at * 1e9))  # 0 would turn the alarm off
        interval_then_value = (ctypes.c_long * 4)(0, 0, *divmod(nanoseconds, 1_000_000_000))
        self._libc.timerfd_settime(self._file, TIMER_ABSOLUTE, interval_then_value, None)

    def close(self) -> None:
        """Never ring again."""
        self._loop.remove_reader(self._file)
        os.close(self._file)

    def _on_time(self) -> None:
        # It may have been set anew between ringing and being heard; then it will ring again.
        with contextlib.suppress(BlockingIOError):
            os.read(self._file, 8)
            self._ring()
