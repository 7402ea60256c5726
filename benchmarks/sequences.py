"""Baselines for the engine: the same graphs without a scheduler.

- *The engine-free loop*: a full batch of sequences of equal length, one segment after the other. No batching scheduler
  can be faster.
- *Whole-request batching*: a full batch of mixed lengths runs until its longest sequence is done; then the next batch.
  Its requests cost nothing to receive: there are no queue, tasks or threads.
- *The engine*, with as many concurrent requests as a full batch has rows.

All three share one process and one runtime.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks import workloads
from benchmarks.client import loop_factory
from benchmarks.served import BATCH, loaded
from benchmarks.timeline import OK, Record, Timeline
from benchmarks.turns import in_turns, repeat
from export.manifest import Array
from service.engine.batcher import BatchingPolicy
from service.engine.engine import Engine
from service.engine.request import Request
from service.metrics import Metrics
from service.runtime.base import Bound, Runtime, shape_of
from service.settings import Settings
from service.tasks import draw, ntm
from service.tasks.seed import MAX_SEED

SEGMENT = 16
"""Steps per segment where no request can join in between; longer segments are not faster."""
FILL_SECONDS = 0.2
"""Time from the engine's first request until its slots are in a steady state."""
DEADLINE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Recurrent:
    """Three ways to run the same mix of sequences."""

    engine_free: Timeline
    whole_request: Timeline
    engine: Timeline


@dataclass(frozen=True, slots=True)
class Subject:
    """A graph and the requests that it is measured with."""

    name: str
    runtime: Runtime
    initial: Mapping[str, Array]
    policy: BatchingPolicy
    examples: Mapping[int, list[Request]]
    """`BATCH` requests for every length."""

    def requests(self) -> Iterator[tuple[str, Request]]:
        """Yield endless (length, request) pairs, with evenly mixed lengths."""
        for index, length in enumerate(cycle(workloads.mixed_lengths(workloads.REPEATED_AFTER))):
            example = self.examples[length][index % BATCH]
            deadline = time.monotonic() + DEADLINE_SECONDS
            yield str(length), Request(example.inputs, 1, example.steps, deadline, example.wanted)


def subject(name: str, repository: Path) -> Subject:
    """Return DRAW's or the NTM's graph with its requests and the batching policy of the service's settings."""
    generator = np.random.default_rng(1)
    settings = Settings()
    if name == "draw":
        model = loaded(repository, "draw")
        graph = model.graphs["generate"]

        def example(length: int) -> Request:
            seed = int(generator.integers(MAX_SEED))
            return draw.generation(
                model.manifest, seed=seed, count=1, steps=length, digit=None, temperature=1.0, deadline=0.0
            )

        batching = settings.draw
    else:
        graph = loaded(repository, "ntm-copy").graphs["step"]

        def example(length: int) -> Request:
            vectors = generator.integers(2, size=(workloads.copied_vectors(length), ntm.BITS), dtype=np.uint8)
            return ntm.copy(vectors).request(0.0, with_trace=False)

        batching = settings.ntm
    examples = {length: [example(length) for _ in range(BATCH)] for length in workloads.LENGTHS}
    return Subject(name, graph.runtime, graph.initial, batching.policy(), examples)


