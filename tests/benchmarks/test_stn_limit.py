"""The limit of the STN is measured on the same work as the service."""

from pathlib import Path

import pytest

from benchmarks.stn_limit import StnLimit, stn_processes


def test_limit_of_the_stn_is_measured_in_processes_that_begin_together(repository: Path) -> None:
    """The times of a picture's stages add up to its total time."""
    with stn_processes(repository, 1) as measure:
        limit = StnLimit.mean([measure(0.1), measure(0.1)])

    stages = (limit.decode_seconds, limit.model_seconds, limit.encode_seconds)
    assert all(seconds > 0 for seconds in stages)
    assert 1 / limit.rate == pytest.approx(sum(stages), rel=0.2)
