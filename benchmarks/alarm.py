"""A timer on an asyncio loop that is accurate to some tens of microseconds. Linux only.

An event loop's own timers may be rounded to whole milliseconds, too coarse for thousands of requests a second, and
busy waiting would take a core from the server under test. The kernel's timer file descriptors avoid both.
"""

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable

TIMER_ABSOLUTE = 1


class Alarm:
    """Calls `ring` once at the time that was set, or at once if that has passed.

    Raises:
        OSError: the system has no timer file descriptors.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._ring = ring
        self._loop = loop
        self._file = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "this system has no timer file descriptors")
        loop.add_reader(self._file, self._on_time)

    def set(self, at: float) -> None:
        """Ring at `at`, a time of `time.monotonic()`, instead of any time set before."""
        nanoseconds = max(1, round(at * 1e9))  # 0 would turn the alarm off
        interval_then_value = (ctypes.c_long * 4)(0, 0, *divmod(nanoseconds, 1_000_000_000))
        self._libc.timerfd_settime(self._file, TIMER_ABSOLUTE, interval_then_value, None)

    def close(self) -> None:
        """Cancel the alarm and release its file descriptor."""
        self._loop.remove_reader(self._file)
        os.close(self._file)

    def _on_time(self) -> None:
        # If it was set again after it expired, there is nothing to read yet, and it will ring again.
        with contextlib.suppress(BlockingIOError):
            os.read(self._file, 8)
            self._ring()
