"""The protocol: a connection without a socket, whose other end sends and disconnects as the test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service import protocol
from service.api.admission import Admission
from service.api.budget import MemoryBudget
from service.api.endpoint import Documentation, Endpoint
from service.api.events import send_events
from service.api.exchange import CLOSE, DEPARTURE_KEY, RESPOND_KEY, Exchange
from service.api.gateway import Gateway
from service.errors import InferenceFailed
from service.metrics import Metrics
from service.transport import STALL_SECONDS
from tests.service.engine.held import in_virtual_time, let_time_pass
from tests.service.fakes import PATIENCE_SECONDS
from tests.service.wire import Wire

WHOLE = b"GET /livez HTTP/1.1\r\nHost: glimpse\r\n\r\n"
HEAD = b"POST /elsewhere HTTP/1.1\r\nHost: glimpse\r\n"
POST = HEAD + b"Content-Length: 9\r\n\r\n"
LARGE = HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(100_000)
"""Request with a larger body than uvicorn reads before the application asks for it."""
STREAM = WHOLE.replace(b"livez", b"stream", 1)


class Nothing(BaseModel):
    """A query without parameters."""


Handler = Callable[[Exchange, Nothing, Send], Awaitable[None]]


async def say(send: Send, body: bytes) -> None:
    """Answer by ASGI messages."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def whole(scope: Scope, _: Receive, __: Send) -> None:
    """Return a complete response."""
    await scope.pop(RESPOND_KEY)(200, [(b"content-length", b"5")], b"whole")


async def last(scope: Scope, _: Receive, __: Send) -> None:
    """Return the same, as the last response on its connection."""
    await scope.pop(RESPOND_KEY)(200, [(b"content-length", b"5"), CLOSE], b"whole")


def gateway(handler: Handler, metrics: Metrics) -> Gateway:
    """Return a gateway to one endpoint, which may take 30 s to begin its response."""
    documentation = Documentation(summary="", description="", tag="", media_types=(), answer=Nothing)
    return Gateway(
        say,  # type: ignore[arg-type] # nobody asks for anything else
        {("GET", "/stream"): Endpoint("GET", "/stream", Nothing, handler, documentation)},
        metrics,
        admission=Admission(1),
        memory=MemoryBudget(2**20),
        longest_seconds=30.0,
        api_keys=(),
    )


class Patient:
    """A loop whose timers without delay fire when the test says so."""

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
    """Return a connection to an application, without a socket."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    connection, wire = protocol.HttpProtocol(config, ServerState(), {}, asyncio.get_running_loop()), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    yield connection, wire
    connection.connection_lost(None)


@pytest.mark.parametrize(
    ("sent", "is_closed", "is_refused"),
    [
        ([], True, False),
        ([WHOLE[:20]], True, True),
        ([WHOLE, WHOLE[:20]], True, True),
        ([WHOLE + WHOLE[:20]], True, True),
        ([POST + b"1"], True, False),
        ([POST + b"1", b"2"], True, False),
        ([POST + b"1", b"23456789"], False, False),
        ([WHOLE], False, False),
        ([WHOLE[:20], WHOLE[20:]], False, False),
        ([WHOLE, WHOLE[:20], WHOLE[20:]], False, False),
    ],
    ids=[
        "silence",
        "half",
        "second half",
        "half at once",
        "body",
        "after the answer",
        "whole after the answer",
        "whole",
        "in two",
        "second in two",
    ],
)
def test_request_that_does_not_become_complete_is_not_waited_for_without_end(
    sent: list[bytes], monkeypatch: pytest.MonkeyPatch, *, is_closed: bool, is_refused: bool
) -> None:
    """It is refused only if it has no response yet: otherwise the refusal would pass for the next response."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_SECONDS", 0.0)

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await say(send, b"alive")

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
    assert bool(refusal) == is_refused
    if refusal:
        assert json.loads(refusal.partition(b"\r\n\r\n")[2])["code"] == "timeout"


def test_request_that_turns_out_to_be_no_http_is_given_up_at_once() -> None:
    """Its handler need not wait for the body until the connection is gone, and nothing is added to the refusal."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await say(send, b"late")

    async def scenario() -> bytes:
        async with wired(app) as (connection, wire):
            connection.data_received(HEAD + b"X-Request-ID: mine\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.data_received(b"no size\r\n")
            await asyncio.gather(*connection.tasks)
            assert not wire.is_closed, "its client may still be sending"
            return wire.written

    written = asyncio.run(scenario())

    assert written.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nx-request-id: mine\r\n" in written
    assert b"late" not in written


def test_connection_whose_request_came_after_its_answer_is_idle() -> None:
    """A shutdown does not wait for it."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await say(send, b"early")

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
    assert not wire.is_ended, "its client was taken for one that is still sending"


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
    """A disconnect is noticed, but a body that the application does not ask for is not read without limit."""

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


@pytest.mark.parametrize(
    ("app", "request_line", "body", "is_closed"),
    [
        (whole, b"GET / HTTP/1.1", b"whole", False),
        (whole, b"HEAD / HTTP/1.1", b"", False),
        (whole, b"GET / HTTP/1.0", b"whole", True),
        (last, b"GET / HTTP/1.1", b"whole", True),
        (last, b"HEAD / HTTP/1.0", b"", True),
    ],
)
def test_whole_answer_is_one_write(app: ASGIApp, request_line: bytes, body: bytes, *, is_closed: bool) -> None:
    """Head and body are one write, and `Connection: close` is sent once if the connection ends with the response."""

    async def scenario() -> Wire:
        async with wired(app) as (connection, wire):
            connection.data_received(request_line + b"\r\nHost: glimpse\r\n\r\n")
            await asyncio.gather(*connection.tasks)
            assert wire.is_closed == is_closed
            return wire

    (written,) = asyncio.run(scenario()).writes

    head, _, rest = written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ncontent-length: 5" in head
    assert head.count(b"\r\nconnection: close") == is_closed
    assert rest == body


