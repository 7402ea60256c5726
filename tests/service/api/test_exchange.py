"""An exchange: what interrupts it, and what remains of it afterwards."""

import asyncio
import gc
import math
import time
import weakref
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import pytest
from starlette.types import Message, Receive

from service.api.budget import MemoryBudget, Share
from service.api.exchange import DEPARTURE_KEY, Exchange
from service.engine.request import Request
from service.errors import Cancelled, DeadlineExceeded, TooLarge
from tests.service.engine.held import VirtualLoop, in_virtual_time
from tests.service.fakes import Clock

Headers = Sequence[tuple[bytes, bytes]]


async def never() -> Message:
    """A client that sends nothing."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets the event")


def sending(*chunks: bytes, is_whole: bool = True) -> Receive:
    """A client that sends its body in these parts, and disconnects if the body is not complete."""
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if is_whole and messages:
        messages[-1]["more_body"] = False
    else:
        messages.append({"type": "http.disconnect"})

    async def receive() -> Message:
        return messages.pop(0)

    return receive


def exchange_with(
    client: Receive, *, seconds: float = 30.0, headers: Headers = (), departure: asyncio.Future[None] | None = None
) -> Exchange:
    """Return an exchange with this time limit, whose client disconnects when `departure` is done."""
    scope = {"type": "http", "headers": headers, DEPARTURE_KEY: departure}
    return Exchange(scope, client, seconds, Share(MemoryBudget(2**20)))


async def interruptible(exchange: Exchange, work: Coroutine[Any, Any, object]) -> None:
    """Run work in an exchange as an endpoint does."""
    with exchange.interruptible():
        await work


@pytest.mark.parametrize("claimed", [(), ((b"content-length", b"6"),)], ids=["unannounced", "announced"])
def test_body_of_exactly_the_limit_is_read(claimed: Headers) -> None:
    """The number of its parts does not matter."""

    async def read() -> bytes:
        return await exchange_with(sending(b"abc", b"def"), headers=claimed).body(6)

    assert asyncio.run(read()) == b"abcdef"


def test_body_over_the_limit_is_read_no_further_than_that() -> None:
    """A body whose announced length is over the limit is not read at all."""

    async def read() -> None:
        with pytest.raises(TooLarge, match="the body has 7 bytes; at most 6 are allowed"):
            await exchange_with(sending(), headers=[(b"content-length", b"7")]).body(6)
        with pytest.raises(TooLarge, match="the body has more than 6 bytes"):
            await exchange_with(sending(b"abc", b"defg", is_whole=False)).body(6)

    asyncio.run(read())


def test_body_whose_client_leaves_in_the_middle_is_none() -> None:
    """The part that was received is not taken for the whole body."""

    async def read() -> None:
        with pytest.raises(Cancelled, match="before its body was complete"):
            await exchange_with(sending(b"abc", is_whole=False)).body(6)

    asyncio.run(read())


def test_timings_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated stages accumulate, and queue and compute time are summed over all requests."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)

    async def timed() -> dict[str, float]:
        exchange = exchange_with(never)
        for seconds in (0.5, 0.25):
            with exchange.timed("encode"):
                clock.advance(seconds)
        for queued_at in (10.0, 10.5):
            request = Request({}, 1, 1, math.inf)
            request.queued_at, request.started_at, request.finished_at = queued_at, 11.0, 15.0
            exchange.follow(request)
        return exchange.seconds()

    assert asyncio.run(timed()) == {"decode": 0.0, "queue": 1.5, "compute": 8.0, "encode": 0.75}


def test_exchange_is_interrupted_at_the_deadline_whatever_it_waits_for() -> None:
    """It may await a body, a codec or a model; its task can be used again afterwards."""

    async def wait() -> None:
        for wait_for in (lambda exchange: exchange.body(100), lambda _: asyncio.sleep(60)):
            exchange = exchange_with(never, seconds=0.001)
            with pytest.raises(DeadlineExceeded, match="before the response was ready"):
                await interruptible(exchange, wait_for(exchange))
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()

    asyncio.run(wait())


@in_virtual_time
async def test_exchange_that_has_ended_is_not_interrupted() -> None:
    """Neither the deadline nor a disconnect interrupts the sending of the response."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    departure = loop.create_future()
    exchange = exchange_with(never, seconds=30.0, departure=departure)
    with exchange.interruptible():
        pass
    departure.set_result(None)
    loop.clock.advance(60.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@in_virtual_time
async def test_exchange_is_interrupted_when_its_client_leaves_whatever_it_waits_for() -> None:
    """It may await a body, a codec or a model; the caller gets the reason."""
    for wait_for in (lambda exchange: exchange.body(100), lambda _: asyncio.sleep(60)):
        departure = asyncio.get_running_loop().create_future()
        exchange = exchange_with(never, departure=departure)
        asyncio.get_running_loop().call_soon(departure.set_result, None)
        with pytest.raises(Cancelled, match="the client left"):
            await interruptible(exchange, wait_for(exchange))


@in_virtual_time
async def test_exchange_whose_client_has_left_before_it_began_is_interrupted() -> None:
    """A client that sends a request and closes at once has disconnected before any work on it."""
    departure = asyncio.get_running_loop().create_future()
    departure.set_result(None)
    exchange = exchange_with(never, departure=departure)

    with pytest.raises(Cancelled, match="the client left"):
        await interruptible(exchange, asyncio.sleep(60))


@in_virtual_time
async def test_exchange_whose_deadline_and_client_go_together_is_interrupted_once() -> None:
    """Whichever comes first interrupts it; its task can be used again afterwards."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    departure = loop.create_future()
    exchange = exchange_with(never, seconds=30.0, departure=departure)

    async def wait() -> None:
        loop.clock.advance(60.0)
        departure.set_result(None)
        await asyncio.Event().wait()

    with pytest.raises(Cancelled, match="the client left"):
        await interruptible(exchange, wait())
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


@in_virtual_time
async def test_streaming_exchange_is_interrupted_when_its_client_leaves() -> None:
    """Once the response has begun, the deadline no longer counts; a disconnect does, until the end."""
    departure = asyncio.get_running_loop().create_future()
    exchange = exchange_with(never, seconds=1.0, departure=departure)

    async def stream() -> None:
        exchange.begin_answer()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.clock.advance(60.0)
        departure.set_result(None)
        await asyncio.Event().wait()

    with pytest.raises(Cancelled, match="the client left"):
        await interruptible(exchange, stream())


def test_cancellation_by_somebody_else_stays_one() -> None:
    """A server that shuts down cancels tasks, which must not pass for a disconnect."""

    async def cancel() -> None:
        exchange = exchange_with(never, seconds=30.0)
        task = asyncio.create_task(interruptible(exchange, exchange.body(100)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


def test_interrupted_exchange_is_forgotten_at_once() -> None:
    """The received part of the body is freed without a garbage collection."""

    class Kept(bytearray):
        """Bytes that can be referred to weakly."""

    async def interrupt() -> weakref.ref[Kept]:
        chunk = Kept(b"half of it")
        messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True}]

        async def receive() -> Message:
            return messages.pop() if messages else await never()

        kept = weakref.ref(chunk)
        del chunk
        exchange = exchange_with(receive, seconds=0.001)
        with pytest.raises(DeadlineExceeded) as raised:
            await interruptible(exchange, exchange.body(100))
        del raised, receive, exchange
        return kept

    gc.disable()
    try:
        assert asyncio.run(interrupt())() is None
    finally:
        gc.enable()


def test_many_headers_are_read_in_one_pass() -> None:
    """With ten thousand names, one of them twice, each line is read once or twice, not ten thousand times."""
    looks = 0

    class Line(tuple[bytes, bytes]):
        __slots__ = ()

        def __iter__(self) -> Iterator[bytes]:
            nonlocal looks
            looks += 1
            return super().__iter__()

    async def made() -> Exchange:
        lines = [Line((b"%x" % number, b"")) for number in range(10_000)]
        return exchange_with(never, headers=[*lines, lines[0]])

    asyncio.run(made())

    assert looks <= 3 * 10_001


def test_header_that_comes_in_several_lines_is_one_list() -> None:
    """There may be other headers in between."""

    async def made() -> Exchange:
        lines = [(b"accept", b"image/png;q=0.5"), (b"host", b"glimpse"), (b"accept", b"application/json")]
        return exchange_with(never, headers=lines)

    exchange = asyncio.run(made())

    assert exchange.header(b"accept") == "image/png;q=0.5, application/json"
    assert exchange.header(b"host") == "glimpse"
