"""uvicorn's HTTP protocol, and what a service on an open port needs beyond it.

- An answer that is all there leaves in one write, unless it is large.
- Who asks for another protocol is answered in this one, body and all. The parser takes all that follows such a request
  for the other protocol: left at that, its body would be lost, or be read as a request of its own.
- What follows a body is no header, and blanks behind a header are not of it.
- A head, or what may follow a body, that does not end is refused; who says nothing for long does not keep a connection.
- What is no HTTP is answered with a problem document, as everything else is.
- A client that takes next to nothing of its answers does not keep its connection.
- When the connection is lost, whatever it had asked for is given up, not the newest request alone; and at once, without
  a task that waits for that.
"""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.exchange import CLOSE, DEPARTURE_KEY, RESPOND_KEY, TIMING, identity
from service.api.problems import MEDIA_TYPE, document
from service.metrics import STAGES
from service.transport import ClientTransport

LARGEST_HEAD_BYTES = 2**16
"""Most bytes that may come without a request or a part of a body being complete with them."""
SLOWEST_HEAD_SECONDS = 30.0
"""From its first byte, within which a head must be complete, or whatever follows the answer; and within which the first
request must begin."""
MOST_AHEAD, MOST_BYTES_AHEAD = 8, HIGH_WATER_LIMIT
"""Requests, and bytes of their bodies, that a client may send ahead of an answer. While there are more nothing is read,
not even that it leaves."""
NO_TIME = TIMING % ((0,) * len(STAGES))


