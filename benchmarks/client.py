"""The load generator: HTTP/1.1 at about the cost of its system calls, so that it can run beside the server.

Requests are encoded before the clock starts; connections are opened before it, kept alive and replaced when they break;
of a response only the status and the end are read. Every run ends by itself: at its time, or when its number of requests
is answered, and at the latest `patience_seconds` after that. What became of every request is in its `Timeline`, also of
those that were never answered or never sent.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple
from urllib.parse import urlsplit

import uvloop

from benchmarks.alarm import Alarm
from benchmarks.arrivals import Arrivals, ClosedLoop, OpenLoop, constant, poisson
from benchmarks.response import ResponseReader
from benchmarks.timeline import LOST, UNANSWERED, UNSENT, Record, Timeline

PATIENCE_SECONDS = 10.0
RECONNECT_SECONDS = 0.02
START_SECONDS = 0.01
"""From when all is set up to the first request."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request; its tag says what kind it is, among those of a workload."""

    tag: str
    method: str
    target: str
    body: bytes = b""
    content_type: str = ""

    def encoded(self, host: str) -> bytes:
        """The request as it goes over the wire."""
        head = f"{self.method} {self.target} HTTP/1.1\r\nhost: {host}\r\n"
        if self.body:
            head += f"content-type: {self.content_type}\r\ncontent-length: {len(self.body)}\r\n"
        return head.encode() + b"\r\n" + self.body


class Pending(NamedTuple):
    """A request that waits for its answer."""

    intended: float
    sent: float
    tag: str


async def closed_loop(
    url: str,
    calls: Iterable[Call],
    *,
    connections: int,
    seconds: float,
    count: int | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Timeline:
    """Keep every connection busy with one request at a time, for so long or so many requests."""
    load = _Load(url, calls, patience_seconds)
    async with load.connected(connections):
        began = time.monotonic()
        return await load.run(ClosedLoop(began + seconds, count), began, seconds)


async def open_loop(
    url: str,
    calls: Iterable[Call],
    *,
    rate: float,
    seconds: float,
    connections: int,
    is_poisson: bool = True,
    seed: int = 1,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Timeline:
    """Send `rate` requests a second, whatever becomes of them, over as many connections as there are."""
    load = _Load(url, calls, patience_seconds)
    async with load.connected(connections):
        began = time.monotonic() + START_SECONDS
        times = poisson(rate, began, seconds, seed) if is_poisson else constant(rate, began, seconds)
        return await load.run(OpenLoop(times), began, seconds)


def new_loop() -> asyncio.AbstractEventLoop:
    """The loop that this client is meant for: `asyncio.Runner(loop_factory=new_loop)`."""
    return uvloop.new_event_loop()


class _Load:
    """One run: connections on one side, arrivals on the other, and records of what happened between them."""

    def __init__(self, url: str, calls: Iterable[Call], patience_seconds: float) -> None:
        address = urlsplit(url)
        if address.scheme != "http" or not address.hostname:
            raise ValueError(f"the load generator speaks plain HTTP to http://host:port, not to {url!r}")
        self._host, self._port = address.hostname, address.port or 80
        wire = [(call.tag, call.encoded(address.netloc)) for call in calls]
        self._calls: Iterator[tuple[str, bytes]] = cycle(wire)
        self._patience_seconds = patience_seconds
        self._arrivals: Arrivals = ClosedLoop(0.0)
        self._open: set[_Connection] = set()
        self._free: list[_Connection] = []
        self._records: list[Record] = []
        self._in_flight = 0
        self._over = asyncio.Event()
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._is_closing = False

    @contextlib.asynccontextmanager
    async def connected(self, connections: int) -> "contextlib.AsyncIterator[None]":
        """Within, there are so many connections; the first must succeed."""
        loop = asyncio.get_running_loop()
        self._alarm = Alarm(loop, self._on_alarm)
        try:
            for _ in range(connections):
                await loop.create_connection(lambda: _Connection(self), self._host, self._port)
            yield
        finally:
            self._is_closing = True
            self._alarm.close()
            for task in self._reconnecting:
                task.cancel()
            await asyncio.gather(*self._reconnecting, return_exceptions=True)
            for connection in self._open:
                connection.abort()
            while self._open:
                await asyncio.sleep(0)

    async def run(self, arrivals: Arrivals, began: float, seconds: float) -> Timeline:
        """Send what arrives until all is answered, or patience ends."""
        self._arrivals = arrivals
        cpu_began = time.process_time()
        self._on_alarm()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), began + seconds + self._patience_seconds - time.monotonic())
        now = time.monotonic()
        for connection in self._open:
            if connection.pending is not None:
                self._records.append((*connection.pending[:2], now, UNANSWERED, connection.pending.tag))
                connection.pending = None
        while not isinstance(arrivals, ClosedLoop) and (intended := arrivals.take(now)) is not None:
            self._records.append((intended, now, now, UNSENT, next(self._calls)[0]))
        return Timeline.of(self._records, began, seconds, time.process_time() - cpu_began)

    def on_free(self, connection: "_Connection", now: float) -> None:
        """Use a connection, or keep it for the next request."""
        intended = self._arrivals.take(now)
        if intended is None:
            self._free.append(connection)
            self._end_if_over(now)
        else:
            tag, data = next(self._calls)
            self._in_flight += 1
            connection.send(Pending(intended, now, tag), data)

    def on_answer(self, connection: "_Connection", pending: Pending, status: int) -> None:
        """Record an answer; the connection is free again if it still stands."""
        now = time.monotonic()
        self._records.append((pending.intended, pending.sent, now, status, pending.tag))
        self._in_flight -= 1
        if connection in self._open:
            self.on_free(connection, now)
        else:
            self._end_if_over(now)

    def on_open(self, connection: "_Connection") -> None:
        """Take a new connection into use."""
        self._open.add(connection)
        self.on_free(connection, time.monotonic())

    def on_closed(self, connection: "_Connection") -> None:
        """Replace a connection."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if not self._is_closing:
            task = asyncio.ensure_future(self._reconnect())
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)

    async def _reconnect(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.create_connection(lambda: _Connection(self), self._host, self._port)
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
            else:
                return

    def _on_alarm(self) -> None:
        now = time.monotonic()
        while self._free and (intended := self._arrivals.take(now)) is not None:
            tag, data = next(self._calls)
            self._in_flight += 1
            self._free.pop().send(Pending(intended, now, tag), data)
        self._end_if_over(now)
        if (wake_at := self._arrivals.wake_at()) is not None and wake_at > now:
            self._alarm.set(wake_at)

    def _end_if_over(self, now: float) -> None:
        if not self._in_flight and self._arrivals.is_over(now):
            self._over.set()
