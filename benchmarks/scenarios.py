"""What is measured from outside: throughput, latency against load, overload."""

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
"""Connections of an open loop, many more than requests that a healthy server has under way."""
OVERLOAD_POOL = 2048
"""More than the service takes in: a full queue, full slots, and refusals on their way."""
OVERLOAD = 10
"""Times the capacity."""
PROBE_SECONDS = 5.0
REFUSALS = (429, 503)
NORMAL = 2.0
"""A request is as quick as normally up to so many times the longest of an idle server."""
STRETCHES = 10
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
"""Shares of the throughput at which the latency is measured."""


@dataclass(frozen=True, slots=True)
class ServerSide:
    """What the service says of the same requests, in the mean; times in seconds."""

    decode: float
    queue: float
    compute: float
    encode: float
    batch_rows: float
    padding_share: float
    """Share of all row-steps that were computed."""
    requests: int
    """How many it has counted; all of them, if nobody else asked."""


@dataclass(frozen=True, slots=True)
class Run:
    """One workload under one load."""

    name: str
    connections: int
    timeline: Timeline
    server: ServerSide | None = None
    """None where it was not asked."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a long load."""

    timeline: Timeline
    memory: float
    """At its end; bytes resident, of all processes of the service."""


@dataclass(frozen=True, slots=True)
class Overload:
    """A server that is asked for ten times what it can do, and after that."""

    peak_rate: float
    flood: Timeline
    """What was asked for too much of."""
    recovery_seconds: float
    """From the flood's end until a lone client is answered as quickly as before."""
    memory_before: float
    memory_after: float
    """Bytes resident, of all processes of the service."""

    @property
    def refused(self) -> Timeline:
        """The requests that were answered, but with a refusal."""
        return self.flood.where(np.isin(self.flood.status, REFUSALS))


def closed(name: str, url: str, calls: list[Call], *, connections: int, seconds: float) -> Run:
    """Throughput and latency at a number of connections, after a warm-up."""
    warm_up = min(MAX_WARM_UP_SECONDS, WARM_UP_SHARE * seconds)
    run(load(url, calls, ClosedLoop(warm_up), connections=connections))
    before = server.metrics(url)
    timeline = run(load(url, calls, ClosedLoop(seconds), connections=connections))
    return Run(name, connections, timeline, _server_side(before, server.metrics(url)))


def contender(url: str, calls: list[Call], connections: int) -> Callable[[float], Timeline]:
    """What measures a server for so long when its turn comes; good answers that come after that do not count."""

    def measure(seconds: float) -> Timeline:
        timeline = run(load(url, calls, ClosedLoop(seconds), connections=connections))
        return timeline.where(~timeline.ok | (timeline.done <= seconds))

    return measure


def opened(name: str, url: str, calls: list[Call], *, rate: float, seconds: float, connections: int) -> Run:
    """Latency at a rate of independent arrivals."""
    before = server.metrics(url)
    timeline = run(load(url, calls, OpenLoop.poisson(rate, seconds), connections=connections))
    return Run(name, connections, timeline, _server_side(before, server.metrics(url)))


def sweep(name: str, url: str, calls: list[Call], *, peak_rate: float, seconds: float) -> list[Run]:
    """Latency against load, up to the throughput."""
    return [opened(name, url, calls, rate=share * peak_rate, seconds=seconds, connections=POOL) for share in LOADS]


def overload(url: str, calls: list[Call], *, peak_rate: float, rate: float | None, seconds: float) -> Overload:
    """Ten times the throughput, and how long it is felt."""

    async def flood_then_probe() -> tuple[Timeline, Timeline]:
        arrivals = OpenLoop.poisson(rate or OVERLOAD * peak_rate, seconds, until=seconds)
        flood = load(url, calls, arrivals, connections=OVERLOAD_POOL)
        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood)
            # The probe begins as the flood ends, not when the last of it is answered.
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
    """A long load in equal parts, and the memory after each."""

    def stretch() -> Stretch:
        timeline = run(load(url, calls, ClosedLoop(seconds / STRETCHES), connections=connections))
        return Stretch(timeline, server.metrics(url)[server.MEMORY])

    return [stretch() for _ in range(STRETCHES)]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a part of a measurement on a loop of its own, without garbage collection: it would be taken for the server's.

    After a hundred thousand requests a collection takes a tenth of a second. It is made up for before the next part.
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
        # The scrape that came before is counted by the one that comes after.
        requests=int(grown("glimpse_requests_total")) - 1,
    )
