"""The worker: one thread that takes waiting requests, computes them, and reports once per segment."""

import logging
import queue
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from service.engine.batcher import Batcher, BatchingPolicy, CloseReason
from service.engine.request import Request
from service.engine.slots import Slots
from service.engine.worker import Worker
from service.errors import InferenceFailed, Overloaded
from tests.service.fakes import (
    INITIAL,
    PATIENCE_SECONDS,
    Clock,
    FakeRuntime,
    Gate,
    Recorder,
    recurrent_answers,
    recurrent_request,
)


class Bench:
    """A worker on a runtime that blocks, and a record of everything that it reports."""

    def __init__(self, *, slots: int, shortest: int, longest: int, queue_rows: int, delay: float = 0.0) -> None:
        self.gate = Gate()
        self.runtime = FakeRuntime(gate=self.gate)
        self.listener = Recorder()
        self.clock = Clock()
        self.grown: list[Request] = []
        self._settled: queue.Queue[Request] = queue.Queue()
        policy = BatchingPolicy(
            slots=slots,
            queue_rows=queue_rows,
            max_queue_delay_seconds=delay,
            longest_segment=longest,
            stream_segment=longest,
            shortest_segment=shortest,
        )
        self.worker = Worker(
            "fake",
            Batcher(policy),
            lambda: Slots(self.runtime, INITIAL, slots=slots, longest_segment=longest),
            self._deliver,
            self.listener,
            lambda: None,
            self.clock,
        )

    def _deliver(self, settled: list[Request], streams: list[Request]) -> None:
        self.grown += streams
        for request in settled:
            self._settled.put(request)

    def add(self, request: Request) -> Request:
        request.allocate(self.runtime.signature)
        self.worker.add(request)
        self.worker.wake()
        return request

    def settled(self, count: int = 1) -> list[Request]:
        """Wait for the next settled requests, and return them."""
        return [self._settled.get(timeout=PATIENCE_SECONDS) for _ in range(count)]

    def end(self) -> None:
        """Release the runtime and wait for the thread, after which everything has been reported."""
        self.gate.open()
        self.worker.stop()
        assert self.worker.join(PATIENCE_SECONDS)


@contextmanager
def working(
    *, slots: int = 4, shortest: int = 1, longest: int = 2, queue_rows: int = 16, delay: float = 0.0
) -> Iterator[Bench]:
    bench = Bench(slots=slots, shortest=shortest, longest=longest, queue_rows=queue_rows, delay=delay)
    bench.worker.start()
    try:
        yield bench
    finally:
        bench.end()


def test_free_runtime_takes_what_waits_at_once() -> None:
    """All requests that arrive while the runtime is busy form the next batch."""
    with working(longest=1) as bench:
        bench.add(recurrent_request(1, seed=1))
        bench.gate.await_arrival()
        for seed in (2, 3, 4):
            bench.add(recurrent_request(1, seed=seed))
        bench.gate.open()
        settled = bench.settled(4)

    assert bench.runtime.shapes == [(1, 1), (3, 1)]
    for request in settled:
        np.testing.assert_array_equal(request.outputs["answers"], recurrent_answers(request))


def test_lone_request_is_computed_when_the_queue_delay_has_passed() -> None:
    """No other request has to arrive for that."""
    with working(delay=0.01) as bench:
        bench.gate.open()
        assert bench.listener.has_no_slots.wait(PATIENCE_SECONDS)
        bench.listener.has_no_slots.clear()
        lone = bench.add(recurrent_request(1))
        assert bench.listener.has_no_slots.wait(PATIENCE_SECONDS)  # the worker has seen it, and waits for others
        bench.clock.advance(0.01)

        assert bench.settled() == [lone]

    assert bench.listener.batches[0].reason is CloseReason.DELAY


def test_request_is_settled_once() -> None:
    """A finished request cannot be dropped, and a dropped one is not delivered."""
    with working(longest=1) as bench:
        given_up = bench.add(recurrent_request(1))
        bench.gate.await_arrival()
        assert bench.worker.discard(given_up)
        assert not bench.worker.discard(given_up)
        finished = bench.add(recurrent_request(1))
        bench.gate.open()

        assert bench.settled() == [finished]
        assert not bench.worker.discard(finished)


