"""Streams report steps as they are computed, and slow or abandoned readers do not affect other requests."""

from contextlib import aclosing

import numpy as np
import pytest

from service.engine.engine import Progress
from service.errors import DeadlineExceeded, InferenceFailed, NotReady, Overloaded
from tests.service.engine.held import assert_right, in_virtual_time, serving
from tests.service.fakes import (
    PATIENCE_SECONDS,
    recurrent_answers,
    recurrent_request,
)


@in_virtual_time
async def test_stream_answers_steps_before_later_ones_are_computed() -> None:
    """The first steps are reported while the runtime is blocked before the second segment."""
    async with serving(segment=2) as bench:
        request = recurrent_request(5)
        async with aclosing(bench.stream(request)) as stream:
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
    """Rows that enter one after another are reported as they are computed."""
    async with serving(slots=2, segment=2) as bench:
        bench.gate.open()
        request = recurrent_request(5, rows=3)

        told = [
            (progress.row, step)
            async for news in bench.stream(request)
            for progress in news
            for step in range(progress.begin, progress.end)
        ]

    assert sorted(told) == [(row, step) for row in range(3) for step in range(5)]
    assert all(told.index((row, step)) < told.index((row, step + 1)) for row in range(3) for step in range(4))


@in_virtual_time
async def test_slow_reader_of_a_stream_holds_up_nobody() -> None:
    """The batch goes on while a reader is not reading, and the steps that it missed are reported together."""
    async with serving(segment=2) as bench:
        stream_request = recurrent_request(6, seed=1)
        async with aclosing(bench.stream(stream_request)) as stream:
            first = await bench.read(stream)
            await bench.in_hand()
            await bench.next_segment()
            await first
            bench.gate.open()
            await bench.engine.submit(recurrent_request(20, seed=2))

            assert [news async for news in stream] == [[Progress(row=0, begin=2, end=6)]]


@in_virtual_time
async def test_stream_that_fails_tells_the_good_steps_and_no_others() -> None:
    """Steps of the failed segment were not written, and are not reported."""
    async with serving(segment=2) as bench:
        bench.gate.open()
        async with aclosing(bench.stream(recurrent_request(6, poisoned_step=3))) as stream:
            assert await anext(stream) == [Progress(row=0, begin=0, end=2)]

            with pytest.raises(InferenceFailed, match="the model failed on this input"):
                await anext(stream)


@in_virtual_time
async def test_stream_that_expires_tells_no_step_that_was_not_written() -> None:
    """A segment that ends after the deadline is not reported."""
    async with serving(segment=2) as bench:
        request = recurrent_request(6, deadline=bench.clock() + 10)
        async with aclosing(bench.stream(request)) as stream:
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
    """Its rows leave the batch, and its neighbour is alone in the next segment."""
    async with serving(segment=2) as bench:
        neighbour = await bench.submitted(recurrent_request(6, seed=1))
        await bench.in_hand()
        async with aclosing(bench.stream(recurrent_request(6, seed=2))) as stream:
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
    """A full queue and a stopped engine are reported before anything is sent."""
    async with serving(queue_rows=1) as bench:
        with pytest.raises(Overloaded, match="0 of 1 rows are taken"):
            await anext(bench.stream(recurrent_request(1, rows=2)))
        assert bench.listener.rejected_rows == 2
        await bench.engine.stop(PATIENCE_SECONDS)
        with pytest.raises(NotReady, match="fake has been stopped"):
            await anext(bench.stream(recurrent_request(1)))
