"""The gateway: the outermost ASGI application.

It gives every exchange its identity and timings, every response `X-Request-ID` and `Server-Timing`, and every error a
problem document, and records them all in the metrics. Requests for inference are dispatched here by their exact path,
without a framework's routing, dependency and response machinery; FastAPI serves all other paths.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import playground, problems
from service.api.admission import Admission
from service.api.answer import Answer
from service.api.budget import MemoryBudget, Share
from service.api.endpoint import Endpoint
from service.api.exchange import CLOSE, RESPOND_KEY, Exchange, Respond
from service.errors import GlimpseError, NotReady, Unauthorized
from service.metrics import Metrics

logger = logging.getLogger("glimpse.api")

DOCUMENTATION_FILES = "/docs/files"
"""Path of the files of `/docs`. They are not loaded from elsewhere, because API keys are entered on that page."""
OPEN_PATHS = frozenset(
    {
        *("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"),
        *(f"{DOCUMENTATION_FILES}/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")),
        *playground.FILES,
    }
)
"""Paths that need no API key: health, metrics, and the pages on which a key can be entered."""
FRAMEWORK_PATHS = OPEN_PATHS | {"/models"}
"""Paths that FastAPI serves. The metrics' `route` is one of these, the path of an endpoint, or `other`."""

VARIES = (b"vary", b"accept")
"""Header of every response, for caches: if the query names no format, `Accept` decides."""


class Gateway:
    """The outermost ASGI application; see the module's docstring."""

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[tuple[str, str], Endpoint[Any]],
        metrics: Metrics,
        *,
        admission: Admission,
        memory: MemoryBudget,
        longest_seconds: float,
        api_keys: Sequence[str],
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        self._routes = FRAMEWORK_PATHS | {path for _, path in endpoints}
        self._metrics = metrics
        self._admission = admission
        self._memory = memory
        self._longest_seconds = longest_seconds
        self._api_keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, from its head to the last byte of its response."""
        # The function refers back to the scope: left there, the cycle would keep the request until garbage collection.
        respond: Respond | None = scope.pop(RESPOND_KEY, None)
        if scope["method"] == "HEAD":  # the server leaves the body out
            scope = {**scope, "method": "GET"}
        exchange = Exchange(scope, receive, self._longest_seconds, Share(self._memory))
        try:
            await self._answer(exchange, scope, receive, _Reply(exchange, send, respond, self._admission))
        finally:
            exchange.memory.give_back()
            route = scope["path"] if scope["path"] in self._routes else "other"
            seconds = time.monotonic() - exchange.began_at
            self._metrics.observe_exchange(route, exchange.model, exchange.status, seconds, exchange.seconds())

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        """Dispatch the request, and turn whatever it raises into a response."""
        try:
            await self._dispatch(exchange, scope, receive, reply)
        except GlimpseError as error:
            if exchange.status:  # the head was sent: the server aborts what is incomplete
                exchange.status = problems.status_of(error)
            else:
                await reply.whole(problems.problem(error))
        except asyncio.CancelledError:  # the server shuts down
            if exchange.status:
                raise
            await reply.whole(problems.problem(NotReady("the service stopped before the response was ready")))
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            if exchange.status:  # as above
                exchange.status = 500
            else:
                await reply.whole(problems.BUG)

    async def _dispatch(self, exchange: Exchange, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        endpoint = self._endpoints.get((scope["method"], scope["path"]))
        if self._api_keys and scope["path"] not in OPEN_PATHS:
            self._authorise(exchange)
        if endpoint is None:  # health, metrics and documentation bypass admission
            await self._app(scope, receive, reply)
            return
        self._admission.enter()
        try:
            answer = await endpoint(exchange, scope["query_string"], reply)
            if answer is not None:
                await reply.whole(answer)
        finally:
            self._admission.leave()

    def _authorise(self, exchange: Exchange) -> None:
        scheme, _, token = exchange.header(b"authorization").partition(" ")
        given = [exchange.header(b"x-api-key"), token.lstrip() if scheme.lower() == "bearer" else ""]
        # Compare with every key, each time in constant time, so that the duration reveals nothing.
        if not sum(hmac.compare_digest(one.encode("latin-1"), key) for one in given for key in self._api_keys):
            raise Unauthorized("send an API key in X-API-Key or as a bearer token")


class _Reply:
    """The way back to the client: an ASGI `send` that completes the head, and a method for complete responses."""

    __slots__ = ("_admission", "_exchange", "_respond", "_send")

    def __init__(self, exchange: Exchange, send: Send, respond: Respond | None, admission: Admission) -> None:
        self._exchange = exchange
        self._send = send
        self._respond = respond
        self._admission = admission

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message."""
        if message["type"] == "http.response.start":
            message["headers"] = self._begin(message["status"], message["headers"])
        await self._send(message)

    async def whole(self, answer: Answer) -> None:
        """Send a complete response; return when the client has read it, as far as the server can tell."""
        # A slow client may take long to read it; give back the memory of what the response was made from.
        self._exchange.memory.hold(len(answer.body))
        head = self._begin(answer.status, answer.head())
        if self._respond is None:
            await self._send({"type": "http.response.start", "status": answer.status, "headers": head})
            await self._send({"type": "http.response.body", "body": answer.body})
        else:
            await self._respond(answer.status, head, answer.body)

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Begin the response, and return its head, completed by the headers that every response carries."""
        self._exchange.begin_answer()
        self._exchange.status = status
        head = [
            *headers,
            (b"x-request-id", self._exchange.request_id.encode("latin-1")),
            (b"server-timing", self._exchange.server_timing().encode("latin-1")),
            VARIES,
        ]
        if self._admission.is_draining:  # tell the client before the server closes the connection
            head.append(CLOSE)
        return head
