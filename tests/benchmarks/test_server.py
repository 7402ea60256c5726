"""Servers that are started for a measurement, and stopped after it."""

import sys

import pytest

from benchmarks import server
from tests.benchmarks.tiny_server import TinyServer

FILES = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]


def test_started_server_answers_within_and_is_gone_after_an_error() -> None:
    """Whatever happens within."""
    url = ""

    def fail_within() -> None:
        nonlocal url
        with server.started(FILES, "/") as url:
            assert server.get(url, "/")[0] == 200
            raise RuntimeError("something went wrong")

    with pytest.raises(RuntimeError, match="went wrong"):
        fail_within()
    assert server.get(url, "/")[0] == 0


def test_server_that_ends_before_it_is_ready_is_reported() -> None:
    """With its exit code."""
    with (
        pytest.raises(server.BenchmarkError, match="ended with 3"),
        server.started([sys.executable, "-c", "raise SystemExit(3)"], "/"),
    ):
        pytest.fail("it was never ready")


def test_metrics_are_summed_over_their_labels(tiny_server: TinyServer) -> None:
    """Of all processes and routes."""
    found = server.metrics(tiny_server.url)

    assert found == {"glimpse_requests_total": 0.0, "glimpse_process_resident_memory_bytes": 3000.0}


def test_url_without_a_service_has_no_metrics() -> None:
    """It is named in the error."""
    with TinyServer() as gone:
        url = gone.url
    with pytest.raises(server.BenchmarkError, match=r"/metrics answers .*refused"):
        server.metrics(url)


@pytest.mark.parametrize("url", ["https://localhost", "http://localhost/glimpse", "http://localhost:port"])
def test_url_that_cannot_be_measured_is_refused(url: str) -> None:
    """As an error of ours, without a request."""
    with pytest.raises(server.BenchmarkError):
        server.check(url)


@pytest.mark.parametrize(
    ("pages", "told"),
    [
        ({"/readyz": (404, "<html>a long page</html>")}, "is not Glimpse: /readyz answers 404$"),
        ({"/readyz": (503, "model draw is loading")}, "is not ready: model draw is loading$"),
        ({"/readyz": (200, "ok"), "/metrics": (404, "<html>")}, "/metrics answers 404$"),
        (
            {"/readyz": (200, "ok"), "/metrics": (200, "<html>")},
            "is not Glimpse: /metrics is not in Prometheus' format$",
        ),
        ({"/readyz": (200, "ok"), "/metrics": (200, "up 1\n")}, "is not Glimpse: /metrics has no glimpse_process"),
    ],
)
def test_url_of_something_else_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, pages: dict[str, tuple[int, str]], told: str
) -> None:
    """Without the page that it answers."""
    monkeypatch.setattr(server, "get", lambda _, path: pages[path])

    with pytest.raises(server.BenchmarkError, match=told) as refused:
        server.check("http://localhost:8212")
    assert "html" not in str(refused.value)


def test_server_that_speaks_no_http_answers_nothing(tiny_server: TinyServer) -> None:
    """Like one that is not there."""
    status, why = server.get(tiny_server.url, "/nonsense")

    assert status == 0
    assert why