class FixedBatch:
    """A batch of sequences that runs from start to end of the longest; all memory and bindings are made beforehand."""

    def __init__(self, subject: Subject, requests: Sequence[Request]) -> None:
        signature = subject.runtime.signature
        rows, self.steps = len(requests), max(request.steps for request in requests)
        self._segment = min(self.steps, SEGMENT)
        self._subject = subject
        self._given = {s.name: np.zeros(shape_of(s, rows, self.steps), s.dtype) for s in signature.inputs}
        for row, request in enumerate(requests):
            for name, array in request.inputs.items():
                self._given[name][: request.steps, row] = array[:, 0]
        wanted = requests[0].wanted
        self.outputs = {
            s.name: np.empty(shape_of(s, rows, self.steps), s.dtype)
            for s in signature.outputs
            if wanted is None or s.name in wanted
        }
        self._states = [{s.name: np.empty(shape_of(s, rows, 1), s.dtype) for s in signature.state} for _ in range(2)]
        # The last segment may be shorter than the others.
        self._bound = {steps: self._bind(rows, steps) for steps in {self._segment, self.steps % self._segment} - {0}}

    def run(self) -> None:
        """Run all sequences to the end of the longest."""
        for name, array in self._states[0].items():
            array[:] = self._subject.initial[name]
        for index, begin in enumerate(range(0, self.steps, self._segment)):
            end = min(begin + self._segment, self.steps)
            inputs, outputs, bound = self._bound[end - begin]
            for name, array in inputs.items():
                array[:] = self._given[name][begin:end]
            bound[index % 2]()
            for name, kept in self.outputs.items():
                kept[begin:end] = outputs[name]

    def _bind(self, rows: int, steps: int) -> tuple[dict[str, Array], dict[str, Array], list[Bound]]:
        """Return a segment's buffers and its two bound calls: from the first state arrays to the second, and back."""
        signature = self._subject.runtime.signature
        inputs = {s.name: np.empty(shape_of(s, rows, steps), s.dtype) for s in signature.inputs}
        outputs = {s.name: np.empty(shape_of(s, rows, steps), s.dtype) for s in signature.outputs}
        calls = [
            self._subject.runtime.bind(
                inputs | before, outputs | {f"next_{name}": array for name, array in after.items()}
            )
            for before, after in (self._states, self._states[::-1])
        ]
        return inputs, outputs, calls


def recurrent(subject: Subject, seconds: float) -> Recurrent:
    """Measure all three in turns, `seconds` each."""
    examples = subject.examples
    equal = [FixedBatch(subject, examples[length]) for length in workloads.LENGTHS]
    lengths = workloads.mixed_lengths(BATCH)
    mixed = FixedBatch(subject, [examples[length][row] for row, length in enumerate(lengths)])
    listener = Metrics().listener(subject.name, 1, subject.name, subject.runtime.provider)
    engine = Engine(subject.name, subject.runtime, subject.initial, subject.policy, listener)

    def engine_free(seconds: float) -> Timeline:
        return _fixed(
            [(batch, [length] * BATCH) for batch, length in zip(equal, workloads.LENGTHS, strict=True)], seconds
        )

    def whole_requests(seconds: float) -> Timeline:
        return _fixed([(mixed, lengths)], seconds)

    with asyncio.Runner(loop_factory=loop_factory) as runner:

        def through_the_engine(seconds: float) -> Timeline:
            return runner.run(_through_engine(engine, subject.requests(), seconds))

        runner.run(_start(engine))
        found = in_turns(
            {"engine_free": engine_free, "whole_request": whole_requests, "engine": through_the_engine}, seconds
        )
        runner.run(engine.stop())
    return Recurrent(**{name: Timeline.joined(parts) for name, parts in found.items()})


def _fixed(batches: Sequence[tuple[FixedBatch, Sequence[int]]], seconds: float) -> Timeline:
    """Run batches, given with their sequences' lengths, one after the other, for `seconds`."""
    records: list[Record] = []
    began = time.perf_counter()

    def run() -> None:
        for batch, lengths in batches:
            intended = time.perf_counter() - began
            batch.run()
            done = time.perf_counter() - began
            records.extend((intended, intended, done, OK, str(length)) for length in lengths)

    _, took = repeat(run, seconds)
    return Timeline.of(records, took)


async def _start(engine: Engine) -> None:
    engine.start()


async def _through_engine(engine: Engine, requests: Iterator[tuple[str, Request]], seconds: float) -> Timeline:
    """Keep `BATCH` requests in progress; those that finish between the filling of the slots and the end count."""
    records: list[Record] = []
    began = time.perf_counter() + FILL_SECONDS

    async def client() -> None:
        while (sent := time.perf_counter() - began) < seconds:
            tag, request = next(requests)
            await engine.submit(request)
            done = time.perf_counter() - began
            if 0 <= done <= seconds:
                records.append((sent, sent, done, OK, tag))

    async with asyncio.TaskGroup() as group:
        for _ in range(BATCH):
            group.create_task(client())
    return Timeline.of(records, seconds)
