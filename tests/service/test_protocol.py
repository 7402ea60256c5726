"""The protocol: one connection without a socket, whose other end sends and leaves as a test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service import protocol
from service.api.answer import Answer
from service.api.exchange import DEPARTURE_KEY
from tests.service.fakes import PATIENCE_SECONDS
from tests.service.wire import Wire

WHOLE = b"GET /livez HTTP/1.1\r\nHost: glimpse\r\n\r\n"
HEAD = b"POST /elsewhere HTTP/1.1\r\nHost: glimpse\r\n"
POST = HEAD + b"Content-Length: 9\r\n\r\n"
LARGE = HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(100_000)
"""More than uvicorn reads before somebody asks for it."""


class Patient:
    """A loop whose timers of no time go off when they are told to."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []

    def call_later(self, seconds: float, callback: Callable[..., None], *given: object) -> asyncio.TimerHandle:
        timer = self._loop.call_later(3600, callback, *given)
        if not seconds:
            self._timers.append(timer)
        return timer

    def lose_patience(self) -> None:
        for timer in self._timers:
            if not timer.cancelled():
                timer._run()

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


@asynccontextmanager
async def wired(app: ASGIApp) -> AsyncIterator[tuple[protocol.HttpProtocol, Wire]]:
    """A connection to an application, without a socket."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    connection, wire = protocol.HttpProtocol(config, ServerState(), {}, asyncio.get_running_loop()), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    yield connection, wire
    connection.connection_lost(None)


@pytest.mark.parametrize(
    ("sent", "is_closed"),
    [
        ([], True),
        ([WHOLE[:20]], True),
        ([WHOLE, WHOLE[:20]], True),
        ([WHOLE + WHOLE[:20]], True),
        ([POST + b"1", b"2"], True),
        ([WHOLE], False),
        ([WHOLE[:20], WHOLE[20:]], False),
        ([WHOLE, WHOLE[:20], WHOLE[20:]], False),
    ],
    ids=["silence", "half", "second half", "half at once", "after the answer", "whole", "in two", "second in two"],
)
def test_request_that_does_not_become_complete_is_not_waited_for_without_end(
    sent: list[bytes], monkeypatch: pytest.MonkeyPatch, *, is_closed: bool
) -> None:
    """Whether a client says nothing, or begins and does not go on; what was asked before has its answer."""
    monkeypatch.setattr(protocol, "SLOWEST_HEAD_SECONDS", 0.0)

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await Answer(b"alive", "text/plain").send(send)

    async def scenario() -> Wire:
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        loop = Patient()
        connection, wire = protocol.HttpProtocol(config, ServerState(), {}, loop), Wire()
        connection.connection_made(wire)  # type: ignore[arg-type]
        for data in sent:
            connection.data_received(data)
            await asyncio.gather(*connection.tasks)
        loop.lose_patience()
        assert connection.transport.is_closing() == is_closed
        connection.connection_lost(None)
        return wire

    wire = asyncio.run(scenario())

    before, _, refusal = wire.written.partition(b"HTTP/1.1 408 ")
    assert before.count(b"alive") == b"".join(sent).count(b"\r\n\r\n")
    assert bool(refusal) == is_closed
    if is_closed:
        assert json.loads(refusal.partition(b"\r\n\r\n")[2])["code"] == "timeout"


def test_request_that_turns_out_to_be_no_http_is_given_up_at_once() -> None:
    """Whoever waits for its body need not wait until the connection is gone, and nothing is added to the refusal."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await Answer(b"late", "text/plain").send(send)

    async def scenario() -> bytes:
        async with wired(app) as (connection, wire):
            connection.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            connection.data_received(b"no size\r\n")
            await asyncio.gather(*connection.tasks)
            assert not wire.is_closed, "its client may still be sending"
            return wire.written

    written = asyncio.run(scenario())

    assert written.startswith(b"HTTP/1.1 400 ")
    assert b"late" not in written


def test_connection_whose_request_came_after_its_answer_is_idle() -> None:
    """A shutdown does not wait for it."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await Answer(b"early", "text/plain").send(send)

    async def scenario() -> Wire:
        async with wired(app) as (connection, wire):
            connection.data_received(HEAD + b"Content-Length: 5\r\n\r\n")
            await asyncio.gather(*connection.tasks)
            connection.data_received(b"abcde")
            assert not connection.transport.is_closing()
            connection.shutdown()
            return wire

    wire = asyncio.run(scenario())

    assert b"early" in wire.written
    assert wire.is_closed


@pytest.mark.parametrize(
    ("sent", "is_read_on"),
    [
        (LARGE, True),
        (LARGE[:-1], False),
        (LARGE.replace(b"POST", b"GET", 1)[:-1], True),
        (WHOLE + LARGE[:1000], True),
        (WHOLE + LARGE, False),
        (WHOLE * 9, True),
        (WHOLE * 10, False),
    ],
    ids=[
        "a large body",
        "most of it",
        "a body that means nothing",
        "another begun",
        "a large one ahead",
        "as many ahead as may be",
        "one more",
    ],
)
def test_connection_is_read_on_while_its_request_is_worked_on(sent: bytes, *, is_read_on: bool) -> None:
    """Otherwise its end would not be seen; but what nobody has asked for yet is not read without end."""

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        await scope[DEPARTURE_KEY]

    async def scenario() -> bool:
        async with wired(app) as (connection, wire):
            connection.data_received(sent)
            await asyncio.sleep(0)
            is_reading = wire.is_reading
        await asyncio.gather(*connection.tasks)  # the connection is lost, and they hear of it
        return is_reading

    assert asyncio.run(asyncio.wait_for(scenario(), PATIENCE_SECONDS)) == is_read_on