def test_slot_of_a_request_that_was_given_up_is_free_for_the_next_segment() -> None:
    """A new request enters the slot of one that was dropped during the segment."""
    with working(slots=1, longest=2) as bench:
        leaver = bench.add(recurrent_request(100))
        bench.gate.await_arrival()
        newcomer = bench.add(recurrent_request(2))
        bench.worker.discard(leaver)
        bench.gate.open()

        assert bench.settled() == [newcomer]

    assert bench.runtime.shapes == [(1, 2), (1, 2)]
    np.testing.assert_array_equal(newcomer.outputs["answers"], recurrent_answers(newcomer))


def test_expired_request_is_not_computed() -> None:
    """A request that expires in the queue never reaches the runtime; the engine reports it."""
    with working(slots=1, longest=1) as bench:
        first = bench.add(recurrent_request(1))
        bench.gate.await_arrival()
        late = bench.add(recurrent_request(1, rows=3, deadline=bench.clock.now + 1))
        bench.clock.advance(1)
        last = bench.add(recurrent_request(1))
        bench.gate.open()

        assert bench.settled(2) == [first, last]

    assert late.is_settled
    assert bench.runtime.shapes == [(1, 1), (1, 1)]


def test_request_that_fails_is_delivered_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    """The client learns that the model failed; the log has the cause."""
    with working() as bench, caplog.at_level(logging.ERROR, logger="glimpse.engine"):
        failing = recurrent_request(1, poisoned_step=0)
        failing.on_progress = lambda: None
        bench.add(failing)
        bench.gate.open()

        assert bench.settled() == [failing]

    assert isinstance(failing.error, InferenceFailed)
    assert str(failing.error.__cause__) == "poisoned"
    assert "a request failed when run alone: poisoned" in caplog.text
    assert failing.steps_done == [0]


def test_worker_goes_on_after_a_failure() -> None:
    """After a runtime has raised an exception, it is used again."""
    with working() as bench:
        bench.gate.open()
        failing = bench.add(recurrent_request(1, poisoned_step=0))
        assert bench.settled() == [failing]

        good = bench.add(recurrent_request(3))

        assert bench.settled() == [good]
    assert good.error is None


def test_streams_are_told_once_a_segment() -> None:
    """A stream of six steps in segments of two is reported three times, other requests only when they finish."""
    with working(longest=2) as bench:
        bench.gate.open()
        stream = recurrent_request(6)
        stream.on_progress = lambda: None
        bench.add(stream)
        bench.settled()
        bench.add(recurrent_request(6))
        bench.settled()

    assert bench.grown == [stream] * 3


def test_what_is_finished_is_told_before_the_next_segment_is_computed() -> None:
    """A finished request does not wait for the others."""
    with working(slots=2, longest=2) as bench:
        bench.add(recurrent_request(100))
        bench.gate.await_arrival()
        short = bench.add(recurrent_request(2))
        bench.gate.let_through()
        bench.gate.await_arrival()
        bench.gate.let_through()
        bench.gate.await_arrival()  # the third segment is in the runtime and goes nowhere

        assert bench.settled() == [short]


def test_what_was_finished_is_told_even_if_the_worker_dies_then(caplog: pytest.LogCaptureFixture) -> None:
    """A result is delivered even if the worker dies of a bug afterwards."""
    with working() as bench, caplog.at_level(logging.ERROR, logger="glimpse.engine"):
        finished = bench.add(recurrent_request(1))
        bench.gate.await_arrival()
        bench.add(recurrent_request(1))
        bench.listener.raises_on_slots = True
        bench.gate.let_through()

        assert bench.settled() == [finished]
        assert bench.worker.join(PATIENCE_SECONDS)

    assert finished.error is None


def test_refused_request_leaves_no_trace() -> None:
    """A full queue refuses at once, and the queued requests are computed."""
    with working(slots=1, queue_rows=2) as bench:
        bench.add(recurrent_request(1))
        bench.gate.await_arrival()
        bench.add(recurrent_request(1, rows=2))

        with pytest.raises(Overloaded, match="no room: 2 of 2 rows are taken, and this request has 1"):
            bench.add(recurrent_request(1))

        assert bench.listener.queue_rows == 2
        bench.gate.open()
        bench.settled(2)
    assert bench.runtime.shapes == [(1, 1)] * 3


