"""Endpoints: a handler, the Pydantic model of its query, and its documentation.

FastAPI's routing, dependencies and response classes cost more per request than inference does. These endpoints bypass
them, but are validated and documented by Pydantic models in the same way.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.types import Send

from service.api.answer import Answer
from service.api.exchange import Exchange
from service.api.validation import validated
from service.errors import InvalidParameter

Query = TypeVar("Query", bound=BaseModel)

CACHED_QUERIES = 1024
MAX_CACHED_BYTES = 256
"""Longest query that is cached; together with `CACHED_QUERIES` this bounds the memory of an endpoint's cache."""
MAX_QUERY_BYTES = 8192
"""Longest query that is parsed; a longer one takes long to unescape, and no valid query needs as much."""


@dataclass(frozen=True, slots=True)
class Documentation:
    """An endpoint's part of the OpenAPI document, except its parameters; see `service.api.openapi`."""

    summary: str
    description: str
    tag: str
    media_types: tuple[str, ...]
    """Media types of a successful response."""
    answer: type[BaseModel]
    """Model of a successful response as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of a successful response, beyond those of every response, with their descriptions."""
    request_body: Mapping[str, Any] | None = None


class Endpoint(Generic[Query]):
    """Serves one method and path."""

    def __init__(
        self,
        method: str,
        path: str,
        query: type[Query],
        handler: Callable[[Exchange, Query, Send], Awaitable[Answer | None]],
        documentation: Documentation,
    ) -> None:
        """`handler`: returns the response, or sends it itself and returns None."""
        self.method = method
        self.path = path
        self.query = query
        self.documentation = documentation
        self._handler = handler
        self._parse = parser(query)

    async def __call__(self, exchange: Exchange, query_string: bytes, send: Send) -> Answer | None:
        """Parse the query and call the handler; return its response, or None if the handler has sent it."""
        try:
            with exchange.interruptible():
                return await self._handler(exchange, self._parse(query_string), send)
        finally:
            exchange.release()


def parser(model: type[Query]) -> Callable[[bytes], Query]:
    """Return a function that parses query strings, with a cache for short ones; the results are immutable."""

    def parse(query_string: bytes) -> Query:
        if len(query_string) > MAX_QUERY_BYTES:
            raise InvalidParameter("query", f"must be at most {MAX_QUERY_BYTES} bytes, not {len(query_string)}")
        return validated(model, _values(query_string.decode("latin-1")))

    remembered = lru_cache(CACHED_QUERIES)(parse)
    return lambda query: remembered(query) if len(query) <= MAX_CACHED_BYTES else parse(query)


def _values(query: str) -> dict[str, str]:
    """Return the values of a query string by name; the last one wins if a name is repeated."""
    if "%" in query or "+" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    # The same for a query without escapes, at a third of the cost.
    parts = [part.partition("=") for part in query.split("&") if part]
    return {name: value for name, _, value in parts}
