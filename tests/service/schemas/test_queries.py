"""Queries of `/stn` and `/draw`: the contract's defaults and ranges, as strings from a URL."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from service.schemas.draw import GenerateQuery, ReconstructQuery
from service.schemas.stn import RectifyQuery

DRAWING: dict[str, Any] = {
    "version": None, "steps": 32, "seed": None, "format": None, "scale": 4, "attention": True, "fps": 12,
}  # fmt: skip


@pytest.mark.parametrize(
    ("query", "defaults"),
    [
        (RectifyQuery, {"model": "stn-affine", "version": None, "size": 28, "view": "rectified", "format": None}),
        (GenerateQuery, {**DRAWING, "count": 1, "digit": None, "temperature": 1.0}),
        (ReconstructQuery, DRAWING),
    ],
)
def test_defaults_are_the_contracts(query: type[BaseModel], defaults: dict[str, Any]) -> None:
    """Omitted parameters have these defaults, and there are no other parameters."""
    assert query().model_dump() == defaults


@pytest.mark.parametrize(
    ("query", "name", "allowed", "refused"),
    [
        (RectifyQuery, "size", ["28", "1024"], ["27", "1025", "28.5", ""]),
        (RectifyQuery, "view", ["rectified", "overlay", "strip"], ["Overlay", ""]),
        (RectifyQuery, "format", ["png", "webp", "json", "npz"], ["jpeg", "gif"]),
        (GenerateQuery, "steps", ["1", "64"], ["0", "65", "eight"]),
        (GenerateQuery, "count", ["1", "64"], ["0", "65"]),
        (GenerateQuery, "seed", ["0", "9007199254740991"], ["-1", "9007199254740992"]),
        (GenerateQuery, "digit", ["0", "9"], ["-1", "10"]),
        (GenerateQuery, "temperature", ["0", "2", "0.75"], ["-0.1", "2.01", "nan", "inf"]),
        (GenerateQuery, "format", ["gif", "apng", "webp", "png", "final", "json", "npz", "sse"], ["mp4"]),
        (GenerateQuery, "scale", ["1", "16"], ["0", "17"]),
        (GenerateQuery, "attention", ["true", "false", "1", "0"], ["perhaps", "2"]),
        (GenerateQuery, "fps", ["1", "60"], ["0", "61"]),
        (GenerateQuery, "version", ["1"], ["0", "-1"]),
    ],
)
def test_range_of_every_parameter(query: type[BaseModel], name: str, allowed: list[str], refused: list[str]) -> None:
    """The bounds are allowed, and values beyond are not."""
    for value in allowed:
        query.model_validate({name: value})
    for value in refused:
        with pytest.raises(ValidationError, match=name):
            query.model_validate({name: value})


def test_queries_are_immutable() -> None:
    """Parsed queries are cached and shared between requests."""
    with pytest.raises(ValidationError, match="frozen"):
        GenerateQuery().steps = 8  # type: ignore[misc]
