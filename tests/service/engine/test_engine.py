"""The engine's promises, seen from the event loop. Time is virtual: deadlines pass when a test says so."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from service.engine.batcher import BatchingPolicy
from service.engine.engine import Engine, Progress
from service.engine.request import Request
from service.errors import DeadlineExceeded, InferenceFailed, NotReady, Overloaded
from tests.service.fakes import (
    INITIAL,
    PATIENCE_SECONDS,
    POISON,
    Clock,
    FakeRuntime,
    Gate,
    Recorder,
    recurrent_answers,
    recurrent_request,
)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers go by a clock of ours."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__()

    def time(self) -> float:
        """The time that timers are compared with."""
        return self.clock()


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a plain test of an asynchronous one; one that hangs is cancelled."""

    @functools.wraps(test)
    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()

            async def watched() -> None:
                task = asyncio.current_task()
                assert task is not None
                watchdog = threading.Timer(PATIENCE_SECONDS, loop.call_soon_threadsafe, [task.cancel])
                watchdog.start()
                try:
                    await test()
                finally:
                    watchdog.cancel()

            runner.run(watched())

    return run


class Bench:
    """An engine on a held runtime."""

    def __init__(self, *, slots: int = 4, segment: int = 2, queue_rows: int = 16, stall_seconds: float = 5.0) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.clock = loop.clock
        self.gate = Gate()
        self.runtime = FakeRuntime(gate=self.gate)
        self.listener = Recorder()
        self.is_broken = False
        """Whether the runtime fails at its golden example too."""
        self.is_examined, self.examination = threading.Event(), threading.Event()
        """Whether the golden example has been begun; whether it may be finished."""
        self.examination.set()
        policy = BatchingPolicy(slots=slots, queue_rows=queue_rows, longest_segment=segment, stream_segment=segment)
        self.engine = Engine(
            "fake",
            self.runtime,
            INITIAL,
            policy,
            self.listener,
            verify=self._verify,
            stall_seconds=stall_seconds,
            clock=self.clock,
        )

    def _verify(self) -> None:
        self.is_examined.set()
        self.examination.wait(PATIENCE_SECONDS)
        if self.is_broken:
            raise InferenceFailed("the answer is not the golden one")

    async def submitted(self, request: Request) -> asyncio.Task[None]:
        """A task that has reached the queue."""
        task = asyncio.create_task(self.engine.submit(request))
        await asyncio.sleep(0)
        return task

    async def read(self, stream: AsyncGenerator[list[Progress], None]) -> asyncio.Task[list[Progress]]:
        """A task that reads once from a stream, whose request has reached the queue."""

        async def read_once() -> list[Progress]:
            return await anext(stream)

        task = asyncio.create_task(read_once())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    async def in_hand(self) -> None:
        """Wait until the runtime is called once more, and hold it there."""
        await asyncio.to_thread(self.gate.await_arrival)

    async def next_segment(self) -> None:
        """Let the segment in hand be computed, and wait for the next."""
        self.gate.let_through()
        await self.in_hand()

    async def let_time_pass(self, seconds: float) -> None:
        """Let time pass, and the timers that are due call back."""
        self.clock.advance(seconds)
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0, passed.set)
        await passed.wait()
        await asyncio.sleep(0)

    async def death(self) -> None:
        """Have the worker die of a bug, and wait until it has."""
        self.listener.raises_on_slots = True
        self.gate.open()
        assert await asyncio.to_thread(self.engine._worker.join, PATIENCE_SECONDS)
        self.listener.raises_on_slots = False


@asynccontextmanager
async def serving(
    *, slots: int = 4, segment: int = 2, queue_rows: int = 16, stall_seconds: float = 5.0
) -> AsyncIterator[Bench]:
    bench = Bench(slots=slots, segment=segment, queue_rows=queue_rows, stall_seconds=stall_seconds)
    bench.engine.start()
    try:
        yield bench
    finally:
        bench.gate.open()
        await bench.engine.stop(PATIENCE_SECONDS)


