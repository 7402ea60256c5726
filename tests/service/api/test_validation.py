"""Validation: how much of a client's value an error repeats."""

import pytest
from pydantic import BaseModel

from service.api.validation import validated
from service.errors import InvalidParameter


class Query(BaseModel):
    """A query that is a name."""

    name: str


class Body(BaseModel):
    """A body that is numbers."""

    numbers: list[int]


def test_of_a_large_wrong_value_only_the_beginning_is_looked_at() -> None:
    """An error costs the same for a list of ten items as for one of a hundred thousand."""
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
    """A short value is shown as it is, of a long one only the beginning."""
    with pytest.raises(InvalidParameter) as caught:
        validated(Body, {"numbers": value})

    _, _, shown = str(caught.value).partition(", not ")
    assert shown == (repr(value) if len(value) <= 70 else "'" + "x" * 76 + "...")
