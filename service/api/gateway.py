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

from service.api import problems
from service.api.exchange import EXCHANGE_KEY, Exchange
from service.errors import Cancelled, GlimpseError, Unauthorized
from service.metrics import Metrics

logger = logging.getLogger("glimpse.api")

OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""What probes and Prometheus ask for needs no key."""


class Gateway:
    """Wraps the application; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        plain: Mapping[tuple[str, str], ASGIApp],
        metrics: Metrics,
        api_keys: Sequence[str],
    ) -> None:
        self._app = app
        self._plain = plain
        self._metrics = metrics
        self._api_keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one exchange from its head to its last byte."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope[EXCHANGE_KEY] = Exchange(scope, receive)
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", exchange.request_id.encode("latin-1")),
                    (b"server-timing", exchange.server_timing().encode("latin-1")),
                ]
            await send(message)

        endpoint = self._plain.get((scope["method"], scope["path"]), self._app)
        try:
            if self._api_keys and scope["path"] not in OPEN_PATHS:
                self._authorise(exchange)
            await endpoint(scope, receive, send_marked)
        except Cancelled as error:
            # Nobody reads this answer, but the access log and the metrics do.
            status = problems.status_of(error)
        except GlimpseError as error:
            if status:
                raise
            await problems.problem(error).send(send_marked)
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            if status:
                raise
            failed = problems.document(500, GlimpseError.code, "something went wrong on our side; see the log")
            await problems.answer(failed).send(send_marked)
        finally:
            self._observe(exchange, status)

    def _authorise(self, exchange: Exchange) -> None:
        scheme, _, token = exchange.header(b"authorization").partition(" ")
        given = exchange.header(b"x-api-key") or (token if scheme.lower() == "bearer" else "")
        # Every key is compared, each in constant time: how long it takes tells nothing.
        if not sum(hmac.compare_digest(given.encode("latin-1"), key) for key in self._api_keys):
            raise Unauthorized("an API key is needed in X-API-Key or as a bearer token")

    def _observe(self, exchange: Exchange, status: int) -> None:
        route = exchange.route or "other"
        seconds = time.monotonic() - exchange.began_at
        self._metrics.observe_exchange(route, exchange.model, status, seconds, exchange.seconds)