def assert_right(request: Request) -> None:
    np.testing.assert_array_equal(request.outputs["answers"], recurrent_answers(request))


@in_virtual_time
async def test_submitted_request_has_its_outputs() -> None:
    """When `submit` returns, every step of every row is there."""
    async with serving() as bench:
        bench.gate.open()
        request = recurrent_request(7, rows=3)

        await bench.engine.submit(request)

    assert_right(request)
    assert bench.listener.batches[-1].rows == 3


@in_virtual_time
async def test_timings_of_a_request_are_known() -> None:
    """The time in the queue and the time of computing are told apart."""
    async with serving(slots=1) as bench:
        running = await bench.submitted(recurrent_request(2, seed=1))
        await bench.in_hand()
        request = recurrent_request(2, seed=2)
        waiting = await bench.submitted(request)
        bench.clock.advance(0.5)
        await bench.next_segment()
        bench.clock.advance(0.25)
        bench.gate.open()
        await asyncio.gather(running, waiting)

    assert request.queue_seconds == 0.5
    assert request.compute_seconds == 0.25


@in_virtual_time
async def test_requests_of_one_turn_of_the_event_loop_are_computed_together() -> None:
    """A free runtime takes up all that came in the same turn, and waits for nothing else."""
    async with serving(slots=16) as bench:
        crowd = [asyncio.create_task(bench.engine.submit(recurrent_request(2, seed=seed))) for seed in range(3)]
        bench.gate.open()
        await asyncio.gather(*crowd)
    assert bench.runtime.shapes == [(3, 2)]


@in_virtual_time
async def test_large_crowd_is_not_kept_until_the_turn_is_over() -> None:
    """Once there is a worthwhile batch, the runtime starts on it."""
    async with serving(slots=8) as bench:
        requests = [recurrent_request(2, seed=seed) for seed in range(8)]
        crowd = [asyncio.create_task(bench.engine.submit(request)) for request in requests]
        await asyncio.sleep(0)  # all are submitted, and the turn is not over
        bench.gate.await_arrival()

        bench.gate.open()
        await asyncio.gather(*crowd)
    for request in requests:
        assert_right(request)


@in_virtual_time
async def test_requests_join_and_leave_between_segments() -> None:
    """A short request that comes later joins the running batch, and is answered before the long one."""
    async with serving(segment=2) as bench:
        long, short = recurrent_request(6, seed=1), recurrent_request(2, seed=2)
        long_task = await bench.submitted(long)
        await bench.in_hand()
        short_task = await bench.submitted(short)
        await bench.next_segment()
        await bench.next_segment()

        await short_task
        assert_right(short)
        assert not long_task.done()

        bench.gate.open()
        await long_task
        assert_right(long)
    assert bench.runtime.shapes == [(1, 2), (2, 2), (1, 2)]


@in_virtual_time
async def test_crowd_gets_the_answers_of_loners() -> None:
    """Beside failing and vanishing neighbours everybody is answered as if alone."""
    async with serving(slots=5, segment=3, queue_rows=1000) as bench:
        generator = np.random.default_rng(0)
        requests = [
            recurrent_request(
                int(generator.integers(1, 20)),
                rows=int(generator.integers(1, 4)),
                seed=seed,
                poisoned_step=0 if seed % 7 == 3 else None,
            )
            for seed in range(60)
        ]
        tasks = [await bench.submitted(request) for request in requests]
        await bench.in_hand()
        vanished = tasks[::5]
        for task in vanished:
            task.cancel()
        bench.gate.open()
        results = await asyncio.gather(*tasks, return_exceptions=True)

    for request, task, result in zip(requests, tasks, results, strict=True):
        if task in vanished:
            assert isinstance(result, asyncio.CancelledError)
        elif (request.inputs["shown"] == POISON).any():
            assert isinstance(result, InferenceFailed)
        else:
            assert result is None
            assert_right(request)


