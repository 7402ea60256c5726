"""All metrics of the service. No other module imports the Prometheus client.

Several worker processes each write to files in `PROMETHEUS_MULTIPROC_DIR`, and the one that is scraped aggregates them.
Gauges cover live processes only, and are summed, or reduced by max or min where a sum is meaningless.
"""

import contextlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.engine.batcher import CloseReason
from service.engine.report import BatchReport

# A creation timestamp for every counter would double the size of a scrape, for no use.
disable_created_metrics()  # type: ignore[no-untyped-call]

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

if MULTIPROCESS_VARIABLE in os.environ:
    # By default every update asks for the pid, a system call, in case the process was forked; ours never is.
    _process = os.getpid()
    values.ValueClass = values.MultiProcessValue(lambda: _process)  # type: ignore[no-untyped-call]

SECONDS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
STAGES = {
    "decode": "Decoding and validating a request",
    "queue": "Waiting for a slot",
    "compute": "In slots, from the first segment to the last",
    "encode": "Encoding a response",
}
"""Stages of a request in order, with the help text of their metrics."""


class Metrics:
    """The metrics of one process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        graph = ("model", "version", "graph")
        self.requests = self._counter("glimpse_requests", "Requests answered", ("route", "model", "code"))
        self.request_seconds = self._histogram(
            "glimpse_request_seconds", "From the request's head to the end of the response", ("route",)
        )
        self.stage_seconds = {
            stage: self._histogram(f"glimpse_{stage}_seconds", help_text, ("route",))
            for stage, help_text in STAGES.items()
        }
        self.batch_rows = self._histogram("glimpse_batch_size", "Sequences in a computed batch", graph, ROWS)
        self.batch_seconds = self._histogram("glimpse_batch_seconds", "Computing one segment", graph)
        self.batches = self._counter(
            "glimpse_batches", "Batches computed, by the reason for closing them: full, idle, delay", (*graph, "reason")
        )
        self.steps = self._counter("glimpse_steps", "Steps computed, over all sequences", graph)
        self.padding = self._counter(
            "glimpse_padding_rows", "Steps computed beyond their sequence's end and dropped", graph
        )
        self.queue_rows = self._gauge("glimpse_queue_depth", "Sequences waiting for a slot", graph)
        self.slots = self._gauge("glimpse_slots_occupied", "Sequences in the running batch", graph)
        self.cancellations = self._counter(
            "glimpse_cancellations", "Sequences cancelled because their client disconnected", graph
        )
        self.deadline_misses = self._counter(
            "glimpse_deadline_misses", "Sequences dropped because their deadline passed", graph
        )
        self.failures = self._counter("glimpse_failures", "Sequences that failed even when run alone", graph)
        self.rejections = self._counter("glimpse_rejections", "Sequences refused by a full queue", graph)
        self._model_info = self._gauge(
            "glimpse_model_info",
            "1 for every served model",
            ("model", "version", "family"),
            "livemax",
        )
        self.provider_info = self._gauge(
            "glimpse_provider_info", "1 for the execution provider of a graph", (*graph, "provider"), "livemax"
        )
        self._ready = self._gauge("glimpse_ready", "1 while the process is ready", (), "livemin")
        self.worker_restarts = self._counter("glimpse_worker_restarts", "Worker threads that were replaced", graph)
        self.cpu_seconds = self._counter("glimpse_process_cpu_seconds", "CPU time used")
        self._cpu_seconds_counted = 0.0
        self.memory_bytes = self._gauge("glimpse_process_resident_memory_bytes", "Resident memory", ())
        self.start_time = self._gauge(
            "glimpse_process_start_time_seconds", "When the process started, in Unix time", (), "livemin"
        )
        self.start_time.set(time.time())
        self.gpu_utilisation = self._gauge(
            "glimpse_gpu_utilisation_ratio", "Fraction of time that the GPU is busy", ("gpu",), "livemax"
        )
        self.gpu_memory_bytes = self._gauge("glimpse_gpu_memory_used_bytes", "GPU memory in use", ("gpu",), "livemax")
        self._read_gpus = _gpu_reader()
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram, dict[str, Histogram]]] = {}

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, help_text, labels, registry=self._registry)

    def _histogram(
        self, name: str, help_text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = SECONDS
    ) -> Histogram:
        return Histogram(name, help_text, labels, buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, help_text: str, labels: tuple[str, ...], mode: str = "livesum") -> Gauge:
        return Gauge(name, help_text, labels, registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def observe_exchange(
        self, route: str, model: str, status: int, seconds: float, stages: Mapping[str, float]
    ) -> None:
        """Count a request that was answered, and the time spent in each stage."""
        children = self._children.get((route, model, status))
        if children is None:
            # Looking up a child by its labels costs more than counting; the labels are from closed sets.
            children = self._children[route, model, status] = (
                self.requests.labels(route, model, str(status)),
                self.request_seconds.labels(route),
                {stage: histogram.labels(route) for stage, histogram in self.stage_seconds.items()},
            )
        count, whole, parts = children
        count.inc()
        whole.observe(seconds)
        for stage, spent in stages.items():
            if spent:
                parts[stage].observe(spent)

    def observe_readiness(self, *, is_ready: bool) -> None:
        """Record whether the process is ready for requests."""
        self._ready.set(is_ready)

    def observe_model(self, name: str, version: int, family: str) -> None:
        """Record that a model is served."""
        self._model_info.labels(name, str(version), family).set(1)

    def observe_process(self) -> None:
        """Update the metrics of the process; from any thread, but one at a time. A broken GPU may block it."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        self.cpu_seconds.inc(cpu_seconds - self._cpu_seconds_counted)
        self._cpu_seconds_counted = cpu_seconds
        self.memory_bytes.set(_resident_bytes())
        for index, utilisation, memory_bytes in self._read_gpus():
            self.gpu_utilisation.labels(index).set(utilisation)
            self.gpu_memory_bytes.labels(index).set(memory_bytes)

    def exposition(self) -> bytes:
        """Return the metrics of all worker processes in Prometheus' text format."""
        if MULTIPROCESS_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        _forget_dead_processes(Path(os.environ[MULTIPROCESS_VARIABLE]))
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def listener(self, model: str, version: int, graph: str, provider: str) -> "EngineListener":
        """Return a listener that records an engine's reports; the engine computes `graph` on an execution provider."""
        return EngineListener(self, (model, str(version), graph), provider)