class HttpProtocol(HttpToolsProtocol):
    """One connection; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle_bytes = 0
        self._is_in_head = False
        self._patience: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(ClientTransport(transport, self.loop, self._is_sending))  # type: ignore[arg-type]
        self._patience = self.loop.call_later(SLOWEST_HEAD_SECONDS, self._lose_patience)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this connection."""
        super().connection_lost(exc)
        self._have_patience()
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                _give_up(cycle)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and start what is complete."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._idle_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            why = error.__context__ or error  # what one of these methods raised, rather than that one did
            self._refuse(HTTPStatus.BAD_REQUEST, "bad-request", f"this is not HTTP: {why}")
            return
        if self._idle_bytes > LARGEST_HEAD_BYTES:
            detail = f"the request's head has more than {LARGEST_HEAD_BYTES} bytes, which is the most that is allowed"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too-large", detail)
        else:
            self._watch()

    def on_message_begin(self) -> None:
        """Take note of a request's first byte."""
        self._idle_bytes = max(self._idle_bytes, 1)  # the one before may have come with it, and have set this to 0
        self._have_patience()
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, without the blanks behind it. What comes behind a body is none (RFC 9110, 6.5.1)."""
        if self._is_in_head:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Take note of a head's end; from here on the request has its own deadline."""
        self._idle_bytes = 0
        self._is_in_head = False
        if self.parser.get_http_version() == "1.0":  # it knows no interim answer (RFC 9110, 10.1.1)
            self.expect_100_continue = False
        self.scope[DEPARTURE_KEY] = self.loop.create_future()  # type: ignore[literal-required]
        super().on_headers_complete()
        self.scope[RESPOND_KEY] = partial(self._respond, self.cycle)  # type: ignore[literal-required]
        self._read_on()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body. That of a GET means nothing (RFC 9110, 9.3.1): nobody will ask for it."""
        self._idle_bytes = 0
        if self.cycle.scope["method"] not in {"GET", "HEAD"}:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take note of a request's end, also when it was answered before."""
        self._idle_bytes = 0
        super().on_message_complete()
        if self.cycle.response_complete:
            self.cycle.more_body = False
        self._read_on()

    def on_response_complete(self) -> None:
        """Go on with what was sent ahead; what follows an early answer has its time from now on."""
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        """Finish what is under way; whoever is lingering is let down."""
        super().shutdown()
        if self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        """Wait for the client to take what was written."""
        super().pause_writing()
        self.transport.abort_if_stalled()  # type: ignore[attr-defined] # it is a ClientTransport

    @property
    def _is_waiting(self) -> bool:
        """Whether something is to become complete that no request waits for: a head, or what follows an answer."""
        cycle = self.cycle
        is_sending_on = cycle is not None and cycle.response_complete and cycle.more_body
        return self._idle_bytes > 0 or is_sending_on

    def _is_sending(self) -> bool:
        return self._is_in_head or (self.cycle is not None and self.cycle.more_body)

    def _read_on(self) -> None:
        """Read, though what came is not worked on yet: of a connection that is not read, the end is not seen."""
        if self.flow.read_paused and len(self.pipeline) <= MOST_AHEAD:
            bytes_ahead = sum(len(cycle.body) for cycle, _ in self.pipeline)
            if bytes_ahead <= MOST_BYTES_AHEAD:
                self.flow.resume_reading()

    def _watch(self) -> None:
        """Have patience with whoever sends what no request waits for, but not for ever."""
        if not self._is_waiting:
            self._have_patience()
        elif self._patience is None:
            self._patience = self.loop.call_later(SLOWEST_HEAD_SECONDS, self._lose_patience)

    def _have_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if self.transport.is_closing():
            return
        if self._running is None and not self._idle_bytes:  # it would take a refusal for its first answer
            self.transport.close()
            return
        detail = f"the request was not complete after {SLOWEST_HEAD_SECONDS:g} s"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "timeout", detail)

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._go_on_in_http()
            else:
                return

    def _go_on_in_http(self) -> None:
        """Have what follows a head that asks for another protocol read as its body, if it announces one."""
        framing = [header for header in self.headers if header[0] in {b"content-length", b"transfer-encoding"}]
        if framing:
            self.cycle.more_body = True
            head = b"".join(b"%s: %s\r\n" % header for header in framing)
            parser = httptools.HttpRequestParser(_Continuation(self))
            parser.feed_data(b"POST / HTTP/1.1\r\n" + head + b"\r\n")
            self.parser = parser

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    async def _respond(
        self, cycle: RequestResponseCycle, status: int, head: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Send an answer that is all there, in one write unless it is large; see `service.api.exchange.Respond`.

        It is what two ASGI messages would send, at a quarter of the cost: its head is ours, and not looked at again.
        """
        await self.flow.drain()  # what came before it
        if cycle.disconnected:
            return
        headers = [*cycle.default_headers, *head]
        if CLOSE in head:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers.append(CLOSE)
        begin = b"".join([STATUS_LINE[status], *[b"%b: %b\r\n" % header for header in headers], b"\r\n"])
        if cycle.scope["method"] == "HEAD":
            body = b""
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if len(body) <= HIGH_WATER_LIMIT:
            self.transport.write(begin + body)
        else:  # joined, there would be two of it for as long as the client takes
            self.transport.write(begin)
            self.transport.write(body)
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        await self.flow.drain()

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        """Answer what never became a request, and close; not before what came ahead of it has its answer."""
        running = self._running
        if running is not None and running.response_complete and running.more_body:
            self.transport.close()  # it was answered early: this would be taken for the next request's response
            return
        if running is not None and not running.response_complete:
            self.pipeline.clear()
            running.keep_alive = False
            if not running.more_body:
                return
            _give_up(running)  # whoever works for it waits for a body that nobody reads
            if running.response_started:
                self.transport.close()
                return
        is_of_a_head = self._is_in_head or (running is not None and running.more_body)
        sent_id = dict(self.headers).get(b"x-request-id", b"") if is_of_a_head else b""
        body = json.dumps(document(status, code, detail)).encode()
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {identity(sent_id)}\r\nserver-timing: {NO_TIME}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("latin-1") + body)
        self.transport.close()


def _give_up(cycle: RequestResponseCycle) -> None:
    """Tell whoever works for a request that nobody waits for the answer."""
    cycle.disconnected = True
    cycle.message_event.set()
    departure = cycle.scope[DEPARTURE_KEY]  # type: ignore[literal-required]
    if not departure.done():
        departure.set_result(None)


class _Continuation:
    """Tells a protocol what a parser reads after the head that the protocol has had already."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._is_in_that_head = True

    def on_message_begin(self) -> None:
        if not self._is_in_that_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_in_that_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_that_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_in_that_head:
            self._protocol.on_headers_complete()
        self._is_in_that_head = False

    def on_body(self, body: bytes) -> None:
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        self._protocol.on_message_complete()
