"""Content negotiation: the query, then Accept, then the default."""

import pytest

from service.api.negotiation import MAX_ACCEPT_CHARACTERS, chosen

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
        ("image/*", "png"),
        ("application/*, image/png;q=0.9", "json"),
        ("application/*;Q=0.1, image/png;q=0.9", "png"),
        ("application/json;q=0.5, */*", "png"),
        ("text/html, */*;q=0.8", "png"),
        ("image/*, image/png;q=0, application/json;q=0.1", "json"),
        ("application/json".rjust(MAX_ACCEPT_CHARACTERS, ","), "json"),
        ("application/json".rjust(MAX_ACCEPT_CHARACTERS + 1, ","), "gif"),
    ],
)
def test_accept_decides_where_nothing_was_named(accept: str, expected: str) -> None:
    """Weight decides, then order; unknown and unwanted types are ignored, and so is a header that is too long."""
    assert chosen(None, accept, FORMATS, "gif") == expected


@pytest.mark.parametrize("accept", ["*/*", "image/*", "text/html, image/webp, */*;q=0.8", "*/*;q=0.1", "a/b"])
def test_default_is_preferred_among_equals(accept: str) -> None:
    """A browser, for example, accepts anything."""
    assert chosen(None, accept, {"image/png": "png", "image/gif": "gif"}, "gif") == "gif"


def test_what_the_query_names_wins() -> None:
    """`Accept` does not matter then."""
    assert chosen("npz", "application/json", FORMATS, "gif") == "npz"
