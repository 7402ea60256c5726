"""The load generator: HTTP/1.1 at about the cost of its system calls, so that it can run beside the server.

Requests are encoded and connections opened before the clock starts. Connections are kept alive, and replaced when they
break. Only the status and the end of a response are read. A run ends when no more requests are due and all have their
responses, and at the latest `patience_seconds` after the last request was due. The `Timeline` has the outcome of every
request, including those that got no response or were never sent.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.alarm import Alarm
from benchmarks.arrivals import Arrivals
from benchmarks.response import ResponseReader
from benchmarks.timeline import LOST, OK, UNANSWERED, UNEXPECTED, UNSENT, Record, Timeline

PATIENCE_SECONDS = 10.0
RECONNECT_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Call:
    """A request; its tag names its kind within the workload."""

    tag: str
    method: str
    target: str
    body: bytes = b""
    content_type: str = ""
    status: int = OK
    """Expected status of the response."""
    api_key: str = ""
    """Key that is sent with the request, unless it is empty."""

    def judged(self, status: int) -> int:
        """Return the status to record: `OK` if the response's is the expected one, and only then."""
        if status == self.status:
            return OK
        return UNEXPECTED if status == OK else status

    def encoded(self, host: str) -> bytes:
        """Return the request as bytes."""
        head = f"{self.method} {self.target} HTTP/1.1\r\nhost: {host}\r\n"
        if self.api_key:
            head += f"x-api-key: {self.api_key}\r\n"
        if self.body:
            head += f"content-type: {self.content_type}\r\ncontent-length: {len(self.body)}\r\n"
        return head.encode() + b"\r\n" + self.body


