"""Admission: no request beyond the limit, none while draining, and all that were admitted may finish."""

import asyncio

import pytest

from service.api.admission import Admission
from service.errors import Cancelled, NotReady, Overloaded


def test_no_more_are_let_in_than_there_is_room_for() -> None:
    """A request that is done makes room for another."""
    admission = Admission(2)
    admission.enter()
    admission.enter()

    with pytest.raises(Overloaded, match="2 requests are in progress, which is the maximum"):
        admission.enter()
    admission.leave()
    admission.enter()


def test_request_whose_body_is_being_received_takes_no_place() -> None:
    """It needs a place once the body is there; a drain waits for it all the time."""

    async def scenario() -> None:
        admission = Admission(1)
        admission.enter()
        with pytest.raises(Overloaded, match="1 requests are in progress"), admission.receiving_body():
            admission.enter()
        admission.leave()
        admission.leave()
        admission.enter()
        with admission.receiving_body():
            assert not await admission.drain(0.001)
        admission.leave()
        assert await admission.drain(0)

    asyncio.run(scenario())


def test_request_interrupted_while_its_body_comes_has_its_place_again() -> None:
    """It counts again until it is done."""
    admission = Admission(1)
    admission.enter()
    with pytest.raises(Cancelled), admission.receiving_body():
        raise Cancelled("the client left")

    with pytest.raises(Overloaded, match="1 requests are in progress"):
        admission.enter()


def test_drain_waits_for_the_last_and_lets_nobody_in() -> None:
    """The drain ends when the last admitted request is done, and not before."""

    async def scenario() -> bool:
        admission = Admission(3)
        admission.enter()
        admission.enter()
        drained = asyncio.create_task(admission.drain(60))
        await asyncio.sleep(0)
        with pytest.raises(NotReady, match="shutting down and takes no new requests"):
            admission.enter()
        admission.leave()
        for _ in range(9):  # more turns than it takes to wake whoever drains
            await asyncio.sleep(0)
        assert not drained.done()
        admission.leave()
        return await drained

    assert asyncio.run(scenario())


def test_drain_of_nobody_is_done_at_once() -> None:
    """There is nothing to wait for, nor is there the second time."""

    async def scenario() -> tuple[bool, bool]:
        admission = Admission(1)
        return await admission.drain(0), await admission.drain(0)

    assert asyncio.run(scenario()) == (True, True)


def test_drain_is_bounded() -> None:
    """When the time is up, the drain reports that some requests are not done."""

    async def scenario() -> bool:
        admission = Admission(1)
        admission.enter()
        return await admission.drain(0.001)

    assert not asyncio.run(scenario())
