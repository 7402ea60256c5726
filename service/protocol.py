"""uvicorn's HTTP protocol, extended by what a service on an open port needs.

- A complete response is sent in one write, unless it is large.
- A request with `Upgrade` is served as plain HTTP/1.1, including its body. The parser would leave everything after the
  head to the other protocol: the body would be lost, or parsed as another request.
- Trailers are not merged into the headers, and whitespace after a header's value is stripped.
- A head or a trailer section without end is refused, and a connection that sends no request is closed.
- Input that is not HTTP gets a problem document, like every other error.
- A client that reads its responses too slowly is disconnected.
- When a connection is lost, all of its requests are cancelled at once, not only the newest, and without a task that
  waits for the disconnect.
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

MAX_HEAD_BYTES = 2**16
"""Maximum number of bytes that may arrive without completing a head or a part of a body."""
HEAD_TIMEOUT_SECONDS = 30.0
"""Seconds that a client has to complete a request head, to finish a body that was answered early, or to begin its first
request."""
MAX_REQUESTS_AHEAD, MAX_BYTES_AHEAD = 8, HIGH_WATER_LIMIT
"""Maximum number of pipelined requests, and of bytes of their bodies, that are read ahead of a response. Beyond them,
the connection is not read, and a disconnect goes unnoticed."""
NO_TIME = TIMING % ((0,) * len(STAGES))


class HttpProtocol(HttpToolsProtocol):
    """One connection; see the module's docstring."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle_bytes = 0
        self._is_in_head = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection, and limit the time for its first request."""
        super().connection_made(ClientTransport(transport, self.loop, self._is_sending))  # type: ignore[arg-type]
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._on_head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application that its client has disconnected."""
        super().connection_lost(exc)
        self._cancel_head_timer()
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                _mark_disconnected(cycle)

    def data_received(self, data: bytes) -> None:
        """Parse the data, and start the requests in it; refuse what is not HTTP, and a head that is too long."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._idle_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            why = error.__context__ or error  # what a callback raised, rather than that a callback failed
            self._refuse(HTTPStatus.BAD_REQUEST, "bad-request", f"this is not HTTP: {why}")
            return
        if self._idle_bytes > MAX_HEAD_BYTES:
            detail = f"the request's head has more than {MAX_HEAD_BYTES} bytes, which is the maximum"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too-large", detail)
        else:
            self._arm_head_timer()

    def on_message_begin(self) -> None:
        """Begin a request's head."""
        self._idle_bytes = max(self._idle_bytes, 1)  # an earlier request in the same packet may have set this to 0
        self._cancel_head_timer()
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, without whitespace at its end. Trailers are dropped (RFC 9110, 6.5.1)."""
        if self._is_in_head:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """End a head; from here on the request has its own deadline."""
        self._idle_bytes = 0
        self._is_in_head = False
        if self.parser.get_http_version() == "1.0":  # which has no 100 Continue (RFC 9110, 10.1.1)
            self.expect_100_continue = False
        self.scope[DEPARTURE_KEY] = self.loop.create_future()  # type: ignore[literal-required]
        super().on_headers_complete()
        self.scope[RESPOND_KEY] = partial(self._respond, self.cycle)  # type: ignore[literal-required]
        self._read_on()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body. The body of a GET or HEAD has no meaning (RFC 9110, 9.3.1), and is dropped."""
        self._idle_bytes = 0
        if self.cycle.scope["method"] not in {"GET", "HEAD"}:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request, which may have been answered already."""
        self._idle_bytes = 0
        super().on_message_complete()
        if self.cycle.response_complete:
            self.cycle.more_body = False
        self._read_on()

    def on_response_complete(self) -> None:
        """Start the next pipelined request; limit the time for the rest of a body that was answered early."""
        super().on_response_complete()
        self._arm_head_timer()

    def shutdown(self) -> None:
        """Finish the requests in progress; close a lingering connection at once."""
        super().shutdown()
        if self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        """Pause until the client has read what was written; abort the connection if it reads too slowly."""
        super().pause_writing()
        self.transport.abort_if_stalled()  # type: ignore[attr-defined] # it is a ClientTransport

    @property
    def _is_waiting(self) -> bool:
        """Whether a head, or the rest of a body that was answered early, is incomplete."""
        cycle = self.cycle
        is_sending_on = cycle is not None and cycle.response_complete and cycle.more_body
        return self._idle_bytes > 0 or is_sending_on

    def _is_sending(self) -> bool:
        return self._is_in_head or (self.cycle is not None and self.cycle.more_body)

    def _read_on(self) -> None:
        """Resume reading while requests are in progress, so that a disconnect is noticed."""
        if self.flow.read_paused and len(self.pipeline) <= MAX_REQUESTS_AHEAD:
            bytes_ahead = sum(len(cycle.body) for cycle, _ in self.pipeline)
            if bytes_ahead <= MAX_BYTES_AHEAD:
                self.flow.resume_reading()

    def _arm_head_timer(self) -> None:
        """Limit the time for input that is under no request's deadline; see `_is_waiting`."""
        if not self._is_waiting:
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._on_head_timeout)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._running is None and not self._idle_bytes:  # a 408 would pass for its first response
            self.transport.close()
            return
        detail = f"the request was not complete after {HEAD_TIMEOUT_SECONDS:g} s"
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
        """Parse what follows a head with `Upgrade` as its body, if it announces one."""
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
        """Send a complete response, in one write unless it is large; see `service.api.exchange.Respond`.

        It does what two ASGI messages do, at a quarter of the cost: the head is our own, and is not validated again.
        """
        await self.flow.drain()  # wait until earlier responses have been written
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
        else:  # joining would keep a second copy of the body until the client has read it
            self.transport.write(begin)
            self.transport.write(body)
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        await self.flow.drain()

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        """Refuse input that is not a request, and close the connection, once earlier requests have their responses."""
        running = self._running
        if running is not None and running.response_complete and running.more_body:
            self.transport.close()  # it was answered early: this would pass for the response to the next request
            return
        if running is not None and not running.response_complete:
            self.pipeline.clear()
            running.keep_alive = False
            if not running.more_body:
                return
            _mark_disconnected(running)  # the application waits for a body that is no longer read
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


def _mark_disconnected(cycle: RequestResponseCycle) -> None:
    """Tell the application that the client of this request has disconnected."""
    cycle.disconnected = True
    cycle.message_event.set()
    departure = cycle.scope[DEPARTURE_KEY]  # type: ignore[literal-required]
    if not departure.done():
        departure.set_result(None)


class _Continuation:
    """Parser callbacks that skip a head which the protocol has seen already, and pass on what follows it."""

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
