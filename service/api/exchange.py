"""One request and its answer, as the endpoints see them: identity, deadline, timings, body, departure of the client."""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Receive, Scope

from service.api.budget import Share
from service.engine.engine import Reservation
from service.engine.request import Request
from service.errors import Cancelled, DeadlineExceeded, GlimpseError, InvalidParameter, TooLarge
from service.metrics import STAGES

TIMER_SLACK_SECONDS = 0.005
"""An engine's own timer, which tells the metrics, comes before the exchange's."""
REQUEST_ID = re.compile(r"[^\x00-\x1f\x7f]{1,1024}")
"""What a client may call its request: it is repeated in a header, and in the log if the request fails."""
PROCESS_ID = secrets.token_hex(8)
"""What the identities of this process's exchanges begin with; they go on with a counter."""
_counter = itertools.count()
TIMING = ", ".join(f"{stage};dur=%.3f" for stage in STAGES)

DEPARTURE_KEY = "glimpse.departure"
"""Key of a future in the ASGI scope, which is done once the client has left."""
RESPOND_KEY = "glimpse.respond"
"""Key of a function in the ASGI scope that sends a complete response; see `Respond`."""
CLOSE = (b"connection", b"close")
"""In the head of an answer, it ends the connection."""

Respond = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], Awaitable[None]]
"""Takes status, headers and body; done when the client has taken them, but for what its connection's buffers hold."""


def identity(sent: bytes) -> str:
    """What a request is called: what its client calls it, where that can be repeated, or something new."""
    called = sent.decode("latin-1")
    return called if REQUEST_ID.fullmatch(called) else f"{PROCESS_ID}{next(_counter):012x}"


class Exchange:
    """One request's identity and timings. Made by the gateway, which hands it on."""

    __slots__ = (
        "_deadline",
        "_departure",
        "_interrupted_by",
        "_longest_seconds",
        "_loop",
        "_receive",
        "_requests",
        "_seconds",
        "_task",
        "_timer",
        "began_at",
        "can_stream",
        "headers",
        "memory",
        "model",
        "request_id",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, longest_seconds: float, memory: Share) -> None:
        self.began_at = time.monotonic()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(self.headers) < len(scope["headers"]):  # lines of one name are one list (RFC 9110, 5.3)
            lines: dict[bytes, list[bytes]] = {}
            for name, value in scope["headers"]:
                lines.setdefault(name, []).append(value)
            self.headers = {name: b", ".join(values) for name, values in lines.items()}
        self.can_stream = scope.get("http_version") != "1.0"
        """Whether its client knows responses whose length is not known at their beginning."""
        self.request_id = identity(self.headers.get(b"x-request-id", b""))
        self.model = ""
        self.status = 0
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._requests: list[Request] = []
        self.memory = memory
        self._receive = receive
        self._departure: asyncio.Future[None] | None = scope.get(DEPARTURE_KEY)
        self._longest_seconds = longest_seconds
        self._deadline: float | None = None
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self._loop)
        self._interrupted_by: tuple[type[GlimpseError], str] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def header(self, name: bytes) -> str:
        """A request header by its lower-case name; empty when absent."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def deadline(self) -> float:
        """When the answer is due, on the monotonic clock: what the client asks for, or the longest that is allowed.

        Raises:
            InvalidParameter: `X-Request-Timeout-Ms` is not a positive whole number.
        """
        if self._deadline is None:
            self._deadline = self.began_at + min(self._asked_seconds(), self._longest_seconds)
        return self._deadline

    def _asked_seconds(self) -> float:
        if b"x-request-timeout-ms" not in self.headers:
            return self._longest_seconds
        asked = self.header(b"x-request-timeout-ms")
        milliseconds = asked.lstrip("0")[:12]  # more digits are longer than any limit
        if not asked.isascii() or not asked.isdigit() or not milliseconds:
            raise InvalidParameter(
                "X-Request-Timeout-Ms", f"must be a whole number of milliseconds >= 1, not {asked!r}"
            )
        return int(milliseconds) / 1000

    def timed(self, stage: str) -> "_Timed":
        """Count the time within towards a stage of `Server-Timing`."""
        return _Timed(self._seconds, stage)

    def seconds(self) -> dict[str, float]:
        """Where the time went until now, by stage."""
        now = time.monotonic()
        seconds = self._seconds.copy()
        for request in self._requests:
            seconds["queue"] += request.queue_seconds(now)
            seconds["compute"] += request.compute_seconds(now)
        return seconds

    def server_timing(self) -> str:
        """The `Server-Timing` header, in milliseconds."""
        return TIMING % tuple([seconds * 1e3 for seconds in self.seconds().values()])

    def follow(self, request: Request) -> None:
        """Count from now on what a request waits and computes."""
        self._requests.append(request)

    async def body(self, limit_bytes: int) -> bytes:
        """The whole request body.

        Raises:
            TooLarge: it has, or claims to have, more than `limit_bytes`.
            Overloaded: there is no memory left for it.
            Cancelled: the client left before its end.
        """
        claimed = self.header(b"content-length")
        if claimed.isascii() and claimed.isdigit() and int(claimed) > limit_bytes:
            raise TooLarge(f"the body has {claimed} bytes; at most {limit_bytes} are allowed")
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Cancelled("the client left before its body was complete")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit_bytes:
                raise TooLarge(f"the body has more than {limit_bytes} bytes, which is the most that is allowed")
            self.memory.take(len(chunk))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def compute(self, request: Request, room: Reservation) -> None:
        """Have a request computed in the room kept for it.

        Raises:
            GlimpseError: as `Engine.submit` does.
        """
        self.follow(request)
        await room.submit(request)

    # What follows is `asyncio.timeout` at a third of its cost, for a deadline and for a client's departure alike.

    def begin(self) -> None:
        """From now on the deadline and the client's departure interrupt the exchange, whatever it waits for.

        Raises:
            InvalidParameter: as `deadline` does.
        """
        self._timer = self._loop.call_later(
            self.deadline - time.monotonic() + TIMER_SLACK_SECONDS,
            self._interrupt,
            DeadlineExceeded,
            "the deadline passed before the answer was ready",
        )
        if self._departure is not None:
            self._departure.add_done_callback(self._on_departure)

    def begin_answer(self) -> None:
        """The response is there, or has begun: the deadline interrupts it no more. That of a stream's request does."""
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        """There is nothing left to do but to send: let nothing interrupt any more, and keep nothing of the requests."""
        self.begin_answer()
        if self._departure is not None:
            self._departure.remove_done_callback(self._on_departure)
        self._seconds = self.seconds()
        self._requests.clear()

    def _on_departure(self, _: asyncio.Future[None]) -> None:
        self._interrupt(Cancelled, "the client left")

    def _interrupt(self, kind: type[GlimpseError], message: str) -> None:
        """Cancel the exchange's task, which is then to `explain`."""
        if self._interrupted_by is None and self._task is not None:
            # Not the error itself: its traceback would lead back here, and keep the body until a garbage collection.
            self._interrupted_by = (kind, message)
            self._task.cancel()

    def explain(self) -> None:
        """In the task, when it was cancelled: raise the error, if that is why.

        Raises:
            DeadlineExceeded: the deadline interrupted.
            Cancelled: the client left.
        """
        if self._interrupted_by is not None and self._task is not None:
            self._task.uncancel()
            kind, message = self._interrupted_by
            raise kind(message) from None


class _Timed:
    """A context that adds up its time; a generator would cost more than some of what is measured."""

    __slots__ = ("_began", "_seconds", "_stage")

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds = seconds
        self._stage = stage

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] += time.perf_counter() - self._began