@in_virtual_time
async def test_stream_answers_steps_before_later_ones_are_computed() -> None:
    """The first steps are there while the runtime is held before the second segment."""
    async with serving(segment=2) as bench:
        request = recurrent_request(5)
        async with aclosing(bench.engine.stream(request)) as stream:
            first = await bench.read(stream)
            await bench.in_hand()
            await bench.next_segment()

            assert await first == [Progress(row=0, begin=0, end=2)]
            assert bench.runtime.shapes == [(1, 2)]
            np.testing.assert_array_equal(request.outputs["answers"][:2], recurrent_answers(request)[:2])

            bench.gate.open()
            rest = [progress async for news in stream for progress in news]

    assert [step for progress in rest for step in range(progress.begin, progress.end)] == [2, 3, 4]
    assert_right(request)


@in_virtual_time
async def test_stream_of_several_rows_tells_every_step_of_each_once() -> None:
    """Rows that enter one after the other are told as they come."""
    async with serving(slots=2, segment=2) as bench:
        bench.gate.open()
        request = recurrent_request(5, rows=3)

        told = [
            (progress.row, step)
            async for news in bench.engine.stream(request)
            for progress in news
            for step in range(progress.begin, progress.end)
        ]

    assert sorted(told) == [(row, step) for row in range(3) for step in range(5)]
    assert all(told.index((row, step)) < told.index((row, step + 1)) for row in range(3) for step in range(4))


@in_virtual_time
async def test_slow_reader_of_a_stream_holds_up_nobody() -> None:
    """The batch goes on while a reader does not read, and what was missed is told together."""
    async with serving(segment=2) as bench:
        stream_request = recurrent_request(6, seed=1)
        async with aclosing(bench.engine.stream(stream_request)) as stream:
            first = await bench.read(stream)
            await bench.in_hand()
            await bench.next_segment()
            await first
            bench.gate.open()
            await bench.engine.submit(recurrent_request(20, seed=2))

            assert [news async for news in stream] == [[Progress(row=0, begin=2, end=6)]]


@in_virtual_time
async def test_stream_that_fails_tells_the_good_steps_and_no_others() -> None:
    """Steps of the segment that failed were not written, and are not told."""
    async with serving(segment=2) as bench:
        bench.gate.open()
        async with aclosing(bench.engine.stream(recurrent_request(6, poisoned_step=3))) as stream:
            assert await anext(stream) == [Progress(row=0, begin=0, end=2)]

            with pytest.raises(InferenceFailed, match="the model failed on this input"):
                await anext(stream)


@in_virtual_time
async def test_stream_that_expires_tells_no_step_that_was_not_written() -> None:
    """A segment that ends after the deadline is not told."""
    async with serving(segment=2) as bench:
        request = recurrent_request(6, deadline=bench.clock() + 10)
        async with aclosing(bench.engine.stream(request)) as stream:
            first = await bench.read(stream)
            await bench.in_hand()
            await bench.next_segment()
            assert (await first)[0].end == 2

            await bench.let_time_pass(10)
            later = await bench.submitted(recurrent_request(2))
            await bench.next_segment()
            with pytest.raises(DeadlineExceeded, match="the deadline passed"):
                await anext(stream)

        bench.gate.open()
        await later
    assert bench.runtime.shapes == [(1, 2), (1, 2), (1, 2)]


@in_virtual_time
async def test_closed_stream_frees_its_slot_before_the_next_segment() -> None:
    """A reader who leaves takes its rows along; its neighbour is alone in the next segment."""
    async with serving(segment=2) as bench:
        neighbour = await bench.submitted(recurrent_request(6, seed=1))
        await bench.in_hand()
        async with aclosing(bench.engine.stream(recurrent_request(6, seed=2))) as stream:
            first = await bench.read(stream)
            await bench.next_segment()
            await bench.next_segment()
            await first
        bench.gate.open()
        await neighbour

    assert bench.runtime.shapes == [(1, 2), (2, 2), (2, 2)]
    assert bench.listener.cancelled_rows == 1