class EngineListener:
    """Records the reports of one engine; see `service.engine.report.Listener`."""

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str], provider: str) -> None:
        metrics.provider_info.labels(*labels, provider).set(1)
        self._batch_rows = metrics.batch_rows.labels(*labels)
        self._batch_seconds = metrics.batch_seconds.labels(*labels)
        self._batches = {reason: metrics.batches.labels(*labels, reason.value) for reason in CloseReason}
        self._steps = metrics.steps.labels(*labels)
        self._padding = metrics.padding.labels(*labels)
        self._queue_rows = metrics.queue_rows.labels(*labels)
        self._slots = metrics.slots.labels(*labels)
        self._cancellations = metrics.cancellations.labels(*labels)
        self._deadline_misses = metrics.deadline_misses.labels(*labels)
        self._failures = metrics.failures.labels(*labels)
        self._rejections = metrics.rejections.labels(*labels)
        # Exported from the start, at 0, so that the first increase is visible, too.
        self._worker_restarts = metrics.worker_restarts.labels(*labels)

    def on_batch(self, report: BatchReport) -> None:
        """Record a computed segment."""
        self._batch_rows.observe(report.rows)
        self._batch_seconds.observe(report.compute_seconds)
        self._batches[report.reason].inc()
        self._steps.inc(report.rows * report.steps - report.padding_row_steps)
        self._padding.inc(report.padding_row_steps)
        if report.failed_rows:
            self._failures.inc(report.failed_rows)

    def on_queue(self, rows: int) -> None:
        """Record that `rows` sequences are waiting."""
        self._queue_rows.set(rows)

    def on_slots(self, rows: int) -> None:
        """Record that `rows` slots are occupied."""
        self._slots.set(rows)

    def on_rejected(self, rows: int) -> None:
        """Record that a full queue refused a request."""
        self._rejections.inc(rows)

    def on_cancelled(self, rows: int) -> None:
        """Record that a client disconnected."""
        self._cancellations.inc(rows)

    def on_deadline_missed(self, rows: int) -> None:
        """Record that a deadline passed."""
        self._deadline_misses.inc(rows)

    def on_worker_replaced(self) -> None:
        """Record that a dead worker was replaced."""
        self._worker_restarts.inc()


def _forget_dead_processes(directory: Path) -> None:
    """Delete the live gauges of worker processes that no longer exist."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, PermissionError):  # the latter if another user's process has the pid now
            mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the peak, if there is no /proc
        return most if sys.platform == "darwin" else most * 1024
    return pages * resource.getpagesize()


GpuReader = Callable[[], Iterable[tuple[int, float, float]]]
"""Function that returns (index, fraction of time busy, bytes of memory in use) for every GPU."""


def _gpu_reader() -> GpuReader:
    """Return a function that reads the metrics of the GPUs; without NVML, it returns none."""
    try:
        import pynvml  # noqa: PLC0415 - an extra of the GPU build

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # noqa: BLE001 - no library or no driver: either way there are no metrics
        return tuple

    def read() -> Iterable[tuple[int, float, float]]:
        for index, handle in enumerate(handles):
            # A MIG partition has no utilisation of its own, and a lost GPU no metrics at all.
            with contextlib.suppress(pynvml.NVMLError):
                utilisation = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
                yield index, utilisation, float(pynvml.nvmlDeviceGetMemoryInfo(handle).used)

    return read
