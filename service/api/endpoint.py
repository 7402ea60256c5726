"""An endpoint: a handler, the model of its query, and what the OpenAPI document says of it.

FastAPI's routing, dependencies and response classes cost more on a request than the models here do; these endpoints do
without, and are documented and validated by the same Pydantic models all the same.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from reprlib import Repr
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.types import Send

from service.api.answer import Answer
from service.api.exchange import Exchange
from service.api.problems import RESPONSES
from service.errors import InvalidParameter

Query = TypeVar("Query", bound=BaseModel)

CACHED_QUERIES = 1024
LONGEST_CACHED_QUERY = 256
"""In bytes. What an endpoint remembers of its clients is bounded by this times the above."""
LONGEST_QUERY = 8192
"""In bytes; a longer one takes long to unescape, and says nothing that a shorter one could not."""
LONGEST_SHOWN_VALUE = 80
"""In characters."""
ERRORS = (401, 404, 422, 429, 503, 504)
BODY_ERRORS = (400, 413, 415)
"""Of endpoints that read a body, besides."""

TIMEOUT_PARAMETER = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds until the answer is due; by default, and at most, the service's limit",
    "schema": {"type": "integer", "minimum": 1},
}
"""Of every endpoint."""
HEADERS = {
    "X-Request-ID": "What the request is called: as the client says, or something new",
    "Server-Timing": "Milliseconds spent on decode, queue, compute and encode",
}
"""Of every answer."""
SCHEMA = "#/components/schemas/{model}"
"""Where the OpenAPI document describes a model."""

_brief = Repr()
_brief.maxlist = _brief.maxdict = 10
_brief.maxlevel = 3
_brief.maxstring = _brief.maxother = 2 * LONGEST_SHOWN_VALUE


@dataclass(frozen=True, slots=True)
class Documentation:
    """What the OpenAPI document says of an endpoint, beyond its parameters."""

    summary: str
    description: str
    tag: str
    media_types: tuple[str, ...]
    """Of a good answer."""
    answer: type[BaseModel]
    """What it is as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those of a good answer, beyond those of every answer, and what they say."""
    request_body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Query]):
    """What answers one method and path."""

    method: str
    path: str
    query: type[Query]
    handler: Callable[[Exchange, Query, Send], Awaitable[Answer | None]]
    """Answers, or sends its answer itself and answers None."""
    documentation: Documentation
    _parse: Callable[[bytes], Query] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The same query string is asked for again and again; what is parsed is immutable.
        remembered = lru_cache(CACHED_QUERIES)(self._parse_query)

        def parse(query_string: bytes) -> Query:
            is_short = len(query_string) <= LONGEST_CACHED_QUERY
            return remembered(query_string) if is_short else self._parse_query(query_string)

        object.__setattr__(self, "_parse", parse)

    async def __call__(self, exchange: Exchange, query_string: bytes, send: Send) -> Answer | None:
        """Parse the query, call the handler; its answer, or None if it has sent that itself."""
        exchange.begin()
        try:
            return await self.handler(exchange, self._parse(query_string), send)
        except asyncio.CancelledError:
            exchange.explain()
            raise
        finally:
            exchange.end()

    def _parse_query(self, query_string: bytes) -> Query:
        if len(query_string) > LONGEST_QUERY:
            raise InvalidParameter("query", f"must be at most {LONGEST_QUERY} bytes, not {len(query_string)}")
        return validated(self.query, _values(query_string.decode("latin-1")))

    def openapi(self) -> dict[str, Any]:
        """This endpoint's operation object."""
        schema = self.query.model_json_schema()
        documentation = self.documentation
        operation: dict[str, Any] = {
            "summary": documentation.summary,
            "description": documentation.description,
            "tags": [documentation.tag],
            "operationId": f"{self.method.lower()}{self.path.replace('/', '_').replace('-', '_')}",
            "parameters": [
                {
                    "name": name,
                    "in": "query",
                    "required": name in schema.get("required", ()),
                    "description": described.get("description", ""),
                    "schema": {key: value for key, value in described.items() if key != "description"},
                }
                for name, described in schema.get("properties", {}).items()
            ]
            + [TIMEOUT_PARAMETER],
            "responses": {
                "200": {
                    "description": "The answer",
                    "headers": _headers({**HEADERS, **documentation.headers}),
                    "content": {media_type: self._content(media_type) for media_type in documentation.media_types},
                },
                **{
                    str(status): {"description": "A problem", "headers": _headers(HEADERS), "content": RESPONSES}
                    for status in self._errors()
                },
            },
        }
        if documentation.request_body is not None:
            operation["requestBody"] = {"required": True, "content": dict(documentation.request_body)}
        return operation

    def _content(self, media_type: str) -> dict[str, Any]:
        """The media type object of a good answer."""
        if media_type != "application/json":
            return {}
        return {"schema": {"$ref": SCHEMA.format(model=self.documentation.answer.__name__)}}

    def _errors(self) -> list[int]:
        """The statuses of every endpoint's problems, and of those with a body."""
        return sorted(ERRORS if self.documentation.request_body is None else ERRORS + BODY_ERRORS)


