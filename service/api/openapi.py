"""The OpenAPI document: FastAPI's, of its own routes, completed by the endpoints that it does not serve."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from service.api.endpoint import Endpoint
from service.api.problems import RESPONSES

SECURITY_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
"""The two ways to send an API key."""
TIMEOUT_PARAMETER = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds until the deadline; the service's limit is the default and the maximum",
    "schema": {"type": "integer", "minimum": 1},
}
"""Parameter of every endpoint."""
HEADERS = {
    "X-Request-ID": "The request's identifier: the client's, or a new one",
    "Server-Timing": "Milliseconds spent on decode, queue, compute and encode",
}
"""Headers of every response, with their descriptions."""
PROBLEMS = {
    400: "`undecodable`: the body is empty, damaged, or not of a kind that is read here",
    401: "`unauthorized`: a key is needed",
    404: "`unknown-model` or `unknown-task`",
    413: "`too-large`: more bytes, pixels or memory than one request may have",
    415: "`unsupported-type`: the content type is not supported",
    422: "`invalid-parameter`: `parameter` names it, `detail` says what is allowed",
    429: "`overloaded`: try again after the number of seconds in `Retry-After`",
    503: "`not-ready`: starting, shutting down or recovering; try again after the number of seconds in `Retry-After`",
    504: "`deadline-exceeded`: the response was not ready in time",
}
BODY_PROBLEMS = {400, 415}
"""Statuses that only endpoints with a request body have."""
PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "The scheme, `Bearer`"},
    429: {"Retry-After": "Seconds"},
    503: {"Retry-After": "Seconds"},
}
SCHEMA = "#/components/schemas/{model}"
"""Reference to the schema of a model within the document."""


def complete(
    document: dict[str, Any], endpoints: Iterable[Endpoint[Any]], *, open_paths: Collection[str], needs_key: bool
) -> dict[str, Any]:
    """Add endpoints, the headers of every response, and authentication to a document, and return it.

    Args:
        document: FastAPI's document, which is modified.
        endpoints: the endpoints that FastAPI does not serve.
        open_paths: the paths that need no API key.
        needs_key: whether the other paths need one.
    """
    endpoints = list(endpoints)
    document.setdefault("components", {}).setdefault("schemas", {}).update(_schemas(endpoints))
    for endpoint in endpoints:
        document["paths"].setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                response["headers"] = _headers(HEADERS) | response.get("headers", {})
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
                "headers": _headers(documentation.headers),
                "content": {media_type: _content(media_type, endpoint) for media_type in documentation.media_types},
            },
            **{
                str(status): {
                    "description": description,
                    "headers": _headers(PROBLEM_HEADERS.get(status, {})),
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
    """Describe a response of a media type: JSON by its model, anything else only by its type."""
    if media_type != "application/json":
        return {}
    return {"schema": {"$ref": SCHEMA.format(model=endpoint.documentation.answer.__name__)}}


def _schemas(endpoints: Iterable[Endpoint[Any]]) -> dict[str, Any]:
    """Return the schemas of the JSON responses, by the names that the operations refer to."""
    answers = {endpoint.documentation.answer for endpoint in endpoints}
    _, found = models_json_schema([(model, "serialization") for model in answers], ref_template=SCHEMA)
    return dict(found["$defs"])


def _headers(described: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": says, "schema": {"type": "string"}} for name, says in described.items()}
