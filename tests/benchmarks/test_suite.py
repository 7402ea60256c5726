"""`glimpse bench` from its arguments to its files."""

from pathlib import Path

import pytest

from benchmarks import scenarios, suite
from benchmarks.server import BenchmarkError
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


def test_unknown_scenario_is_refused_by_name() -> None:
    """With those that there are."""
    with pytest.raises(BenchmarkError, match="no scenario 'speed'; there are stn, draw"):
        bench("speed", None)


def test_service_that_is_not_there_is_reported() -> None:
    """Before anything is measured."""
    with TinyServer() as gone:
        url = gone.url
    with pytest.raises(BenchmarkError, match=r"is not ready: .*refused"):
        bench("stn", url)
