"""Drawings as they are encoded: how much memory it takes."""

import tracemalloc

import numpy as np
import pytest

from export.manifest import Manifest
from service.api.catalogue import ServedModel
from service.api.draw import Generation
from service.engine.request import Request
from service.schemas.draw import GenerateQuery

MANIFEST = Manifest(
    name="draw", version=1, family="draw", config={"write_filters": 5, "read_filters": 3}, graphs={}, metrics={},
    training={}, producer={}, files={},
)  # fmt: skip
MODEL = ServedModel(MANIFEST, engines={})


def finished(*, samples: int, steps: int, scale: int, answer_format: str) -> Generation:
    """Return work for black pictures, with all steps computed."""
    request = Request({}, samples, steps, deadline=9.0)
    windows = np.tile(np.array([14, 14, 2, 1, 1], np.float32), (steps, samples, 1))
    request.outputs |= {"pictures": np.zeros((steps, samples, 28, 28), np.uint8), "write_windows": windows}
    query = GenerateQuery(steps=steps, count=samples, scale=scale)
    return Generation(query, MODEL, request, seed=1, answer_format=answer_format, digit=7)


@pytest.mark.parametrize(("name", "most"), [("gif", 0.5), ("apng", 0.5), ("webp", 0.5), ("png", 2.5)])
def test_frames_are_not_all_in_memory_at_once(name: str, most: float) -> None:
    """An animation needs less memory than all its frames; a film strip is there twice, as the encoder has a copy."""
    samples, steps, scale = 16, 16, 8
    drawn = finished(samples=samples, steps=steps, scale=scale, answer_format=name)

    tracemalloc.start()
    drawn.answer()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < most * samples * steps * (28 * scale) ** 2 * 3
