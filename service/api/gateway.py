"""The gateway: the outermost ASGI application.

Every exchange gets its identity and timings here, every answer its `X-Request-ID` and `Server-Timing`, every error its
problem document, and the metrics hear of all of them. Endpoints that are plain ASGI applications are dispatched here by
their exact path, without a framework's routing, dependency and response machinery; all other paths are FastAPI's.

A pure ASGI application, because middleware that wraps `receive` would hide that a client has left.
"""

import hmac
import logging
import time
from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import playground, problems
from service.api.answer import Answer
from service.api.exchange import EXCHANGE_KEY, Exchange
from service.engine.batcher import RETRY_AFTER_SECONDS
from service.errors import GlimpseError, Overloaded, Unauthorized
from service.metrics import Metrics
from service.settings import Limits

logger = logging.getLogger("glimpse.api")

OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics", *playground.FILES})
"""What probes and Prometheus ask for needs no key, nor does the page on which a key can be given."""


class Gateway:
    """Wraps the application; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        plain: Mapping[tuple[str, str], ASGIApp],
        metrics: Metrics,
        *,
        limits: Limits,
        api_keys: Sequence[str],
    ) -> None:
        self._app = app
        self._plain = plain
        self._metrics = metrics
        self._limits = limits
        self._in_hand = 0
        self._api_keys = [key.encode() for key in api_keys]
        self.is_draining = False
        """Answers then ask the client to close its connection, before the server does."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one exchange from its head to its last byte."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # the server leaves the body out
            scope = {**scope, "method": "GET"}
        exchange = scope[EXCHANGE_KEY] = Exchange(scope, receive, self._limits.timeout_seconds)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], *self._marks(exchange)]
            await send(message)

        endpoint = self._plain.get((scope["method"], scope["path"]))
        self._in_hand += 1
        try:
            if self._api_keys and scope["path"] not in OPEN_PATHS:
                self._authorise(exchange)
            if endpoint is None:
                await self._app(scope, receive, send_marked)
            else:
                self._check_room()
                await endpoint(scope, receive, send_marked)
        except Exception as error:
            if exchange.status:  # the head is gone: all that is left is to break the answer off
                logger.warning("request %s was broken off: %s", exchange.request_id, error)
                raise
            await self._answer_for(error, exchange).send(send_marked)
        finally:
            self._in_hand -= 1
            seconds = time.monotonic() - exchange.began_at
            self._metrics.observe_exchange(
                exchange.route or "other", exchange.model, exchange.status, seconds, exchange.seconds
            )

    def _check_room(self) -> None:
        """Refuse what is more than this process may have in hand; asking how it fares is always allowed."""
        if self._in_hand > self._limits.concurrent_requests:
            raise Overloaded(
                f"{self._in_hand} requests are in hand; at most {self._limits.concurrent_requests} are taken",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    def _marks(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """The headers that every answer carries."""
        marks = [
            (b"x-request-id", exchange.request_id.encode("latin-1")),
            (b"server-timing", exchange.server_timing().encode("latin-1")),
        ]
        if self.is_draining:
            marks.append((b"connection", b"close"))
        return marks

    def _answer_for(self, error: Exception, exchange: Exchange) -> Answer:
        if isinstance(error, GlimpseError):
            return problems.problem(error)
        logger.error("request %s failed", exchange.request_id, exc_info=error)
        detail = "something went wrong on our side; the log knows what, by this answer's X-Request-ID"
        return problems.answer(problems.document(500, GlimpseError.code, detail))

    def _authorise(self, exchange: Exchange) -> None:
        scheme, _, token = exchange.header(b"authorization").partition(" ")
        given = exchange.header(b"x-api-key") or (token if scheme.lower() == "bearer" else "")
        # Every key is compared, each in constant time: how long it takes tells nothing.
        if not sum(hmac.compare_digest(given.encode("latin-1"), key) for key in self._api_keys):
            raise Unauthorized("an API key is needed in X-API-Key or as a bearer token")
