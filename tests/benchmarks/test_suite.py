"""`glimpse bench` from its arguments to its files."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import scenarios, server, suite
from benchmarks.sequences import Recurrent
from benchmarks.server import BenchmarkError
from benchmarks.stn_limit import StnLimit
from benchmarks.timeline import Timeline
from tests.benchmarks.tiny_server import TinyServer


def bench(scenario: str, url: str | None, *, rate: float | None = None, out: Path | None = None) -> None:
    suite.bench(scenario, url=url, workers=1, seconds=0.05, connections=4, rate=rate, out=out)


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
    monkeypatch.setattr(server, "plain", other)
    monkeypatch.setattr(server, "whole_requests", other)
    monkeypatch.setattr(suite, "stn_processes", limit)
    monkeypatch.setattr(suite, "subject", lambda name, _: name)
    monkeypatch.setattr(suite, "recurrent", lambda *_: Recurrent(way, way, way))

    bench("baselines", tiny_server.url)

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
    with pytest.raises(BenchmarkError, match=r"is not ready: .*refused"):
        bench("stn", url)
