"""Problem documents (RFC 9457): the responses to errors, and the one table of their statuses."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from service import errors
from service.api.answer import Answer

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
MAX_DETAIL_CHARACTERS = 1000
"""Longest detail of a problem document; the rest is cut off."""

STATUSES: Mapping[type[errors.GlimpseError], int] = {
    errors.UndecodableInput: 400,
    errors.TooLarge: 413,
    errors.UnsupportedType: 415,
    errors.InvalidParameter: 422,
    errors.UnknownModel: 404,
    errors.UnknownTask: 404,
    errors.Unauthorized: 401,
    errors.ClientError: 400,
    errors.Overloaded: 429,
    errors.NotReady: 503,
    errors.DeadlineExceeded: 504,
    errors.StreamTooSlow: 503,
    errors.Cancelled: CLIENT_CLOSED_REQUEST,
    errors.GlimpseError: 500,
}

TITLES = {CLIENT_CLOSED_REQUEST: "Client Closed Request"}

RESPONSES: dict[str, Any] = {
    MEDIA_TYPE: {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "code"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "code": {"type": "string", "description": "Stable and machine-readable"},
                "parameter": {"type": "string", "description": "The invalid parameter, if the status is 422"},
            },
        }
    }
}
"""The media type of every error and its schema, for the OpenAPI document."""


def status_of(error: errors.GlimpseError) -> int:
    """Return the status of an error: that of its class, or of the nearest ancestor in the table."""
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)


def document(status: int, code: str, detail: str, **extra: Any) -> dict[str, Any]:
    """Return a problem document. A long detail is cut, as it may repeat what a client sent."""
    if len(detail) > MAX_DETAIL_CHARACTERS:
        detail = f"{detail[:MAX_DETAIL_CHARACTERS]}..."
    title = TITLES.get(status) or HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **extra}


def problem(error: errors.GlimpseError) -> Answer:
    """Return the response to an error."""
    status = status_of(error)
    extra = {"parameter": error.parameter} if isinstance(error, errors.InvalidParameter) else {}
    headers = {}
    if isinstance(error, errors.TooLarge):
        headers["connection"] = "close"  # so that the rest of the body need not be read
    if isinstance(error, errors.Overloaded | errors.NotReady):
        headers["retry-after"] = "1"  # second, the shortest that the header can name; most queues are empty by then
    if isinstance(error, errors.Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return answer(document(status, error.code, str(error), **extra), headers)


def answer(problem_document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    """Return a problem document as a response."""
    body = json.dumps(problem_document).encode()
    return Answer(body, MEDIA_TYPE, problem_document["status"], dict(headers or {}))


BUG = answer(
    document(
        500,
        errors.GlimpseError.code,
        "internal error; see the service's log for this X-Request-ID",
    )
)
"""The response to an unexpected error."""
