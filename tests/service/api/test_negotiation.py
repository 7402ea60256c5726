"""Content negotiation: the query, then Accept, then the default."""

import pytest

from service.api.negotiation import chosen

FORMATS = {"image/png": "png", "application/json": "json", "text/event-stream": "sse"}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "gif"),
        ("*/*", "gif"),
        ("image/jpeg", "gif"),
        ("application/json", "json"),
        ("Application/JSON", "json"),
        ("application/json; charset=utf-8", "json"),
        ("image/jpeg, application/json", "json"),
        ("application/json;q=0.2, text/event-stream;q=0.7", "sse"),
        ("application/json; q=0.2, text/event-stream", "sse"),
        ("image/png, application/json", "png"),
        ("application/json;q=0", "gif"),
        ("application/json;q=high, image/png;q=0.1", "png"),
        (",;q=,,", "gif"),
    ],
)
def test_accept_decides_where_nothing_was_named(accept: str, expected: str) -> None:
    """By weight, then by order; what is not known or not wanted does not count."""
    assert chosen(None, accept, FORMATS, "gif") == expected


def test_what_the_query_names_wins() -> None:
    """Whatever Accept says."""
    assert chosen("npz", "application/json", FORMATS, "gif") == "npz"
