"""Endpoints: what they remember of queries, what they repeat of values, and what they document."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from starlette.types import Send

from service.api.answer import Answer
from service.api.endpoint import LONGEST_CACHED_QUERY, LONGEST_QUERY, Documentation, Endpoint, _values, validated
from service.api.exchange import Exchange
from service.errors import InvalidParameter


class Query(BaseModel):
    """A query that is a name."""

    model_config = ConfigDict(frozen=True)

    name: str


class Body(BaseModel):
    """A body that is numbers."""

    numbers: list[int]


async def unasked(_exchange: Exchange, _query: Query, _send: Send) -> Answer | None:
    """Nobody calls it."""
    return None


def endpoint() -> Endpoint[Query]:
    documentation = Documentation(summary="", description="", tag="", media_types=(), answer=Body)
    return Endpoint("GET", "/", Query, unasked, documentation)


@pytest.mark.parametrize(("size", "is_remembered"), [(LONGEST_CACHED_QUERY, True), (LONGEST_CACHED_QUERY + 1, False)])
def test_query_is_remembered_unless_it_is_long(size: int, *, is_remembered: bool) -> None:
    """The same short query is parsed once; a long one is parsed every time, and kept by nobody."""
    asked = endpoint()
    query = b"name=".ljust(size, b"x")

    first, again = asked._parse(query), asked._parse(query)

    assert first == again == Query(name="x" * (size - 5))
    assert (first is again) is is_remembered


def test_query_that_is_too_long_is_refused() -> None:
    """Before it is looked at."""
    asked = endpoint()
    assert asked._parse(b"name=".ljust(LONGEST_QUERY, b"x")).name

    with pytest.raises(InvalidParameter, match="query must be at most 8192 bytes, not 8193"):
        asked._parse(b"name=".ljust(LONGEST_QUERY + 1, b"x"))


@given(st.text(st.sampled_from("ab=&;+%41 é"), max_size=20))
def test_query_says_what_urllib_reads(query: str) -> None:
    """Whether it is escaped or not: blank values count, of a name that comes again the last one does."""
    assert _values(query) == dict(parse_qsl(query, keep_blank_values=True))


def test_of_a_large_wrong_value_only_the_beginning_is_looked_at() -> None:
    """A refusal costs the same for a list of ten and for one of a hundred thousand."""
    looked_at: list[None] = []

    class Loud:
        def __repr__(self) -> str:
            looked_at.append(None)
            return "loud"

    with pytest.raises(InvalidParameter, match=r"not \{'a': \[(loud, ){10}\.\.\.\]\}$") as caught:
        validated(Body, {"numbers": {"a": [Loud()] * 100_000}})

    assert len(looked_at) < 50
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["", "short", "x" * 70, "x" * 100_000])
def test_wrong_text_is_repeated_as_far_as_it_fits(value: str) -> None:
    """A short value is shown as it is, a long one by how it begins."""
    with pytest.raises(InvalidParameter) as caught:
        validated(Body, {"numbers": value})

    _, _, shown = str(caught.value).partition(", not ")
    assert shown == (repr(value) if len(value) <= 70 else "'" + "x" * 76 + "...")