@in_virtual_time
async def test_stream_is_refused_before_its_first_answer() -> None:
    """A full queue and an engine that was stopped are known before anything is sent."""
    async with serving(queue_rows=1) as bench:
        with pytest.raises(Overloaded, match="the queue holds 1"):
            await anext(bench.engine.stream(recurrent_request(1, rows=2)))
        assert bench.listener.rejected_rows == 2
        await bench.engine.stop(PATIENCE_SECONDS)
        with pytest.raises(NotReady, match="fake has been stopped"):
            await anext(bench.engine.stream(recurrent_request(1)))


@in_virtual_time
async def test_deadline_that_passes_in_the_queue_frees_the_entry() -> None:
    """The request is answered while the runtime is still busy with others, makes room, and is never computed."""
    async with serving(slots=1, queue_rows=1) as bench:
        running = await bench.submitted(recurrent_request(2))
        await bench.in_hand()
        late = await bench.submitted(recurrent_request(2, deadline=bench.clock() + 3))

        await bench.let_time_pass(3)

        with pytest.raises(DeadlineExceeded, match="the deadline passed"):
            await late
        assert bench.listener.deadline_missed_rows == 1
        next_one = await bench.submitted(recurrent_request(2))
        bench.gate.open()
        await asyncio.gather(running, next_one)

    assert bench.runtime.shapes == [(1, 2)] * 2
    assert bench.listener.deadline_missed_rows == 1


@in_virtual_time
async def test_deadline_that_passes_while_running_frees_the_slot() -> None:
    """The client is told at once, and the next segment is computed without its row."""
    async with serving(segment=2) as bench:
        stayer = recurrent_request(4, seed=1)
        stayer_task = await bench.submitted(stayer)
        late = await bench.submitted(recurrent_request(4, seed=2, deadline=bench.clock() + 3))
        await bench.in_hand()

        await bench.let_time_pass(3)

        with pytest.raises(DeadlineExceeded, match="the deadline passed"):
            await late
        bench.gate.open()
        await stayer_task

    assert_right(stayer)
    assert bench.runtime.shapes[-1] == (1, 2)
    assert bench.listener.deadline_missed_rows == 1


@in_virtual_time
async def test_caller_that_gives_up_at_the_deadline_has_missed_it() -> None:
    """Whoever's timer comes first: it is no client's departure, and is counted once."""
    async with serving() as bench:
        late = await bench.submitted(recurrent_request(4, deadline=bench.clock() + 3))
        gone = await bench.submitted(recurrent_request(4))
        await bench.in_hand()

        bench.clock.advance(3)
        late.cancel()
        gone.cancel()
        await asyncio.wait([late, gone])

        bench.gate.open()
    assert bench.listener.deadline_missed_rows == 1
    assert bench.listener.cancelled_rows == 1


@in_virtual_time
async def test_deadline_in_the_past_is_answered() -> None:
    """A request that comes too late is not left waiting."""
    async with serving() as bench:
        bench.gate.open()

        with pytest.raises(DeadlineExceeded, match="the deadline passed"):
            await bench.engine.submit(recurrent_request(2, deadline=bench.clock() - 1))

    assert bench.listener.deadline_missed_rows == 1


@in_virtual_time
async def test_cancelled_request_frees_its_slots_before_the_next_segment() -> None:
    """A client that goes away harms nobody, and is computed no further."""
    async with serving(segment=2) as bench:
        stayer = recurrent_request(4, seed=1)
        stayer_task = await bench.submitted(stayer)
        leaver = await bench.submitted(recurrent_request(4, rows=2, seed=2))
        await bench.in_hand()

        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        bench.gate.open()
        await stayer_task

    assert_right(stayer)
    assert bench.runtime.shapes[-1] == (1, 2)
    assert bench.listener.cancelled_rows == 2


@in_virtual_time
async def test_request_that_is_cancelled_in_the_queue_is_never_computed() -> None:
    """Its entry is free at once."""
    async with serving(slots=1, queue_rows=2) as bench:
        running = await bench.submitted(recurrent_request(2))
        await bench.in_hand()
        leaver = await bench.submitted(recurrent_request(2, rows=2))

        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver

        assert bench.listener.queue_rows == 0
        bench.gate.open()
        await running
    assert bench.runtime.shapes == [(1, 2)]


