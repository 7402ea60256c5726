"""Baselines do the work that they are to be compared by."""

import asyncio
from pathlib import Path

import httpx
import pytest

from benchmarks import plain, workloads
from benchmarks.baselines import StnLimit, newest, repeat, stn_processes
from benchmarks.sequences import subject
from service.errors import ArtifactRejected
from service.media.decoding import decode


def test_limit_of_the_stn_is_measured_in_processes_that_begin_together(repository: Path) -> None:
    """What a picture costs in each stage adds up to what it costs in all."""
    with stn_processes(repository, 1) as measure:
        limit = StnLimit.mean([measure(0.1), measure(0.1)])

    stages = (limit.decode_seconds, limit.model_seconds, limit.encode_seconds)
    assert all(seconds > 0 for seconds in stages)
    assert 1 / limit.rate == pytest.approx(sum(stages), rel=0.2)


def test_plain_application_answers_as_the_service_does(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG of the rectified digit, with its class."""
    monkeypatch.setenv("GLIMPSE_MODELS", str(repository))
    (call,) = workloads.stn(1)

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(plain.create()), base_url="http://plain") as client:
            head = {"content-type": call.content_type}
            return await client.post(call.target, content=call.body, headers=head), await client.get("/readyz")

    answer, ready = asyncio.run(ask())

    assert ready.status_code == 200
    assert answer.status_code == 200
    assert decode(answer.content, answer.headers["content-type"]).grey.shape == (28, 28)
    assert int(answer.headers["x-label"]) in range(10)


@pytest.mark.parametrize("name", ["draw", "ntm"])
def test_subject_asks_what_the_workload_asks(repository: Path, name: str) -> None:
    """Its sequences have the workload's lengths, or one step less."""
    found = subject(name, repository)

    for length, requests in found.examples.items():
        assert {request.steps for request in requests} <= {length, length - 1}
        assert set(requests[0].inputs) == {spec.name for spec in found.runtime.signature.inputs}


def test_newest_version_is_the_largest_number(tmp_path: Path) -> None:
    """10 comes after 9; a model that is not there is named."""
    for version in ("9", "10"):
        (tmp_path / "draw" / version).mkdir(parents=True)
        (tmp_path / "draw" / version / "manifest.json").touch()

    assert newest(tmp_path, "draw") == tmp_path / "draw" / "10"
    with pytest.raises(ArtifactRejected, match="holds no stn-affine"):
        newest(tmp_path, "stn-affine")


def test_work_is_repeated_for_its_time_and_at_least_once() -> None:
    """The number of times is that of the calls."""
    calls: list[None] = []

    assert repeat(lambda: calls.append(None), 0.0)[0] == len(calls) == 1