def test_large_answer_is_not_copied() -> None:
    """The transport gets the body itself, not a copy that a slow client would keep in memory."""
    body = bytes(100_000)

    async def large(scope: Scope, _: Receive, __: Send) -> None:
        await scope.pop(RESPOND_KEY)(200, [(b"content-length", b"100000")], body)

    async def scenario() -> Wire:
        async with wired(large) as (connection, wire):
            connection.data_received(WHOLE)
            await asyncio.gather(*connection.tasks)
            return wire

    head, written = asyncio.run(scenario()).writes

    assert head.endswith(b"\r\n\r\n")
    assert written is body


def test_whole_answer_is_over_when_it_is_taken() -> None:
    """It is written after earlier responses, and the sender waits until the client has read it."""

    async def scenario() -> Wire:
        async with wired(whole) as (connection, wire):
            connection.pause_writing()
            connection.data_received(WHOLE)
            await asyncio.sleep(0)
            assert not wire.writes, "the client has not taken what it has got"

            (task,) = connection.tasks
            connection.resume_writing()
            is_written = asyncio.Event()

            def fill_up() -> None:
                connection.pause_writing()
                is_written.set()

            wire.on_write = fill_up
            await is_written.wait()
            await asyncio.sleep(0)
            assert not task.done(), "the client is taking its answer"

            connection.resume_writing()
            await task
            return wire

    assert asyncio.run(asyncio.wait_for(scenario(), PATIENCE_SECONDS)).written.endswith(b"whole")


def test_whole_answer_to_a_client_that_left_is_dropped() -> None:
    """Nothing is written to a connection that is gone."""
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await goes_on.wait()
        await whole(scope, receive, send)

    async def scenario() -> Wire:
        async with wired(app) as (connection, wire):
            connection.data_received(WHOLE)
            await begun.wait()
        goes_on.set()
        await asyncio.gather(*connection.tasks)
        return wire

    assert not asyncio.run(asyncio.wait_for(scenario(), PATIENCE_SECONDS)).writes


@in_virtual_time
async def test_connection_whose_client_takes_nothing_of_an_answer_is_aborted() -> None:
    """It is aborted although there is more to write, and nothing closes it."""
    async with wired(whole) as (connection, wire):
        connection.transport.write(bytes(10**6))
        wire.untaken = 10**6
        connection.pause_writing()
        assert not wire.is_aborted

        await let_time_pass(STALL_SECONDS)

        assert wire.is_aborted


@pytest.mark.parametrize("error", [InferenceFailed("the model failed"), ZeroDivisionError()], ids=["failure", "bug"])
def test_stream_that_fails_is_no_second_answer(error: Exception) -> None:
    """The response has begun, so it is aborted; the metrics count the failure."""
    metrics = Metrics()

    async def failing(_: Exchange, __: Nothing, send: Send) -> None:
        async def groups() -> AsyncIterator[bytes]:
            yield b"data: first\n\n"
            raise error

        await send_events(send, groups(), {})

    async def scenario() -> Wire:
        async with wired(gateway(failing, metrics)) as (connection, wire):
            connection.data_received(STREAM)
            await asyncio.gather(*connection.tasks)
            return wire

    wire = asyncio.run(scenario())

    assert wire.written.startswith(b"HTTP/1.1 200 ")
    assert b"data: first" in wire.written
    assert wire.written.count(b"HTTP/1.1 ") == 1
    assert b'glimpse_requests_total{code="500",model="",route="/stream"} 1.0' in metrics.exposition()


@in_virtual_time
async def test_stream_that_has_begun_before_its_deadline_is_completed_after_it() -> None:
    """The deadline is for the beginning of the response."""
    metrics = Metrics()

    async def long(_: Exchange, __: Nothing, send: Send) -> None:
        async def groups() -> AsyncIterator[bytes]:
            yield b"data: first\n\n"
            await let_time_pass(60.0)
            yield b"data: last\n\n"

        await send_events(send, groups(), {})

    async with wired(gateway(long, metrics)) as (connection, wire):
        connection.data_received(STREAM)
        await asyncio.gather(*connection.tasks)

    assert b"data: last" in wire.written
    assert wire.written.endswith(b"\r\n0\r\n\r\n")
    assert b'glimpse_requests_total{code="200",model="",route="/stream"} 1.0' in metrics.exposition()


@pytest.mark.parametrize(("version", "interim"), [(b"1.0", 0), (b"1.1", 1)])
def test_interim_answer_is_for_those_who_know_it(version: bytes, interim: int) -> None:
    """An HTTP/1.0 client would take `100 Continue` for the response."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await say(send, b"answer")

    async def scenario() -> bytes:
        async with wired(app) as (connection, wire):
            connection.data_received(POST.replace(b"1.1", version).replace(b"Host", b"Expect: 100-continue\r\nHost"))
            await asyncio.sleep(0)
            connection.data_received(b"123456789")
            await asyncio.gather(*connection.tasks)
            return wire.written

    assert asyncio.run(scenario()).count(b" 100 Continue\r\n") == interim
