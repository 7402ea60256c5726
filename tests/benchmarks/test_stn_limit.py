"""The limit of the STN does the work that the service is to be compared by."""

from pathlib import Path

import pytest

from benchmarks.stn_limit import StnLimit, stn_processes


def test_limit_of_the_stn_is_measured_in_processes_that_begin_together(repository: Path) -> None:
    """What a picture costs in each stage adds up to what it costs in all."""
    with stn_processes(repository, 1) as measure:
        limit = StnLimit.mean([measure(0.1), measure(0.1)])

    stages = (limit.decode_seconds, limit.model_seconds, limit.encode_seconds)
    assert all(seconds > 0 for seconds in stages)
    assert 1 / limit.rate == pytest.approx(sum(stages), rel=0.2)
