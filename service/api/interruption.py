"""Interruption: a deadline, or a client that disconnects, ends whatever a request's task awaits."""

import asyncio
import time

from service.errors import Cancelled, DeadlineExceeded, GlimpseError

TIMER_SLACK_SECONDS = 0.005
"""Seconds by which the timer is later than the engine's, so that the engine counts the missed deadline."""


class Interruption:
    """Context manager in which a deadline and a disconnect raise an error in the task that entered it.

    It does what `asyncio.timeout` does at a third of its cost, for both.

    Raises:
        DeadlineExceeded: the deadline passed first.
        Cancelled: the client disconnected first.
    """

    __slots__ = ("_cause", "_deadline", "_departure", "_task", "_timer")

    def __init__(self, deadline: float, departure: asyncio.Future[None] | None) -> None:
        """`deadline`: on the monotonic clock, in seconds; `departure`: done once the client has disconnected."""
        self._deadline = deadline
        self._departure = departure
        self._cause: tuple[type[GlimpseError], str] | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "this is a bug: there is no task to interrupt"
        self._task = task
        self._timer = loop.call_later(
            self._deadline - time.monotonic() + TIMER_SLACK_SECONDS,
            self._interrupt,
            DeadlineExceeded,
            "the deadline passed before the response was ready",
        )
        if self._departure is not None:
            self._departure.add_done_callback(self._on_departure)

    def ignore_deadline(self) -> None:
        """Let only a disconnect interrupt the task from now on."""
        self._timer.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._departure is not None:
            self._departure.remove_done_callback(self._on_departure)
        if kind is asyncio.CancelledError and self._cause is not None:
            self._task.uncancel()
            interruption, message = self._cause
            raise interruption(message) from None

    def _on_departure(self, _: asyncio.Future[None]) -> None:
        self._interrupt(Cancelled, "the client left")

    def _interrupt(self, kind: type[GlimpseError], message: str) -> None:
        if self._cause is None:
            # Not the error itself: its traceback would form a cycle that keeps the body until a garbage collection.
            self._cause = (kind, message)
            self._task.cancel()
