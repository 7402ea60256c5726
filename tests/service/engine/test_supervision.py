"""Workers that end, die or hang, and runtimes that break."""

import asyncio
import contextlib

import pytest

from service.errors import InferenceFailed, NotReady
from tests.service.engine.held import Bench, assert_right, in_virtual_time, serving
from tests.service.fakes import (
    PATIENCE_SECONDS,
    recurrent_request,
)


@in_virtual_time
async def test_stop_tells_those_who_still_wait() -> None:
    """The current segment is finished; requests that are incomplete after it fail with `NotReady`."""
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
    """A hanging segment does not block the stop, and nothing changes when it ends later."""
    async with serving() as bench:
        hanging = await bench.submitted(recurrent_request(2))
        await bench.in_hand()

        await bench.engine.stop(0)

        with pytest.raises(NotReady, match="fake has been stopped"):
            await hanging


@in_virtual_time
async def test_engine_that_was_not_started_is_left_alone() -> None:
    """Before its start, an engine has no worker to recover, and no worker to wait for when it stops."""
    engine = Bench().engine

    assert not engine.recover()
    await engine.stop()


@in_virtual_time
async def test_workers_that_die_at_once_one_after_the_other_are_beyond_repair() -> None:
    """Another thread would not help, so the engine gives up; a worker that computes something resets the count."""
    async with serving() as bench:
        bench.gate.open()

        async def death_at_once() -> asyncio.Task[None]:
            bench.listener.raises_on_slots = True
            told = await bench.submitted(recurrent_request(1))
            await bench.death()
            return told

        tasks = []
        for is_fruitful in [False, False, True, False, False, True, False, False]:
            if is_fruitful:
                await bench.engine.submit(recurrent_request(1))
            tasks.append(await death_at_once())
            assert not bench.engine.is_beyond_repair()
            assert bench.engine.recover()
        tasks.append(await death_at_once())
        assert not bench.engine.recover()

        assert bench.engine.is_beyond_repair()
        assert bench.engine.unhealthy_because() == "fake: the worker thread has died"
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, NotReady) for error in told)


@in_virtual_time
async def test_dead_worker_is_replaced() -> None:
    """The engine is unhealthy, pending requests fail with `NotReady`, and the next request is computed."""
    async with serving() as bench:
        finished = await bench.submitted(recurrent_request(2, rows=2))
        await bench.in_hand()
        queued = [await bench.submitted(recurrent_request(2)) for _ in range(2)]
        await bench.death()
        bench.clock.advance(100)
        await finished

        assert bench.engine.unhealthy_because() == "fake: the worker thread has died"
        assert bench.engine.recover()

        told = await asyncio.gather(*queued, return_exceptions=True)
        assert [str(error) for error in told] == ["fake lost its worker while this request was pending"] * 2
        assert all(isinstance(error, NotReady) for error in told)
        assert told[0] is not told[1], "one error's traceback would grow with everybody who raises it"
        assert bench.engine.unhealthy_because() is None
        assert not bench.engine.is_beyond_repair()
        assert not bench.engine.recover()
        assert bench.listener.replaced_workers == 1
        request = recurrent_request(2)
        await bench.engine.submit(request)
    assert_right(request)


@in_virtual_time
async def test_hanging_segment_turns_health_red() -> None:
    """A segment that exceeds the time allowed makes the engine unhealthy until it ends."""
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
    """Results that can no longer be delivered are not an error."""
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
    """The golden example, not a request's failure, tells a broken runtime from a bad input."""
    async with serving() as bench:
        bench.gate.open()
        with pytest.raises(InferenceFailed, match="the model failed on this input"):
            await bench.engine.submit(recurrent_request(1, poisoned_step=0))
        await bench.idle()
        bench.clock.advance(100)
        assert bench.engine.unhealthy_because() is None
        assert not bench.engine.is_beyond_repair()

        bench.is_broken = True
        with pytest.raises(InferenceFailed, match="the model failed on this input"):
            await bench.engine.submit(recurrent_request(1, poisoned_step=0))
        await bench.engine.submit(recurrent_request(1))  # after which the runtime has been looked at

        assert bench.engine.unhealthy_because() == "fake: the runtime is broken: the answer is not the golden one"
        assert bench.engine.is_beyond_repair()


@in_virtual_time
async def test_runtime_that_fails_at_one_of_several_is_not_examined() -> None:
    """Its neighbours' success shows that the runtime works, so no time is spent on the golden example."""
    async with serving(slots=16) as bench:
        await bench.idle()  # or it might begin before both have come
        bench.gate.open()
        good, bad = recurrent_request(1), recurrent_request(1, poisoned_step=0)
        told = await asyncio.gather(*map(bench.engine.submit, (good, bad)), return_exceptions=True)
        await bench.idle()

        assert [type(error) for error in told] == [type(None), InferenceFailed]
        assert [(batch.rows, batch.failed_rows) for batch in bench.listener.batches] == [(2, 1)]
        assert not bench.is_examined.is_set()


@in_virtual_time
async def test_runtime_that_hangs_at_its_golden_example_turns_health_red() -> None:
    """The failed requests are reported before it runs, so no client waits for it."""
    async with serving(stall_seconds=5) as bench:
        bench.gate.open()
        bench.examination.clear()
        with pytest.raises(InferenceFailed, match="the model failed on this input"):
            await bench.engine.submit(recurrent_request(1, poisoned_step=0))
        await asyncio.to_thread(bench.is_examined.wait, PATIENCE_SECONDS)
        bench.clock.advance(10.1)

        assert "a batch has been running for 10.1 s" in (bench.engine.unhealthy_because() or "")
        assert bench.engine.is_beyond_repair()
        bench.examination.set()
