"""One request and its response, as endpoints see them: identity, deadline, timings, body, and a disconnect."""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Receive, Scope

from service.api.budget import Share
from service.api.interruption import Interruption
from service.engine.engine import Reservation
from service.engine.request import Request
from service.errors import Cancelled, InvalidParameter, TooLarge
from service.metrics import STAGES

REQUEST_ID = re.compile(r"[^\x00-\x1f\x7f]{1,1024}")
"""Pattern of the request IDs that are accepted from clients: they are repeated in a header, and in the log if the
request fails."""
PROCESS_ID = secrets.token_hex(8)
"""Prefix of the request IDs that this process generates; a counter follows."""
_counter = itertools.count()
TIMING = ", ".join(f"{stage};dur=%.3f" for stage in STAGES)

DEPARTURE_KEY = "glimpse.departure"
"""Key of a future in the ASGI scope that is done once the client has disconnected."""
RESPOND_KEY = "glimpse.respond"
"""Key of a function in the ASGI scope that sends a complete response; see `Respond`."""
CLOSE = (b"connection", b"close")
"""Header of a response that closes the connection."""

Respond = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], Awaitable[None]]
"""Function that sends status, headers and body; done when the client has read all but what fits into buffers."""


def identity(sent: bytes) -> str:
    """Return the request ID: the one that the client sent, if it is acceptable, or a new one."""
    called = sent.decode("latin-1")
    return called if REQUEST_ID.fullmatch(called) else f"{PROCESS_ID}{next(_counter):012x}"


class Exchange:
    """The state of one request; created by the gateway, and passed on to the endpoint."""

    __slots__ = (
        "_deadline",
        "_departure",
        "_interruption",
        "_longest_seconds",
        "_receive",
        "_requests",
        "_seconds",
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
        if len(self.headers) < len(scope["headers"]):  # combine lines of the same name (RFC 9110, 5.3)
            lines: dict[bytes, list[bytes]] = {}
            for name, value in scope["headers"]:
                lines.setdefault(name, []).append(value)
            self.headers = {name: b", ".join(values) for name, values in lines.items()}
        self.can_stream = scope.get("http_version") != "1.0"
        """Whether the client's HTTP version has chunked responses."""
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
        self._interruption: Interruption | None = None

    def header(self, name: bytes) -> str:
        """Return a request header by its lower-case name; empty if absent."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def deadline(self) -> float:
        """Deadline on the monotonic clock: the client's, or that of the service if it is earlier.

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
        milliseconds = asked.lstrip("0")[:12]  # a number with more digits exceeds any limit
        if not asked.isascii() or not asked.isdigit() or not milliseconds:
            raise InvalidParameter(
                "X-Request-Timeout-Ms", f"must be a whole number of milliseconds >= 1, not {asked!r}"
            )
        return int(milliseconds) / 1000

    def timed(self, stage: str) -> "_Timed":
        """Return a context manager that adds the time spent in it to a stage of `Server-Timing`."""
        return _Timed(self._seconds, stage)

    def seconds(self) -> dict[str, float]:
        """Return the seconds spent until now, by stage."""
        now = time.monotonic()
        seconds = self._seconds.copy()
        for request in self._requests:
            seconds["queue"] += request.queue_seconds(now)
            seconds["compute"] += request.compute_seconds(now)
        return seconds

    def server_timing(self) -> str:
        """Return the value of the `Server-Timing` header, in milliseconds."""
        return TIMING % tuple([seconds * 1e3 for seconds in self.seconds().values()])

    def follow(self, request: Request) -> None:
        """Include the queue and compute time of an engine's request in the timings."""
        self._requests.append(request)

    async def body(self, limit_bytes: int) -> bytes:
        """Receive and return the whole request body.

        Raises:
            TooLarge: it has, or claims to have, more than `limit_bytes`.
            Overloaded: there is too little memory left for it.
            Cancelled: the client disconnected before its end.
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
                raise TooLarge(f"the body has more than {limit_bytes} bytes, which is the maximum")
            self.memory.take(len(chunk))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def compute(self, request: Request, room: Reservation) -> None:
        """Compute a request in its reservation.

        Raises:
            GlimpseError: as `Engine.submit` does.
        """
        self.follow(request)
        await room.submit(request)

    def interruptible(self) -> Interruption:
        """Return a context manager in which the deadline and a disconnect interrupt the exchange, whatever it awaits.

        Raises:
            InvalidParameter: as `deadline` does.
        """
        self._interruption = Interruption(self.deadline, self._departure)
        return self._interruption

    def begin_answer(self) -> None:
        """Disarm the deadline: the response is ready or has begun. A stream's request keeps its own in the engine."""
        if self._interruption is not None:
            self._interruption.ignore_deadline()

    def release(self) -> None:
        """Release the engine's requests: all that is left is to send."""
        self._seconds = self.seconds()
        self._requests.clear()


class _Timed:
    """A context manager that adds up the time spent in it; a generator would cost more than what some stages take."""

    __slots__ = ("_began", "_seconds", "_stage")

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds = seconds
        self._stage = stage

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] += time.perf_counter() - self._began
