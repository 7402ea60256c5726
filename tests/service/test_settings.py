"""Settings: from the environment, once, and refused where they make no sense."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service import settings as settings_module
from service.engine.batcher import BatchingPolicy
from service.settings import (
    SHIPPED_MODELS,
    Batching,
    Limits,
    RecurrentBatching,
    Settings,
    granted_cpus,
    unknown_variables,
)

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_defaults_serve_the_shipped_models_to_this_machine_alone() -> None:
    """The service runs without any settings, and is not reachable from other hosts."""
    settings = Settings()

    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.models == SHIPPED_MODELS
    assert (settings.runtime, settings.device, settings.api_keys) == ("onnxruntime", "auto", ())
    assert settings.limits.pixels < 100_000_000


def test_environment_wins_over_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This includes groups, whose names are joined by two underscores."""
    for name, value in {
        "MODELS": str(tmp_path),
        "PORT": "9000",
        "DEVICE": "cuda",
        "DRAW__SLOTS": "128",
        "LIMITS__TIMEOUT_SECONDS": "2.5",
    }.items():
        monkeypatch.setenv(f"GLIMPSE_{name}", value)

    settings = Settings()

    assert (settings.models, settings.port, settings.device) == (tmp_path, 9000, "cuda")
    assert settings.draw == RecurrentBatching(slots=128)
    assert settings.stn == Batching()
    assert settings.limits == Limits(timeout_seconds=2.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "80000"),
        ("PORT", "http"),
        ("DEVICE", "tpu"),
        ("RUNTIME", "tensorrt"),
        ("WORKERS", "0"),
        ("LOG_LEVEL", "loud"),
        ("STALL_SECONDS", "0"),
        ("DRAIN_SECONDS", "-1"),
        ("DRAW__SLOTS", "0"),
        ("STN__MAX_QUEUE_DELAY_SECONDS", "2"),
        ("NTM__SLOT", "64"),
        ("LIMITS__BODY_BYTES", "10"),
        ("LIMITS__TIMEOUT_SECONDS", "0"),
    ],
)
def test_setting_out_of_range_or_misspelt_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """It is refused at the start, not at the first request."""
    monkeypatch.setenv(f"GLIMPSE_{name}", value)

    with pytest.raises(ValidationError, match=name.lower().replace("__", r"\.")):
        Settings()


def test_log_level_is_taken_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs write log levels in capitals."""
    monkeypatch.setenv("GLIMPSE_LOG_LEVEL", "WARNING")

    assert Settings().log_level == "warning"


def test_settings_are_immutable() -> None:
    """They are read once, and passed down as values."""
    settings = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 9000  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.draw.slots = 1  # type: ignore[misc]


def test_upload_that_no_queue_could_hold_is_not_allowed() -> None:
    """As many files as a client may send must fit into the queue at once."""
    with pytest.raises(ValidationError, match=r"limits\.files .1000. must be at most stn\.queue_rows .64."):
        Settings(limits=Limits(files=1000), stn=Batching(queue_rows=64))


def test_policy_of_models_without_steps_has_segments_of_one() -> None:
    """All models have slots and a queue, but only recurrent models have segments."""
    still, recurrent = Batching(slots=8, queue_rows=100), RecurrentBatching(slots=8, queue_rows=100, longest_segment=9)

    assert still.policy() == BatchingPolicy(slots=8, queue_rows=100)
    assert recurrent.policy() == BatchingPolicy(
        slots=8, queue_rows=100, shortest_segment=4, longest_segment=9, stream_segment=4
    )


def test_setting_that_would_do_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture has no steps."""
    monkeypatch.setenv("GLIMPSE_STN__LONGEST_SEGMENT", "2")

    with pytest.raises(ValidationError, match="longest_segment"):
        Settings()


@pytest.mark.parametrize(
    ("files", "affinity", "granted"),
    [
        ({"cpu.max": "max 100000"}, 8, 8),
        ({"cpu.max": "400000 100000"}, 8, 4),
        ({"cpu.max": "400000 100000"}, 2, 2),
        ({"cpu.max": "50000 100000"}, 8, 1),
        ({"cpu.max": "150000 100000"}, 8, 1),
        ({"cpu.max": "nonsense"}, 8, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 8, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8, 8),
        ({}, 8, 8),
    ],
)
def test_cpus_are_those_of_the_control_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], affinity: int, granted: int
) -> None:
    """In a container on a machine with many cores, only the granted ones count, with v1 and v2 of control groups."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))

    assert granted_cpus(tmp_path) == granted


@pytest.mark.parametrize(
    ("threads", "workers", "cpus", "expected"),
    [(0, 1, 8, 4), (0, 4, 16, 2), (0, 16, 8, 1), (0, 1, 1, 1), (3, 4, 16, 3)],
)
def test_graphs_of_all_processes_share_half_the_cpus(
    monkeypatch: pytest.MonkeyPatch, threads: int, workers: int, cpus: int, expected: int
) -> None:
    """The other half is for HTTP; an explicit setting wins."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr(settings_module, "_cpu_quota", lambda _: None)

    assert Settings(threads=threads, workers=workers).graph_threads == expected


def test_variable_that_is_no_setting_is_noticed() -> None:
    """A misspelt variable would otherwise have no effect, without a word."""
    variables = (
        "GLIMPSE_WORKER",
        "GLIMPSE_WORKERS",
        "GLIMPSE_DRAW__SLOTS",
        "GLIMPSE_DATA",
        "GLIMPSE_DRAWS__SLOTS",
        "PATH",
    )

    assert unknown_variables(variables) == ["GLIMPSE_DRAWS__SLOTS", "GLIMPSE_WORKER"]
