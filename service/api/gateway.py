"""The gateway: the outermost ASGI application.

Every exchange gets its identity and timings here, every answer its `X-Request-ID` and `Server-Timing`, every error its
problem document, and the metrics hear of all of them. Endpoints that compute are dispatched here by their exact path,
without a framework's routing, dependency and response machinery; all other paths are FastAPI's.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import playground, problems
from service.api.admission import Admission
from service.api.answer import Answer
from service.api.endpoint import Endpoint
from service.api.exchange import EXCHANGE_KEY, RESPOND_KEY, Exchange, Respond
from service.api.memory import Memory, Share
from service.errors import GlimpseError, NotReady, Unauthorized
from service.metrics import Metrics

logger = logging.getLogger("glimpse.api")

SendWhole = Callable[[Answer], Awaitable[None]]

OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics", "/docs", "/openapi.json", *playground.FILES})
"""What probes and Prometheus ask for needs no key, nor do the pages on which a key can be given."""


SECURITY_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
"""How a key is given, either way, in the words of the OpenAPI document."""


class Gateway:
    """Wraps the application; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[tuple[str, str], Endpoint[Any]],
        metrics: Metrics,
        *,
        admission: Admission,
        memory: Memory,
        longest_seconds: float,
        api_keys: Sequence[str],
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        self._metrics = metrics
        self._admission = admission
        self._memory = memory
        self._longest_seconds = longest_seconds
        self._api_keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one exchange from its head to its last byte."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        respond: Respond | None = scope.pop(
            RESPOND_KEY, None
        )  # left there, it would keep the request until a collection
        if scope["method"] == "HEAD":  # the server leaves the body out
            scope = {**scope, "method": "GET"}
        exchange = Exchange(scope, receive, self._longest_seconds, Share(self._memory))

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._begun(exchange, message["status"], message["headers"])
            await send(message)

        async def send_whole(answer: Answer) -> None:
            head = self._begun(exchange, answer.status, answer.head())
            if respond is None or not respond(answer.status, head, answer.body):
                await send({"type": "http.response.start", "status": answer.status, "headers": head})
                await send({"type": "http.response.body", "body": answer.body})

        try:
            await self._answer(exchange, scope, receive, send_marked, send_whole)
        finally:
            seconds = time.monotonic() - exchange.began_at
            self._metrics.observe_exchange(
                exchange.route or "other", exchange.model, exchange.status, seconds, exchange.seconds()
            )

    async def _answer(
        self, exchange: Exchange, scope: Scope, receive: Receive, send: Send, send_whole: SendWhole
    ) -> None:
        """Have it answered, whatever happens."""
        try:
            await self._dispatch(exchange, scope, receive, send, send_whole)
        except GlimpseError as error:
            if exchange.status:  # The head is gone. The server breaks the answer off, if anybody is there to see.
                exchange.status = problems.status_of(error)
            else:
                await send_whole(problems.problem(error))
        except asyncio.CancelledError:  # the server ends
            if exchange.status:
                raise
            await send_whole(problems.problem(NotReady("the service ended before the answer was there")))
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            if exchange.status:  # as above
                exchange.status = 500
            else:
                await send_whole(problems.BUG)

    async def _dispatch(
        self, exchange: Exchange, scope: Scope, receive: Receive, send: Send, send_whole: SendWhole
    ) -> None:
        endpoint = self._endpoints.get((scope["method"], scope["path"]))
        if endpoint is not None:
            exchange.route = scope["path"]
        if self._api_keys and scope["path"] not in OPEN_PATHS:
            self._authorise(exchange)
        if endpoint is None:  # How the service fares can always be asked.
            scope[EXCHANGE_KEY] = exchange
            await self._app(scope, receive, send)
            return
        self._admission.enter()
        try:
            answer = await endpoint(exchange, scope["query_string"], send)
            if answer is not None:
                await send_whole(answer)
        finally:
            self._admission.leave()

    def _begun(
        self, exchange: Exchange, status: int, headers: Iterable[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        """The head of an answer that begins now, with the headers that every answer carries."""
        exchange.begin_answer()
        exchange.status = status
        head = [
            *headers,
            (b"x-request-id", exchange.request_id.encode("latin-1")),
            (b"server-timing", exchange.server_timing().encode("latin-1")),
        ]
        if self._admission.is_draining:  # before the server closes it
            head.append((b"connection", b"close"))
        return head

    def _authorise(self, exchange: Exchange) -> None:
        scheme, _, token = exchange.header(b"authorization").partition(" ")
        given = exchange.header(b"x-api-key") or (token.lstrip() if scheme.lower() == "bearer" else "")
        # Every key is compared, each in constant time: how long it takes tells nothing.
        if not sum(hmac.compare_digest(given.encode("latin-1"), key) for key in self._api_keys):
            raise Unauthorized("an API key is needed in X-API-Key or as a bearer token")
