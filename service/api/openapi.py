"""The OpenAPI document: what FastAPI says of its own routes, and beside it the endpoints that it does not serve."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from service.api.endpoint import Endpoint
from service.api.problems import RESPONSES

SECURITY_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
"""The two ways to give a key."""
TIMEOUT_PARAMETER = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds until the answer is due; by default, and at most, the service's limit",
    "schema": {"type": "integer", "minimum": 1},
}
"""A parameter of every endpoint."""
HEADERS = {
    "X-Request-ID": "The request's identifier: the client's, or a new one",
    "Server-Timing": "Milliseconds spent on decode, queue, compute and encode",
}
"""Headers of every response, and what they say."""
PROBLEMS = {
    400: "`undecodable`: the body is damaged, or none of the formats that are read",
    401: "`unauthorized`: a key is needed",
    404: "`unknown-model` or `unknown-task`",
    413: "`too-large`: more bytes, pixels or memory than one request may have",
    415: "`unsupported-type`: a content type that is not read",
    422: "`invalid-parameter`: `parameter` names it, `detail` says what it may be",
    429: "`overloaded`: try again, after the seconds in `Retry-After`",
    503: "`not-ready`: starting or shutting down; try again, after the seconds in `Retry-After`",
    504: "`deadline-exceeded`: the answer was not ready in time",
}
BODY_PROBLEMS = {400, 415}
"""Problems of endpoints that read a body alone."""
PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "The scheme, `Bearer`"},
    429: {"Retry-After": "Seconds"},
    503: {"Retry-After": "Seconds"},
}
SCHEMA = "#/components/schemas/{model}"
"""Where the document describes a model."""


def complete(
    document: dict[str, Any], endpoints: Iterable[Endpoint[Any]], *, open_paths: Collection[str], needs_key: bool
) -> dict[str, Any]:
    """Add endpoints to a document, and the keys that the service asks for.

    Args:
        document: FastAPI's; it is changed.
        endpoints: those that FastAPI does not serve.
        open_paths: the paths that need no key.
        needs_key: whether the others do.
    """
    endpoints = list(endpoints)
    document.setdefault("components", {}).setdefault("schemas", {}).update(_schemas(endpoints))
    for endpoint in endpoints:
        document["paths"].setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    if needs_key:
        document["components"]["securitySchemes"] = SECURITY_SCHEMES
        document["security"] = [{scheme: []} for scheme in SECURITY_SCHEMES]
        for path in open_paths & document["paths"].keys():
            document["paths"][path]["get"]["security"] = []
    return document


def _operation(endpoint: Endpoint[Any]) -> dict[str, Any]:
    schema = endpoint.query.model_json_schema()
    documentation = endpoint.documentation
    has_body = documentation.request_body is not None
    operation: dict[str, Any] = {
        "summary": documentation.summary,
        "description": documentation.description,
        "tags": [documentation.tag],
        "operationId": f"{endpoint.method.lower()}{endpoint.path.replace('/', '_').replace('-', '_')}",
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
                "description": documentation.summary,
                "headers": _headers({**HEADERS, **documentation.headers}),
                "content": {media_type: _content(media_type, endpoint) for media_type in documentation.media_types},
            },
            **{
                str(status): {
                    "description": description,
                    "headers": _headers({**HEADERS, **PROBLEM_HEADERS.get(status, {})}),
                    "content": RESPONSES,
                }
                for status, description in PROBLEMS.items()
                if has_body or status not in BODY_PROBLEMS
            },
        },
    }
    if has_body:
        operation["requestBody"] = {"required": True, "content": documentation.request_body}
    return operation


def _content(media_type: str, endpoint: Endpoint[Any]) -> dict[str, Any]:
    """Describe a response of a media type: JSON by its model, anything else by its type alone."""
    if media_type != "application/json":
        return {}
    return {"schema": {"$ref": SCHEMA.format(model=endpoint.documentation.answer.__name__)}}


def _schemas(endpoints: Iterable[Endpoint[Any]]) -> dict[str, Any]:
    """Describe what the endpoints return as JSON, by the names that their operations refer to."""
    answers = {endpoint.documentation.answer for endpoint in endpoints}
    _, found = models_json_schema([(model, "serialization") for model in answers], ref_template=SCHEMA)
    return dict(found["$defs"])


def _headers(described: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": says, "schema": {"type": "string"}} for name, says in described.items()}
