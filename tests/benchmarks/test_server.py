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
