"""Measurements over HTTP: throughput, latency against load, overload."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from benchmarks import server
from benchmarks.arrivals import ClosedLoop, OpenLoop
from benchmarks.client import Call, load, loop_factory
from benchmarks.timeline import Timeline

T = TypeVar("T")

WARM_UP_SHARE = 0.2
MAX_WARM_UP_SECONDS = 2.0
POOL = 512
"""Connections of an open loop: many more than a healthy server has requests in progress."""
OVERLOAD_POOL = 2048
"""Connections of an overload: more than a full queue, full slots and refusals in flight take up."""
OVERLOAD = 10
"""Factor by which the load of an overload exceeds the throughput."""
PROBE_SECONDS = 5.0
REFUSALS = (429, 503)
NORMAL = 2.0
"""Factor of an idle server's longest latency up to which a latency is normal."""
STRETCHES = 10
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
"""Loads at which the latency is measured, as shares of the throughput."""


@dataclass(frozen=True, slots=True)
class ServerSide:
    """The service's own measurements of the same requests: means, with times in seconds."""

    decode: float
    queue: float
    compute: float
    encode: float
    batch_rows: float
    padding_share: float
    """Share of padding in all row-steps that were computed."""
    requests: int
    """Number of requests that the service counted, including those of other clients."""


@dataclass(frozen=True, slots=True)
class Run:
    """One workload under one load."""

    name: str
    connections: int
    timeline: Timeline
    server: ServerSide | None = None
    """The service's own measurements; None if it was not asked for them."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One part of a long load."""

    timeline: Timeline
    memory: float
    """Resident memory of all processes of the service at the end of this part, in bytes."""


@dataclass(frozen=True, slots=True)
class Overload:
    """A server under ten times the load that it can handle, and after that."""

    peak_rate: float
    flood: Timeline
    """Requests of the overload."""
    recovery_seconds: float
    """Time from the end of the overload until a lone client's latency is normal again."""
    memory_before: float
    """Resident memory of all processes of the service before the overload, in bytes."""
    memory_after: float
    """Resident memory after the overload, in bytes."""

    @property
    def refused(self) -> Timeline:
        """Requests that were refused."""
        return self.flood.where(np.isin(self.flood.status, REFUSALS))


def closed(name: str, url: str, calls: list[Call], *, connections: int, seconds: float) -> Run:
    """Measure throughput and latency with a number of connections, after a warm-up."""
    warm_up = min(MAX_WARM_UP_SECONDS, WARM_UP_SHARE * seconds)
    run(load(url, calls, ClosedLoop(warm_up), connections=connections))
    before = server.metrics(url)
    timeline = run(load(url, calls, ClosedLoop(seconds), connections=connections))
    return Run(name, connections, timeline, _server_side(before, server.metrics(url)))


def contender(url: str, calls: list[Call], connections: int) -> Callable[[float], Timeline]:
    """Return a function that measures a server for some seconds; good responses after that do not count."""

    def measure(seconds: float) -> Timeline:
        timeline = run(load(url, calls, ClosedLoop(seconds), connections=connections))
        return timeline.where(~timeline.ok | (timeline.done <= seconds))

    return measure


def opened(name: str, url: str, calls: list[Call], *, rate: float, seconds: float, connections: int) -> Run:
    """Measure latency with independent arrivals at a rate."""
    before = server.metrics(url)
    timeline = run(load(url, calls, OpenLoop.poisson(rate, seconds), connections=connections))
    return Run(name, connections, timeline, _server_side(before, server.metrics(url)))


def sweep(name: str, url: str, calls: list[Call], *, peak_rate: float, seconds: float) -> list[Run]:
    """Measure latency against load, up to the throughput."""
    return [opened(name, url, calls, rate=share * peak_rate, seconds=seconds, connections=POOL) for share in LOADS]


def overload(url: str, calls: list[Call], *, peak_rate: float, rate: float | None, seconds: float) -> Overload:
    """Load a server with ten times its throughput, and measure how long it takes to recover."""

    async def flood_then_probe() -> tuple[Timeline, Timeline]:
        arrivals = OpenLoop.poisson(rate or OVERLOAD * peak_rate, seconds, until=seconds)
        flood = load(url, calls, arrivals, connections=OVERLOAD_POOL)
        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood)
            # The probe begins when the overload ends, not when its last response arrives.
            probing = group.create_task(_later(seconds, load(url, calls, ClosedLoop(PROBE_SECONDS), connections=1)))
        return flooding.result(), probing.result()

    quiet = run(load(url, calls, ClosedLoop(min(PROBE_SECONDS, seconds)), connections=1))
    before = server.metrics(url)
    flood, probe = run(flood_then_probe())
    normal_at = probe.began + probe.recovered_after(NORMAL * float(quiet.latency.max(initial=0.0)))
    return Overload(
        peak_rate,
        flood,
        max(0.0, normal_at - (flood.began + flood.seconds)),
        before[server.MEMORY],
        server.metrics(url)[server.MEMORY],
    )


def soak(url: str, calls: list[Call], *, connections: int, seconds: float) -> list[Stretch]:
    """Load a server for a long time in equal parts, and measure its memory after each."""

    def stretch() -> Stretch:
        timeline = run(load(url, calls, ClosedLoop(seconds / STRETCHES), connections=connections))
        return Stretch(timeline, server.metrics(url)[server.MEMORY])

    return [stretch() for _ in range(STRETCHES)]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a part of a measurement on an event loop of its own, without garbage collection.

    After a hundred thousand requests a collection takes a tenth of a second, which would count as the server's. Garbage
    is collected before each part instead.
    """
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(work)
    finally:
        gc.enable()


async def _later(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    await asyncio.sleep(seconds)
    return await work


def _server_side(before: dict[str, float], after: dict[str, float]) -> ServerSide:
    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    def mean(name: str) -> float:
        return grown(f"glimpse_{name}_sum") / max(1.0, grown(f"glimpse_{name}_count"))

    steps, padding = grown("glimpse_steps_total"), grown("glimpse_padding_rows_total")
    return ServerSide(
        decode=mean("decode_seconds"),
        queue=mean("queue_seconds"),
        compute=mean("compute_seconds"),
        encode=mean("encode_seconds"),
        batch_rows=mean("batch_size"),
        padding_share=padding / max(1.0, steps + padding),
        # The second scrape counts the first one as a request.
        requests=int(grown("glimpse_requests_total")) - 1,
    )