@in_virtual_time
async def test_full_queue_refuses_at_once_and_recovers() -> None:
    """What is queued counts in rows, what runs does not; when there is room again, requests are taken again."""
    async with serving(slots=1, queue_rows=2) as bench:
        running = await bench.submitted(recurrent_request(2))
        await bench.in_hand()
        waiting = await bench.submitted(recurrent_request(2, rows=2))

        with pytest.raises(Overloaded, match="2 rows are waiting") as refusal:
            await bench.engine.submit(recurrent_request(2))

        assert refusal.value.retry_after_seconds > 0
        bench.gate.open()
        await asyncio.gather(running, waiting)
        await bench.engine.submit(recurrent_request(2, rows=2))


@in_virtual_time
async def test_room_that_was_kept_is_there_and_nobody_elses() -> None:
    """What is reserved counts as if it were waiting, except for the request that it is reserved for."""
    async with serving(slots=1, queue_rows=3) as bench:
        running = await bench.submitted(recurrent_request(2))
        await bench.in_hand()

        with bench.engine.reserve(1) as room:
            room.extend(3)
            with pytest.raises(Overloaded, match="3 rows are waiting"):
                bench.engine.reserve(1)
            with pytest.raises(Overloaded, match="3 rows are waiting"):
                await bench.engine.submit(recurrent_request(2))
            waiting = asyncio.create_task(bench.engine.submit(recurrent_request(2, rows=3), room))
            await asyncio.sleep(0)
            assert bench.listener.queue_rows == 3

        bench.gate.open()
        await asyncio.gather(running, waiting)


@in_virtual_time
async def test_room_that_was_not_used_is_given_back() -> None:
    """Whatever ends the reading of a request: its room is free for others, once."""
    async with serving(slots=1, queue_rows=3) as bench:
        with contextlib.suppress(ValueError), bench.engine.reserve(2) as room:
            with pytest.raises(Overloaded, match="2 rows are waiting and 2 more"):
                room.extend(4)
            raise ValueError
        room.release()

        with bench.engine.reserve(3), pytest.raises(Overloaded):
            bench.engine.reserve(1)


@in_virtual_time
async def test_request_of_the_wrong_shape_harms_nobody() -> None:
    """It is refused where it is submitted; the worker lives."""
    async with serving() as bench:
        bench.gate.open()
        misshapen = recurrent_request(2)
        misshapen.inputs = {**misshapen.inputs, "told": np.zeros((1, 3), np.int64)}

        with pytest.raises(AssertionError, match="this is a bug: told has the shape"):
            await bench.engine.submit(misshapen)

        await bench.engine.submit(recurrent_request(2))
        assert bench.engine.unhealthy_because() is None


