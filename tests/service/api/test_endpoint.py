"""Queries: how they are parsed, and which are cached."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from service.api.endpoint import MAX_CACHED_BYTES, MAX_QUERY_BYTES, _values, parser
from service.errors import InvalidParameter


class Query(BaseModel):
    """A query that is a name."""

    model_config = ConfigDict(frozen=True)

    name: str


@pytest.mark.parametrize(("size", "is_remembered"), [(MAX_CACHED_BYTES, True), (MAX_CACHED_BYTES + 1, False)])
def test_query_is_remembered_unless_it_is_long(size: int, *, is_remembered: bool) -> None:
    """A short query is parsed once; a long one is parsed every time, and not kept in memory."""
    parse = parser(Query)
    query = b"name=".ljust(size, b"x")

    first, again = parse(query), parse(query)

    assert first == again == Query(name="x" * (size - 5))
    assert (first is again) is is_remembered


def test_query_that_is_too_long_is_refused() -> None:
    """It is refused before it is parsed."""
    parse = parser(Query)
    assert parse(b"name=".ljust(MAX_QUERY_BYTES, b"x")).name

    with pytest.raises(InvalidParameter, match="query must be at most 8192 bytes, not 8193"):
        parse(b"name=".ljust(MAX_QUERY_BYTES + 1, b"x"))


@given(st.text(st.sampled_from("ab=&;+%41 é"), max_size=20))
def test_query_says_what_urllib_reads(query: str) -> None:
    """Escaped or not, blank values count, and the last value wins if a name is repeated."""
    assert _values(query) == dict(parse_qsl(query, keep_blank_values=True))