def schemas(endpoints: Iterable[Endpoint[Any]]) -> dict[str, Any]:
    """What the endpoints answer as JSON, by the names that their operation objects refer to."""
    answers = {endpoint.documentation.answer for endpoint in endpoints}
    _, found = models_json_schema([(model, "serialization") for model in answers], ref_template=SCHEMA)
    return dict(found["$defs"])


def _headers(described: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": says, "schema": {"type": "string"}} for name, says in described.items()}


def _values(query: str) -> dict[str, str]:
    """What a query string says, by name; of a name that comes again, the last."""
    if "%" in query or "+" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    # The same, where nothing is escaped, at a third of the cost.
    parts = [part.partition("=") for part in query.split("&") if part]
    return {name: value for name, _, value in parts}


def validated(model: type[Query], values: Mapping[str, Any]) -> Query:
    """Values as a model.

    Raises:
        InvalidParameter: the first value that is wrong, by name, with what it was and what it may be.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(model, error) from error


def invalid(model: type[BaseModel], error: ValidationError) -> InvalidParameter:
    """A validation error as the error of its first parameter."""
    first = error.errors(include_url=False)[0]
    kind, location, given = first["type"], first["loc"], first["input"]
    where = ".".join(map(str, location))[:LONGEST_SHOWN_VALUE] or "body"
    if kind == "missing":
        return InvalidParameter(where, "is missing")
    if kind == "extra_forbidden":
        return InvalidParameter(where, f"is not a known field; known fields: {', '.join(model.model_fields)}")
    allowed = _allowed(_described(model, location)) or f"is wrong: {first['msg'][0].lower()}{first['msg'][1:]}"
    shown = f"of {len(given)}" if kind in {"too_short", "too_long"} else _shown(given)
    return InvalidParameter(where, f"{allowed}, not {shown}")


def _shown(value: object) -> str:
    """A client's value, or how it begins; of a large one no more is looked at. Those of JSON are called as there."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    shown = _brief.repr(value)
    return shown if len(shown) < LONGEST_SHOWN_VALUE else f"{shown[: LONGEST_SHOWN_VALUE - 3]}..."


@cache
def _properties(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties


def _described(model: type[BaseModel], location: tuple[int | str, ...]) -> dict[str, Any]:
    """What a model's schema says of a place in it, a parameter or an item of its lists; empty where it says nothing."""
    described: dict[str, Any] = _properties(model).get(str(location[0]), {}) if location else {}
    for _ in location[1:]:
        described = described.get("items", {})
    return described


def _allowed(described: Mapping[str, Any]) -> str:
    """What a number, a choice, a truth value or a list may be, read off its schema; empty for anything else."""
    options = described.get("anyOf", [described])
    if not (option := next((o for o in options if o.get("type") != "null"), None)):
        return ""
    if "enum" in option:
        return f"must be one of {', '.join(map(str, option['enum']))}"
    kind = {"integer": "a whole number", "number": "a number"}.get(option.get("type", ""))
    if kind and "minimum" in option and "maximum" in option:
        return f"must be {kind} in {option['minimum']}..{option['maximum']}"
    if "minItems" in option and "maxItems" in option:
        few, most = option["minItems"], option["maxItems"]
        return f"must be a list of {few if few == most else f'{few}..{most}'} items"
    return "must be true or false" if option.get("type") == "boolean" else ""
