"""The server that is measured: one that runs already, or one that is started for the measurement and then stopped."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import workloads
from benchmarks.client import address_of
from service.errors import GlimpseError

EMPTY: Mapping[str, str] = MappingProxyType({})
READY_SECONDS = 60.0
READY_ANSWERS = 20
"""Responses in a row that show a server to be ready: with several workers on one port, any may have sent them."""
ALL_READY = "\nglimpse_ready 1.0\n"
"""Line in the metrics of a service all of whose processes are ready."""
STOP_SECONDS = 40.0
"""Time that a server has to stop; longer than the service's longest drain."""
POLL_SECONDS = 0.05
MEMORY = "glimpse_process_resident_memory_bytes"


class BenchmarkError(GlimpseError):
    """A measurement cannot be made as requested."""

    code = "benchmark-error"


@contextlib.contextmanager
def started(
    command: Sequence[str], ready_path: str, ready_text: str = "", settings: Mapping[str, str] = EMPTY
) -> Iterator[str]:
    """Start a server on a free port and yield its URL; it is stopped at the end, whatever happens in between.

    Args:
        command: command that starts the server; `{port}` stands for the port.
        ready_path: path that returns 200 once the server is ready.
        ready_text: text that this response must contain.
        settings: environment variables, in addition to those of this process.

    Raises:
        BenchmarkError: the server ended, or was not ready in time.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    # In a session of its own, it does not get our Ctrl-C, and processes that it leaves behind can be killed as a group.
    process = subprocess.Popen(  # noqa: S603
        [part.format(port=port) for part in command],
        env={"GLIMPSE_LOG_LEVEL": "warning", **os.environ, **settings},
        start_new_session=True,
    )
    try:
        _await_ready(process, url, ready_path, ready_text)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def glimpse(workers: int, settings: Mapping[str, str] = EMPTY) -> contextlib.AbstractContextManager[str]:
    """Start the service, with settings from the environment and those given."""
    command = [sys.executable, "-m", "glimpse", "serve", "--port", "{port}", "--workers", str(workers)]
    return started(command, "/metrics", ALL_READY, settings)


def whole_requests(workers: int) -> contextlib.AbstractContextManager[str]:
    """Start the service so that it batches whole requests: a segment ends when its longest sequence does."""
    longest = str(max(workloads.LENGTHS))
    segments = [f"GLIMPSE_{model}__{which}_SEGMENT" for model in ("DRAW", "NTM") for which in ("SHORTEST", "LONGEST")]
    return glimpse(workers, dict.fromkeys(segments, longest))


def plain(processes: int) -> contextlib.AbstractContextManager[str]:
    """Start the plain application of `benchmarks.plain`, with as many threads for its graphs as the service has."""
    command = [sys.executable, "-m", "uvicorn", "benchmarks.plain:create", "--factory", "--port", "{port}"]
    command += ["--workers", str(processes), "--no-access-log", "--log-level", "warning"]
    return started(command, "/readyz", settings={"GLIMPSE_WORKERS": str(processes)})


def get(url: str, path: str) -> tuple[int, str]:
    """Return the status and the text of a page; (0, the reason) if there is no HTTP response."""
    connection = http.client.HTTPConnection(*address_of(url), timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def metrics(url: str) -> dict[str, float]:
    """Return every metric of the service by name, summed over its labels.

    Raises:
        BenchmarkError: there are no metrics at the URL.
    """
    status, text = get(url, "/metrics")
    if status != 200:
        raise BenchmarkError(f"{url}/metrics answers {status or text}")
    totals: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    except ValueError as error:
        raise BenchmarkError(f"{url} is not Glimpse: /metrics is not in Prometheus' format") from error
    return totals


def check(url: str) -> None:
    """Check that Glimpse runs at a URL, and is ready.

    Raises:
        BenchmarkError: the URL is not `http://HOST:PORT`, nothing or something else listens there, or it is not ready.
    """
    try:
        address_of(url)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    status, text = get(url, "/readyz")
    if status == 0:
        raise BenchmarkError(f"nobody answers at {url}: {text}")
    if status == 503:
        raise BenchmarkError(f"{url} is not ready: {text[:200]}")
    if status != 200:
        raise BenchmarkError(f"{url} is not Glimpse: /readyz answers {status}")
    if MEMORY not in metrics(url):
        raise BenchmarkError(f"{url} is not Glimpse: /metrics has no {MEMORY}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(process: "subprocess.Popen[bytes]", url: str, path: str, text: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    answer, ready = "", 0
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchmarkError(f"the server ended with {process.returncode} before it was ready")
        status, answer = get(url, path)
        ready = ready + 1 if status == 200 and text in answer else 0
        if ready == READY_ANSWERS:
            return
        if not ready:
            time.sleep(POLL_SECONDS)
    raise BenchmarkError(f"the server was not ready within {READY_SECONDS:g} s: {answer}")