async def load(
    url: str,
    calls: Iterable[Call],
    arrivals: Arrivals,
    *,
    connections: int,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Timeline:
    """Send the calls as they arrive, starting over after the last.

    Raises:
        OSError: nothing listens at the URL when the run begins.
        ValueError: the URL is not `http://HOST:PORT`.
    """
    run = _Run(url, calls, arrivals)
    async with run.connected(connections):
        return await run.timeline(patience_seconds)


def address_of(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL.

    Raises:
        ValueError: it is not `http://HOST:PORT`; the load generator speaks no TLS, and adds no prefix to paths.
    """
    address = urlsplit(url)
    if not address.hostname or "@" in address.netloc or url.rstrip("/") != f"http://{address.netloc}":
        raise ValueError(f"the load generator speaks plain HTTP, to http://HOST:PORT without a path, not to {url!r}")
    return address.hostname, address.port or 80


def loop_factory() -> asyncio.AbstractEventLoop:
    """Return a new event loop of the kind with which this client costs little."""
    return uvloop.new_event_loop()


class _Run:
    """Connections, arrivals, and records of what became of the requests."""

    def __init__(self, url: str, calls: Iterable[Call], arrivals: Arrivals) -> None:
        self._host, self._port = address_of(url)
        host = urlsplit(url).netloc
        self._calls = cycle([(call, call.encoded(host)) for call in calls])
        self._arrivals = arrivals
        self._began = math.inf
        self._open: set[_Connection] = set()
        # First in, first out: if several workers share the port, each gets its share of the requests.
        self._free: deque[_Connection] = deque()
        self._in_flight = 0
        self._records: list[Record] = []
        self._is_over = asyncio.Event()
        self._is_closing = False
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._wake_at = math.inf
        self._alarm = Alarm(asyncio.get_running_loop(), self._on_alarm)

    @contextlib.asynccontextmanager
    async def connected(self, connections: int) -> AsyncIterator[None]:
        """Keep a number of connections open within the block."""
        try:
            for _ in range(connections):
                await self._connect()
            yield
        finally:
            self._is_closing = True
            self._alarm.close()
            for task in self._reconnecting:
                task.cancel()
            await asyncio.gather(*self._reconnecting, return_exceptions=True)
            for connection in self._open:
                connection.abort()
            await asyncio.sleep(0)

    async def timeline(self, patience_seconds: float) -> Timeline:
        """Send requests as they arrive, until all have their responses or patience ends, and return what happened."""
        cpu_began = time.process_time()
        self._began = time.monotonic()
        self._on_alarm()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), self._arrivals.seconds + patience_seconds)
        now = self.now()
        for connection in self._open:
            if connection.pending is not None:
                intended, sent, call = connection.pending
                self._records.append((intended, sent, now, UNANSWERED, call.tag))
        self._records += [(due, now, now, UNSENT, next(self._calls)[0].tag) for due in self._arrivals.left()]
        return Timeline.of(self._records, self._arrivals.seconds, self._began, time.process_time() - cpu_began)

    def now(self) -> float:
        """Return the seconds since the run began; negative before that."""
        return time.monotonic() - self._began

    def on_open(self, connection: "_Connection") -> None:
        """Start to use a new connection."""
        self._open.add(connection)
        now = self.now()
        if now < 0:
            self._free.append(connection)
        else:
            self._use(connection, now)

    def on_answer(self, connection: "_Connection", pending: "_Pending", status: int) -> None:
        """Record a response, and use the connection for the next request if it is still open."""
        now = self.now()
        intended, sent, call = pending
        self._records.append((intended, sent, now, call.judged(status), call.tag))
        self._in_flight -= 1
        if connection in self._open:
            self._use(connection, now)
        self._end_if_over(now)

    def on_closed(self, connection: "_Connection") -> None:
        """Replace a connection that was closed."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if not self._is_closing:
            task = asyncio.ensure_future(self._reconnect())
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)

    def _use(self, connection: "_Connection", now: float) -> bool:
        """Send the request that is due, or keep the connection; return whether one was due."""
        due = self._arrivals.take(now)
        if due is None:
            self._free.append(connection)
            self._set_alarm()
            return False
        call, data = next(self._calls)
        self._in_flight += 1
        connection.send(_Pending(due, now, call), data)
        return True

    def _on_alarm(self) -> None:
        now = self.now()
        while self._free and self._use(self._free.popleft(), now):
            pass
        self._set_alarm()
        self._end_if_over(now)

    def _set_alarm(self) -> None:
        """Set the alarm to when the next request is due, or the run is over."""
        wake_at = self._arrivals.wake_at()
        if wake_at is not None and wake_at != self._wake_at:
            self._wake_at = wake_at
            self._alarm.set(self._began + wake_at)

    def _end_if_over(self, now: float) -> None:
        if not self._in_flight and self._arrivals.is_over(now):
            self._is_over.set()

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self._host, self._port)

    async def _reconnect(self) -> None:
        while True:
            try:
                return await self._connect()
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)


class _Pending(NamedTuple):
    """A request that waits for its response."""

    intended: float
    sent: float
    call: Call


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    __slots__ = ("_reader", "_run", "_transport", "pending")

    def __init__(self, run: _Run) -> None:
        self.pending: _Pending | None = None
        self._run = run
        self._reader = ResponseReader()
        self._transport: asyncio.WriteTransport

    def send(self, pending: _Pending, data: bytes) -> None:
        """Send a request."""
        self.pending = pending
        self._transport.write(data)

    def abort(self) -> None:
        """Close at once."""
        self.pending = None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have asyncio's methods, but are not of its classes.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._run.on_open(self)

    def data_received(self, data: bytes) -> None:
        try:
            is_complete = self._reader.feed(data)
        except ValueError:
            self._transport.abort()
            return
        if not is_complete:
            return
        if self._reader.is_last:
            self._transport.abort()
        else:
            self._finish(self._reader.status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._run.on_closed(self)
        self._finish(self._reader.status if self._reader.end() else LOST)

    def _finish(self, status: int) -> None:
        pending, self.pending = self.pending, None
        if pending is not None:
            self._run.on_answer(self, pending, status)
