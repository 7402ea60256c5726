"""Metrics: what the service reports is what Prometheus reads."""

import os
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import metrics as module
from service.engine.batcher import CloseReason
from service.engine.report import BatchReport
from service.metrics import Metrics

FIRST = {"model": "draw", "version": "1", "graph": "generate"}
SECOND = {**FIRST, "version": "2"}


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def report(**changes: int) -> BatchReport:
    numbers = {"rows": 3, "steps": 4, "padding_row_steps": 2, "failed_rows": 0, **changes}
    return BatchReport(reason=CloseReason.FULL, compute_seconds=0.003, **numbers)


def test_every_name_has_the_prefix_a_help_and_base_units() -> None:
    """All names have one prefix and base units, `_seconds` and `_bytes`, and those of counters end in `_total`."""
    families = list(text_string_to_metric_families(Metrics().exposition().decode()))

    assert len(families) > 20
    for family in families:
        assert family.name.startswith("glimpse_")
        assert family.documentation
        assert not family.name.endswith(("_ms", "_milliseconds", "_mb"))
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)


def test_batch_counts_live_rows_and_padding_apart() -> None:
    """Three rows of four steps, of which two row-steps were padding, are ten steps."""
    metrics = Metrics()

    metrics.listener("draw", 1, "generate", "cpu").on_batch(report())

    assert value(metrics, "glimpse_steps_total", **FIRST) == 10
    assert value(metrics, "glimpse_padding_rows_total", **FIRST) == 2
    assert value(metrics, "glimpse_batches_total", **FIRST, reason="full") == 1
    assert value(metrics, "glimpse_batch_size_sum", **FIRST) == 3
    assert value(metrics, "glimpse_batch_seconds_sum", **FIRST) == pytest.approx(0.003)
    assert value(metrics, "glimpse_failures_total", **FIRST) == 0


def test_everything_else_that_is_heard_is_told() -> None:
    """Failures, queue, slots, cancellations, missed deadlines and new workers are counted per model version."""
    metrics = Metrics()
    draw, other = (metrics.listener("draw", version, "generate", "cpu") for version in (1, 2))

    draw.on_batch(report(failed_rows=2))
    draw.on_queue(7)
    draw.on_queue(5)
    draw.on_slots(3)
    draw.on_cancelled(4)
    draw.on_rejected(8)
    draw.on_deadline_missed(6)
    draw.on_worker_replaced()
    other.on_queue(1)

    assert value(metrics, "glimpse_failures_total", **FIRST) == 2
    assert value(metrics, "glimpse_queue_depth", **FIRST) == 5
    assert value(metrics, "glimpse_queue_depth", **SECOND) == 1
    assert value(metrics, "glimpse_slots_occupied", **FIRST) == 3
    assert value(metrics, "glimpse_cancellations_total", **FIRST) == 4
    assert value(metrics, "glimpse_rejections_total", **FIRST) == 8
    assert value(metrics, "glimpse_deadline_misses_total", **FIRST) == 6
    assert value(metrics, "glimpse_deadline_misses_total", **SECOND) == 0
    assert value(metrics, "glimpse_worker_restarts_total", **FIRST) == 1
    assert value(metrics, "glimpse_worker_restarts_total", **SECOND) == 0
    assert value(metrics, "glimpse_provider_info", **SECOND, provider="cpu") == 1


def test_exchange_is_counted_by_route_model_and_code() -> None:
    """Its stages are observed only where time was spent."""
    metrics = Metrics()

    for _ in range(2):
        metrics.observe_exchange("/ntm/copy", "ntm-copy", 200, 0.02, {"decode": 0.001, "queue": 0.0})
    metrics.observe_exchange("/ntm/copy", "", 422, 0.001, dict.fromkeys(module.STAGES, 0.0))

    assert value(metrics, "glimpse_requests_total", route="/ntm/copy", model="ntm-copy", code="200") == 2
    assert value(metrics, "glimpse_requests_total", route="/ntm/copy", model="", code="422") == 1
    assert value(metrics, "glimpse_request_seconds_count", route="/ntm/copy") == 3
    assert value(metrics, "glimpse_request_seconds_sum", route="/ntm/copy") == pytest.approx(0.041)
    assert value(metrics, "glimpse_decode_seconds_count", route="/ntm/copy") == 2
    assert value(metrics, "glimpse_queue_seconds_count", route="/ntm/copy") == 0


def test_buckets_of_seconds_begin_at_a_tenth_of_a_millisecond() -> None:
    """They tell half a millisecond from one."""
    metrics = Metrics()
    metrics.observe_exchange("/livez", "", 200, 0.0004, {})

    def bucket(bound: str) -> float:
        return value(metrics, "glimpse_request_seconds_bucket", route="/livez", le=bound)

    assert bucket("0.0001") == 0
    assert bucket("0.0002") == 0
    assert bucket("0.0005") == 1
    assert bucket("30.0") == bucket("+Inf") == 1


def test_figures_of_the_process_are_those_of_the_last_look() -> None:
    """CPU time is counted only once, and memory is what is in use now."""
    metrics = Metrics()

    metrics.observe_process()
    first = value(metrics, "glimpse_process_cpu_seconds_total")
    assert sum(range(3_000_000)) > 0
    metrics.observe_process()
    second = value(metrics, "glimpse_process_cpu_seconds_total")

    assert 0 < first < second
    assert 10e6 < value(metrics, "glimpse_process_resident_memory_bytes") < 100e9


def test_two_applications_in_a_process_do_not_share_metrics() -> None:
    """Each has a registry of its own."""
    one, other = Metrics(), Metrics()

    one.observe_readiness(is_ready=True)

    assert value(one, "glimpse_ready") == 1
    assert value(other, "glimpse_ready") == 0


def test_gauges_of_processes_that_are_gone_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process that was killed leaves counters, which still count, and gauges, which do not."""
    monkeypatch.setenv(module.MULTIPROCESS_VARIABLE, str(tmp_path))
    gone, here = 2**22 + 1, os.getpid()
    for pid in (gone, here):
        for kind in ("gauge_livesum", "counter"):
            (tmp_path / f"{kind}_{pid}.db").touch()

    module._forget_dead_processes(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {
        f"counter_{gone}.db", f"counter_{here}.db", f"gauge_livesum_{here}.db",
    }  # fmt: skip