@in_virtual_time
async def test_stop_tells_those_who_still_wait() -> None:
    """The segment in hand is finished; whatever is not complete by then is answered with `NotReady`."""
    async with serving(slots=1) as bench:
        running = await bench.submitted(recurrent_request(6))
        waiting = await bench.submitted(recurrent_request(2))
        await bench.in_hand()

        stopped = asyncio.ensure_future(bench.engine.stop(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        bench.gate.open()
        await stopped

        for task in (running, waiting):
            with pytest.raises(NotReady, match="fake has been stopped"):
                await task
        with pytest.raises(NotReady, match="fake has been stopped"):
            await bench.engine.submit(recurrent_request(1))
        assert not bench.engine.recover()


@in_virtual_time
async def test_stop_waits_no_longer_than_it_is_told() -> None:
    """A segment that hangs keeps nobody waiting, and its end changes nothing any more."""
    async with serving() as bench:
        hanging = await bench.submitted(recurrent_request(2))
        await bench.in_hand()

        await bench.engine.stop(0)

        with pytest.raises(NotReady, match="fake has been stopped"):
            await hanging


@in_virtual_time
async def test_engine_that_was_not_started_is_left_alone() -> None:
    """While models are loaded there is nobody to recover, and nobody to wait for at the end."""
    engine = Bench().engine

    assert not engine.recover()
    await engine.stop()


@in_virtual_time
async def test_dead_worker_is_replaced() -> None:
    """Health turns red, who waited is told, and the next request is computed."""
    async with serving() as bench:
        waiting = await bench.submitted(recurrent_request(2, rows=2))
        await bench.in_hand()
        queued = await bench.submitted(recurrent_request(2))
        await bench.death()
        bench.clock.advance(100)
        await asyncio.wait([waiting])

        assert bench.engine.unhealthy_because() == "fake: the worker thread has died"
        assert bench.engine.recover()

        with pytest.raises(InferenceFailed, match="fake: the worker died while this request was waiting"):
            await queued
        assert bench.engine.unhealthy_because() is None
        assert not bench.engine.is_beyond_repair()
        assert not bench.engine.recover()
        request = recurrent_request(2)
        await bench.engine.submit(request)
    assert_right(request)


@in_virtual_time
async def test_hanging_segment_turns_health_red() -> None:
    """Longer than the time that is allowed is unhealthy; its end is recovery."""
    async with serving(stall_seconds=5) as bench:
        task = await bench.submitted(recurrent_request(2))
        await bench.in_hand()
        bench.clock.advance(5)
        assert bench.engine.unhealthy_because() is None

        bench.clock.advance(2.5)

        assert bench.engine.unhealthy_because() == "fake: a batch has been running for 7.5 s, longer than 5 s"
        assert not bench.engine.recover(), "a thread that hangs cannot be replaced, only its process"
        assert not bench.engine.is_beyond_repair()
        bench.clock.advance(2.6)
        assert bench.engine.is_beyond_repair()
        bench.gate.open()
        await task
        assert bench.engine.unhealthy_because() is None


def test_worker_outlives_a_loop_that_has_closed() -> None:
    """What nobody can hear any more is not an error."""
    benches: list[Bench] = []

    @in_virtual_time
    async def leave_a_segment_in_hand() -> None:
        bench = Bench()
        benches.append(bench)
        bench.engine.start()
        task = await bench.submitted(recurrent_request(2))
        await bench.in_hand()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        stream = recurrent_request(2)
        stream.on_progress = lambda: None
        bench.engine._worker.add(stream)

    leave_a_segment_in_hand()
    worker = benches[0].engine._worker
    benches[0].gate.let_through()
    benches[0].gate.await_arrival()
    benches[0].gate.open()
    worker.stop()

    assert worker.join(PATIENCE_SECONDS)
    assert not worker.has_died


@in_virtual_time
async def test_runtime_that_fails_at_everything_turns_health_red() -> None:
    """Not what a request brings about, but what the golden example shows, tells a broken runtime from a bad input."""
    async with serving() as bench:
        bench.gate.open()
        with pytest.raises(InferenceFailed):
            await bench.engine.submit(recurrent_request(1, poisoned_step=0))
        assert bench.engine.unhealthy_because() is None
        assert not bench.engine.is_beyond_repair()

        bench.is_broken = True
        with pytest.raises(InferenceFailed):
            await bench.engine.submit(recurrent_request(1, poisoned_step=0))
        await bench.engine.submit(recurrent_request(1))  # after which the runtime has been looked at

        assert bench.engine.unhealthy_because() == "fake: the runtime is broken: the answer is not the golden one"
        assert bench.engine.is_beyond_repair()


@in_virtual_time
async def test_runtime_that_hangs_at_its_golden_example_turns_health_red() -> None:
    """Nobody waits for it: who failed has been told."""
    async with serving(stall_seconds=5) as bench:
        bench.gate.open()
        bench.examination.clear()
        with pytest.raises(InferenceFailed):
            await bench.engine.submit(recurrent_request(1, poisoned_step=0))
        await asyncio.to_thread(bench.is_examined.wait, PATIENCE_SECONDS)
        bench.clock.advance(10.1)

        assert "a batch has been running for 10.1 s" in (bench.engine.unhealthy_because() or "")
        assert bench.engine.is_beyond_repair()
        bench.examination.set()