def test_batches_are_reported() -> None:
    """A report says what was computed, why the batch was dispatched, and how long it took."""
    with working(slots=2, shortest=4, longest=4) as bench:
        bench.add(recurrent_request(1))
        bench.gate.await_arrival()
        bench.add(recurrent_request(1))
        bench.add(recurrent_request(4, poisoned_step=3))
        bench.clock.advance(0.5)
        bench.gate.open()
        bench.settled(3)

    first, second = bench.listener.batches
    assert (first.rows, first.steps, first.padding_row_steps, first.failed_rows) == (1, 1, 0, 0)
    assert (second.rows, second.steps, second.padding_row_steps, second.failed_rows) == (2, 4, 3, 1)
    assert (first.reason, second.reason) == (CloseReason.IDLE, CloseReason.FULL)
    assert (first.compute_seconds, second.compute_seconds) == (0.5, 0.0)


def test_listener_hears_how_many_wait_and_how_many_run() -> None:
    """The counts follow the queue and the slots up and down again."""
    with working(slots=1, longest=1) as bench:
        bench.add(recurrent_request(2))
        bench.gate.await_arrival()
        assert (bench.listener.queue_rows, bench.listener.slots) == (0, 1)

        waiting = bench.add(recurrent_request(1, rows=3))
        assert bench.listener.queue_rows == 3
        bench.worker.discard(waiting)
        assert bench.listener.queue_rows == 0

        bench.gate.open()
        bench.settled()
        bench.add(recurrent_request(1))
        bench.settled()

    assert (bench.listener.queue_rows, bench.listener.batches[-1].rows) == (0, 1)


def test_idle_worker_has_no_slots_occupied() -> None:
    """When the worker is idle, the listener is told that no slot is occupied."""
    with working() as bench:
        bench.add(recurrent_request(1, rows=3))
        bench.gate.await_arrival()
        assert bench.listener.slots == 3

        bench.gate.open()

        assert bench.listener.has_no_slots.wait(PATIENCE_SECONDS)
        assert bench.listener.slots == 0


def test_idle_worker_keeps_nothing_of_its_last_requests() -> None:
    """Their inputs and outputs may be large, and the next request may be an hour away."""
    with working() as bench:
        bench.add(recurrent_request(1))
        bench.gate.open()
        kept = weakref.ref(bench.settled()[0].outputs["answers"])

        assert bench.listener.has_no_slots.wait(PATIENCE_SECONDS)
        assert kept() is None


def test_segment_in_hand_is_timed() -> None:
    """The busy time grows during a segment, and is 0 between segments."""
    with working() as bench:
        assert bench.worker.busy_seconds() == 0
        bench.add(recurrent_request(1))
        bench.gate.await_arrival()
        bench.clock.advance(7)

        assert bench.worker.busy_seconds() == 7

        bench.gate.open()
        bench.settled()
        assert bench.worker.busy_seconds() == 0


def test_worker_stops_after_the_segment_in_hand() -> None:
    """Requests that are still waiting or running are returned once."""
    with working(slots=1, longest=1) as bench:
        running = bench.add(recurrent_request(5))
        bench.gate.await_arrival()
        waiting = bench.add(recurrent_request(1))

        bench.end()

        assert bench.worker.clear() == [running, waiting]
        assert bench.worker.clear() == []
        assert bench.runtime.shapes == [(1, 1)]
        assert not bench.worker.has_died


def test_worker_that_meets_a_bug_dies_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that raises ends the thread, and the pending requests can be recovered."""
    with working() as bench, caplog.at_level(logging.ERROR, logger="glimpse.engine"):
        bench.listener.raises_on_slots = True
        waiting = bench.add(recurrent_request(1))

        assert bench.worker.join(PATIENCE_SECONDS)
        assert bench.worker.has_died
        assert bench.worker.clear() == [waiting]

    assert "glimpse-fake died" in caplog.text


def test_worker_that_was_not_started_has_not_died() -> None:
    """There is no thread to wait for, either."""
    worker = Bench(slots=1, shortest=1, longest=1, queue_rows=1).worker

    assert not worker.has_died
    assert not worker.is_alive
    assert worker.join(PATIENCE_SECONDS)
