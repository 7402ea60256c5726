"""The engine computes requests, alone or among others, in virtual time."""

import asyncio
import weakref

import numpy as np
import pytest

from export.manifest import Array
from service.engine.request import Request
from service.errors import DeadlineExceeded, InferenceFailed
from tests.service.engine.held import Bench, assert_right, in_virtual_time, serving
from tests.service.fakes import (
    POISON,
    recurrent_request,
)


@in_virtual_time
async def test_submitted_request_has_its_outputs() -> None:
    """When `submit` returns, the outputs have every step of every row."""
    async with serving() as bench:
        bench.gate.open()
        request = recurrent_request(7, rows=3)

        await bench.engine.submit(request)

    assert_right(request)
    assert bench.listener.batches[-1].rows == 3


@in_virtual_time
async def test_timings_of_a_request_are_known() -> None:
    """Queueing time and computing time are measured separately."""
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

    later = bench.clock() + 99
    assert request.queue_seconds(later) == 0.5
    assert request.compute_seconds(later) == 0.25


@in_virtual_time
async def test_timings_of_a_request_that_is_not_finished_are_those_until_now() -> None:
    """Both times are 0 before it is submitted, and then grow while it waits and while it is computed."""
    async with serving(slots=1) as bench:
        running, waiting = recurrent_request(2, seed=1), recurrent_request(2, seed=2)
        assert waiting.queue_seconds(bench.clock()) == 0
        answers = [await bench.submitted(running), await bench.submitted(waiting)]
        await bench.in_hand()
        bench.clock.advance(0.5)

        now = bench.clock()
        assert (running.queue_seconds(now), running.compute_seconds(now)) == (0, 0.5)
        assert (waiting.queue_seconds(now), waiting.compute_seconds(now)) == (0.5, 0)
        bench.gate.open()
        await asyncio.gather(*answers)


@in_virtual_time
async def test_requests_of_one_turn_of_the_event_loop_are_computed_together() -> None:
    """An idle runtime takes all requests of the same event-loop iteration, and waits for no others."""
    async with serving(slots=16) as bench:
        await bench.idle()
        crowd = [asyncio.create_task(bench.engine.submit(recurrent_request(2, seed=seed))) for seed in range(3)]
        await asyncio.sleep(0)  # all are submitted, and the turn is not over
        assert bench.listener.queue_rows == 0, "the worker has been told"
        bench.gate.open()
        await asyncio.gather(*crowd)
    assert bench.runtime.shapes == [(3, 2)]


@in_virtual_time
async def test_large_crowd_is_not_kept_until_the_turn_is_over() -> None:
    """Once the requests fill a quarter of the slots, the runtime starts."""
    async with serving(slots=8) as bench:
        requests = [recurrent_request(2, seed=seed) for seed in range(2)]
        crowd = [asyncio.create_task(bench.engine.submit(request)) for request in requests]
        await asyncio.sleep(0)  # all are submitted, and the turn is not over
        bench.gate.await_arrival()

        bench.gate.open()
        await asyncio.gather(*crowd)
    for request in requests:
        assert_right(request)


@in_virtual_time
async def test_requests_join_and_leave_between_segments() -> None:
    """A short request that comes later joins the running batch, and finishes before the long one."""
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
    """Among neighbours that fail or are cancelled, each request gets the result that it gets alone."""
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
async def test_request_of_the_wrong_shape_harms_nobody() -> None:
    """It fails where it is submitted, and the worker survives."""
    async with serving() as bench:
        bench.gate.open()
        misshapen = recurrent_request(2)
        misshapen.inputs = {**misshapen.inputs, "told": np.zeros((1, 3), np.int64)}

        with pytest.raises(AssertionError, match="this is a bug: told has the shape"):
            await bench.engine.submit(misshapen)

        await bench.engine.submit(recurrent_request(2))
        assert bench.engine.unhealthy_because() is None


@in_virtual_time
async def test_nothing_of_a_request_outlives_it() -> None:
    """Finished or expired, it leaves no reference cycle for the garbage collector."""
    kept: list[weakref.ref[Array]] = []

    async def end_of(request: Request, bench: Bench) -> type[BaseException] | None:
        kept.append(weakref.ref(request.inputs["shown"]))
        try:
            await bench.engine.submit(request)
        except DeadlineExceeded as error:
            return type(error)
        return None

    async with serving() as bench:
        bench.gate.open()
        assert await end_of(recurrent_request(2, rows=2), bench) is None
        assert await end_of(recurrent_request(2, deadline=bench.clock() - 1), bench) is DeadlineExceeded

    assert all(reference() is None for reference in kept)
