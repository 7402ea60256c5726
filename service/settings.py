"""The settings: one class, read once from the environment (`GLIMPSE_...`) and passed down as values.

A double underscore separates a group from its settings: `GLIMPSE_DRAW__SLOTS=128`.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.engine.batcher import BatchingPolicy
from service.media.picture import BYTES_PER_PIXEL, MAX_PIXELS

SHIPPED_MODELS = Path(__file__).parent.parent / "models" / "pretrained"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Batching(_Group):
    """How the requests of one family of models are batched."""

    slots: int = Field(64, ge=1, le=1024)
    """Maximum batch size, in sequences (pictures, samples, episodes). More are served at once, but each more slowly."""
    queue_rows: int = Field(512, ge=64, le=1_000_000)
    """Maximum number of waiting sequences; more are refused with 429. A longer queue refuses fewer requests, but
    latency grows."""
    max_queue_delay_seconds: float = Field(0.0, ge=0, le=1)
    """Seconds that an idle worker waits for more requests. 0 is work-conserving; more can raise throughput on a GPU."""

    def policy(self) -> BatchingPolicy:
        """Return the batcher's policy."""
        return BatchingPolicy(**self.model_dump())


class RecurrentBatching(Batching):
    """How the requests of recurrent models are batched; they have many steps, computed in segments."""

    shortest_segment: int = Field(4, ge=1, le=64)
    """Minimum number of steps in a segment. More raise throughput, but delay sequences that end within a segment."""
    longest_segment: int = Field(8, ge=1, le=256)
    """Maximum number of steps in a segment, which overrides the minimum. More raise throughput, but newcomers wait
    longer."""
    stream_segment: int = Field(4, ge=1, le=256)
    """Maximum number of steps in a segment while a stream is being computed."""


class Limits(_Group):
    """Limits on what clients may send, and on what their requests may take."""

    body_bytes: int = Field(16 * 2**20, ge=1024)
    """Maximum size of a request body. A larger one is refused with 413."""
    pixels: int = Field(MAX_PIXELS, ge=784)
    """Maximum number of pixels of all pictures of a request together, according to their headers. A picture that
    exceeds it is refused with 413 before it is decoded."""
    memory_bytes: int = Field(512 * 2**20, ge=2**20)
    """Maximum memory that all requests in progress in one process may hold together: their bodies, their pictures (four
    bytes per pixel), their outputs, and their responses until the clients have read them. A request that needs more
    than is left is refused with 429, one that needs more than all of it with 413. Decoding or encoding a picture may
    need four times as much on top, for at most max(2, CPUs) pictures at once."""
    concurrent_requests: int = Field(512, ge=1, le=100_000)
    """Maximum number of requests in progress in one process, from the end of their body until the client has read the
    response; one more is refused with 429 at once, before any work is done for it."""
    files: int = Field(64, ge=1, le=1024)
    """Maximum number of files in one multipart upload."""
    timeout_seconds: float = Field(30.0, gt=0, le=3600)
    """Seconds until the deadline of a request, unless it sets an earlier one in `X-Request-Timeout-Ms`."""

    @model_validator(mode="after")
    def _every_request_fits_into_memory(self) -> Self:
        largest = 2 * self.body_bytes + BYTES_PER_PIXEL * self.pixels
        if largest > self.memory_bytes:
            raise ValueError(
                f"limits.memory_bytes ({self.memory_bytes}) must be at least {largest}, for a body of "
                f"{self.body_bytes} bytes, twice, and {self.pixels} pixels: such an upload could never be admitted"
            )
        return self


class Settings(BaseSettings):
    """The settings of the service."""

    model_config = SettingsConfigDict(env_prefix="GLIMPSE_", env_nested_delimiter="__", frozen=True, extra="forbid")

    models: Path = SHIPPED_MODELS
    """The model repository: folders `NAME/VERSION` with a manifest."""
    runtime: Literal["onnxruntime", "torchscript"] = "onnxruntime"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the graphs. With `cuda`, the start fails without a working GPU; `auto` uses one if there is one."""
    threads: int = Field(0, ge=0, le=256)
    """Threads within one graph. 0: half the granted CPUs, divided among the workers, at least 1."""
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=64)
    """Processes that share the port, each with its own copy of the models."""
    drain_seconds: float = Field(20.0, ge=0, le=3600)
    """Seconds that a shutdown waits for admitted requests."""
    drain_notice_seconds: float = Field(0.5, ge=0, le=60)
    """Seconds that a draining server still responds (with 503), for load balancers to notice before the port closes."""
    keep_alive_seconds: int = Field(75, ge=1, le=3600)
    """Seconds that an idle connection is kept open. It must be longer than a reverse proxy in front keeps it, or a
    request that the proxy sends at the last moment is lost: nginx and Amazon's load balancer keep it for 60 s, Go's
    client (Traefik) for 90 s, Google's load balancer for 600 s."""
    stall_seconds: float = Field(5.0, gt=0, le=600)
    """Seconds after which a running batch makes the service not ready; after twice as long, the process exits."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """API keys, separated by commas. If there are any, requests must send one in `X-API-Key` or as a bearer token."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    limits: Limits = Limits()
    stn: Batching = Batching()
    draw: RecurrentBatching = RecurrentBatching()
    ntm: RecurrentBatching = RecurrentBatching()

    @property
    def graph_threads(self) -> int:
        """Threads within one graph: the setting, or the default for this machine."""
        return self.threads or max(1, granted_cpus() // (2 * self.workers))

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        keys = tuple(key.strip() for key in value.split(",") if key.strip())
        if value and not keys:
            raise ValueError("api_keys is set, but has no key in it")
        return keys

    @model_validator(mode="after")
    def _every_upload_fits_its_queue(self) -> Self:
        if self.limits.files > self.stn.queue_rows:
            raise ValueError(
                f"limits.files ({self.limits.files}) must be at most stn.queue_rows ({self.stn.queue_rows}): "
                "a larger upload could never be admitted"
            )
        return self


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Return the variables that look like settings but are not; most likely they are misspelt.

    They are not refused, because an orchestrator may set variables of its own: Kubernetes sets `GLIMPSE_SERVICE_HOST`
    for a service named `glimpse`.
    """
    known = {*Settings.model_fields, "data"}  # `GLIMPSE_DATA` is for `glimpse train` and `glimpse evaluate`
    return sorted(
        name
        for name in environment
        if name.startswith("GLIMPSE_") and name.removeprefix("GLIMPSE_").partition("__")[0].lower() not in known
    )


def granted_cpus(control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of CPUs that this process may use: its affinity, limited by its control group's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(control_group)
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def _cpu_quota(control_group: Path) -> float | None:
    """Return the number of CPUs that a control group, v1 or v2, grants; None without a limit."""
    try:
        if (control_group / "cpu.max").exists():
            granted, period = (control_group / "cpu.max").read_text().split()
        else:
            granted, period = (
                (control_group / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return None if granted == "max" or int(granted) < 0 else int(granted) / int(period)
    except (OSError, ValueError):
        return None
