"""`glimpse bench` from its arguments to its files."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import scenarios, server, suite, workloads
from benchmarks.client import Call
from benchmarks.sequences import Recurrent
from benchmarks.server import BenchmarkError
from benchmarks.stn_limit import StnLimit
from benchmarks.timeline import Timeline
from tests.benchmarks.tiny_server import TinyServer


def bench(
    scenario: str, url: str | None, *, api_key: str = "", rate: float | None = None, out: Path | None = None
) -> None:
    suite.bench(scenario, url=url, api_key=api_key, workers=1, seconds=0.05, connections=4, rate=rate, out=out)


@pytest.mark.parametrize("rate", [None, 200.0])
def test_workload_is_measured_and_reported(
    tiny_server: TinyServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, rate: float | None
) -> None:
    """On the screen and in a file, for a closed and an open loop."""
    bench("ntm", tiny_server.url, rate=rate, out=tmp_path / "new")

    text = (tmp_path / "new" / "benchmarks.md").read_text()
    assert "| ntm | 4 |" in text
    assert capsys.readouterr().out.strip() == text.strip()
    assert tiny_server.requests["/ntm/copy"] > 0


def test_overload_measures_the_throughput_first(
    tiny_server: TinyServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what ten times too much is relative to."""
    monkeypatch.setattr(scenarios, "OVERLOAD_POOL", 8)
    monkeypatch.setattr(scenarios, "PROBE_SECONDS", 0.1)

    bench("overload", tiny_server.url, rate=500.0)

    assert "## Overload" in capsys.readouterr().out


def test_baselines_are_put_beside_the_service(
    tiny_server: TinyServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others over HTTP, the limit, and the engine without HTTP: each has its promises in the report."""

    @contextlib.contextmanager
    def other(_: int) -> Iterator[str]:
        yield tiny_server.url

    @contextlib.contextmanager
    def limit(*_: object) -> Iterator[Callable[[float], StnLimit]]:
        yield lambda seconds: StnLimit(1e6 / seconds, 1, 0.1, 0.2, 0.3)

    way = Timeline.of([(0.0, 0.0, 0.1, 200, "8")], seconds=1.0)
    monkeypatch.setattr(server, "glimpse", other)
    monkeypatch.setattr(suite, "FIGURES_SECONDS", 0.0)
    monkeypatch.setattr(server, "plain", other)
    monkeypatch.setattr(server, "whole_requests", other)
    monkeypatch.setattr(suite, "stn_processes", limit)
    monkeypatch.setattr(suite, "subject", lambda name, _: name)
    monkeypatch.setattr(suite, "recurrent", lambda *_: Recurrent(way, way, way))

    bench("baselines", None)

    promises = capsys.readouterr().out.partition("## The promises")[2].partition("##")[0]
    for promise in ("plain FastAPI's median", "throughput over plain FastAPI's", "share of the limit"):
        assert promise in promises
    for where in ("DRAW, 64 connections", "NTM, 64 connections", "DRAW, engine", "NTM, engine"):
        assert f"{where}: throughput over whole-request batching" in promises


def test_unknown_scenario_is_refused_by_name() -> None:
    """With those that there are."""
    with pytest.raises(BenchmarkError, match="no scenario 'speed'; there are stn, draw"):
        bench("speed", None)


@pytest.mark.parametrize("scenario", ["all", "soak", "baselines"])
def test_rate_that_would_be_ignored_is_refused(scenario: str) -> None:
    """Rather than measured as something else."""
    with pytest.raises(BenchmarkError, match=f"{scenario} goes at rates of its own; --rate is for stn, draw"):
        bench(scenario, None, rate=100.0)


def test_service_that_is_not_there_is_reported() -> None:
    """Before anything is measured."""
    with TinyServer() as gone:
        url = gone.url
    with pytest.raises(BenchmarkError, match=r"nobody answers at http://.*refused"):
        bench("stn", url)


@pytest.mark.parametrize("scenario", ["all", "baselines"])
def test_service_that_would_be_put_beside_others_is_started_here(tiny_server: TinyServer, scenario: str) -> None:
    """Others are started with the same settings on the same machine, which is not so of one that runs already."""
    with pytest.raises(BenchmarkError, match=f"{scenario} starts services of its own; --url is for stn, draw"):
        bench(scenario, tiny_server.url)
    assert not tiny_server.requests


@pytest.mark.parametrize("scenario", ["ntm", "overload", "soak"])
def test_load_without_a_good_response_is_an_error(
    tiny_server: TinyServer, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    """Its report would be empty; the error says what there was instead."""
    refused = [Call("a", "GET", "/status/401")]
    monkeypatch.setitem(workloads.WORKLOADS, "ntm", lambda: refused)
    monkeypatch.setattr(workloads, "OVERLOADS", {"ntm": lambda: refused})
    monkeypatch.setattr(workloads, "everything", lambda: refused)

    with pytest.raises(BenchmarkError, match=r"no request got a good response: \d+ x 401"):
        bench(scenario, tiny_server.url)


@pytest.mark.parametrize("scenario", ["ntm", "soak"])
def test_every_request_carries_the_key_and_the_report_does_not(
    tiny_server: TinyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scenario: str
) -> None:
    """A service that has keys answers nobody else; a report is there to be published."""
    monkeypatch.setattr("sys.argv", ["glimpse", "bench", scenario, "--api-key", "secret"])
    monkeypatch.setattr(workloads, "everything", workloads.ntm)

    bench(scenario, tiny_server.url, api_key="secret", out=tmp_path)

    assert {fields["x-api-key"] for fields in tiny_server.heads["/ntm/copy"]} == {"secret"}
    text = (tmp_path / "benchmarks.md").read_text()
    assert f"glimpse bench {scenario} --api-key" in text
    assert "secret" not in text


def test_folder_that_cannot_be_made_is_told_before_anything_is_measured(
    tiny_server: TinyServer, tmp_path: Path
) -> None:
    """Not after minutes of work, when there is a report to put there."""
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        bench("ntm", tiny_server.url, out=tmp_path / "file" / "out")
    assert not tiny_server.requests
