"""Admission to the queue, and requests that leave early: expired, refused or cancelled."""

import asyncio
import contextlib

import pytest

from service.engine.engine import Reservation
from service.errors import DeadlineExceeded, Overloaded
from tests.service.engine.held import assert_right, in_virtual_time, serving
from tests.service.fakes import (
    recurrent_request,
)


@in_virtual_time
async def test_deadline_that_passes_in_the_queue_frees_the_entry() -> None:
    """The request fails while the runtime is still busy with others; its room is free, and it is never computed."""
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
    """The request fails at once, and the next segment is computed without its row."""
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
    """Whichever timer fires first, it counts once, as a missed deadline and not as a cancellation."""
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
    """A request whose deadline has passed fails at once."""
    async with serving() as bench:
        bench.gate.open()

        with pytest.raises(DeadlineExceeded, match="the deadline passed"):
            await bench.engine.submit(recurrent_request(2, deadline=bench.clock() - 1))

    assert bench.listener.deadline_missed_rows == 1


@in_virtual_time
async def test_cancelled_request_frees_its_slots_before_the_next_segment() -> None:
    """A cancelled request is not computed further, and its neighbours are unaffected."""
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
    """Its room in the queue is free at once."""
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
    """Only queued rows count, not running ones; once there is room again, requests are admitted again."""
    async with serving(slots=1, queue_rows=2) as bench:
        running = await bench.submitted(recurrent_request(2))
        await bench.in_hand()
        waiting = await bench.submitted(recurrent_request(2, rows=2))

        with pytest.raises(Overloaded, match="2 of 2 rows are taken"):
            await bench.engine.submit(recurrent_request(2))

        bench.gate.open()
        await asyncio.gather(running, waiting)
        await bench.engine.submit(recurrent_request(2, rows=2))


@pytest.mark.parametrize("is_stream", [False, True])
def test_room_that_was_kept_is_there_and_nobody_elses(is_stream: bool) -> None:  # noqa: FBT001
    """Reserved rows count as waiting, except for the request that they are reserved for."""

    @in_virtual_time
    async def scenario() -> None:
        async with serving(slots=1, queue_rows=3) as bench:
            running = await bench.submitted(recurrent_request(2))
            await bench.in_hand()
            engine, request = bench.engine, recurrent_request(2, rows=3)

            async def fill(room: Reservation) -> None:
                if is_stream:
                    assert [news async for news in room.stream(request)]
                else:
                    await room.submit(request)

            with engine.reserve(3) as room:
                with pytest.raises(Overloaded, match="3 of 3 rows are taken"):
                    engine.reserve(1)
                with pytest.raises(Overloaded, match="3 of 3 rows are taken"):
                    await engine.submit(recurrent_request(2))
                waiting = asyncio.create_task(fill(room))
                for _ in range(2):  # a stream submits in a task of its own
                    await asyncio.sleep(0)
                assert (bench.listener.queue_rows, engine.reserved_rows) == (3, 0)
            assert engine.reserved_rows == 0

            bench.gate.open()
            await asyncio.gather(running, waiting)
            assert_right(request)

    scenario()


@pytest.mark.parametrize("is_late", [False, True])
def test_request_given_up_after_it_was_computed_is_heard_of(is_late: bool) -> None:  # noqa: FBT001
    """If that happens while its response is being made, it is reported once, as late or as cancelled."""

    @in_virtual_time
    async def scenario() -> None:
        async with serving() as bench:
            bench.gate.open()
            deadline = bench.clock() + 10
            with contextlib.suppress(asyncio.CancelledError), bench.engine.reserve(2, deadline) as room:
                await room.submit(recurrent_request(2, rows=2, deadline=deadline))
                bench.clock.advance(20 if is_late else 5)
                raise asyncio.CancelledError
            assert bench.listener.deadline_missed_rows == (2 if is_late else 0)
            assert bench.listener.cancelled_rows == (0 if is_late else 2)

    scenario()


@in_virtual_time
async def test_room_that_was_not_used_is_given_back() -> None:
    """However the preparation of a request ends, its room is released exactly once."""
    async with serving(slots=1, queue_rows=3) as bench:
        with contextlib.suppress(ValueError), bench.engine.reserve(2) as room:
            with pytest.raises(Overloaded, match="2 of 3 rows are taken, and this request has 2"):
                bench.engine.reserve(2)
            raise ValueError
        assert bench.engine.reserved_rows == 0
        room.release()
        assert bench.engine.reserved_rows == 0

        with bench.engine.reserve(3), pytest.raises(Overloaded):
            bench.engine.reserve(1)


@in_virtual_time
async def test_outputs_take_what_was_told_before_they_were_there() -> None:
    """The size is exact, for all outputs or the wanted ones, for all steps or the last, whatever was asked before."""
    async with serving() as bench:
        bench.gate.open()
        sums = frozenset({"sums"})
        for rows, steps, wanted in [(1, 3, None), (3, 7, None), (2, 5, sums), (1, 1, None), (2, 6, None), (3, 4, sums)]:
            request = recurrent_request(steps, rows=rows)
            request.wanted = wanted
            request.keeps_last_step = steps % 2 == 0
            with bench.engine.reserve(rows) as room:
                told = room.output_bytes(request)
                await room.submit(request)
            assert told == sum(array.nbytes for array in request.outputs.values()) > 0
