"""The settings: one class, read once from the environment (`GLIMPSE_...`) and passed down as values.

Groups are nested by a double underscore: `GLIMPSE_DRAW__SLOTS=128`.
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
    """Largest batch, in sequences (pictures, samples, episodes). More serve more at once, each more slowly."""
    queue_rows: int = Field(512, ge=64, le=1_000_000)
    """Most sequences that wait; more are refused with 429. A longer queue refuses later and answers later."""
    max_queue_delay_seconds: float = Field(0.0, ge=0, le=1)
    """How long an idle worker waits for company. 0 never wastes time; more can raise throughput on a GPU."""

    def policy(self) -> BatchingPolicy:
        """The batcher's numbers."""
        return BatchingPolicy(**self.model_dump())


class RecurrentBatching(Batching):
    """The same of models whose requests are of many steps, computed in segments."""

    shortest_segment: int = Field(4, ge=1, le=64)
    """Fewest steps of a segment. More: higher throughput, and later answers for sequences that end within one."""
    longest_segment: int = Field(8, ge=1, le=256)
    """Most steps of a segment, whatever the fewest may be. More: higher throughput, and a longer wait for newcomers."""
    stream_segment: int = Field(4, ge=1, le=256)
    """Most steps of a segment while a stream is being computed."""


class Limits(_Group):
    """What a client may send, and how long it may take."""

    body_bytes: int = Field(16 * 2**20, ge=1024)
    """Largest request body. A larger one is refused with 413."""
    pixels: int = Field(MAX_PIXELS, ge=784)
    """Most pixels of all pictures of a request together, by their headers. A picture that goes over it is refused with
    413 before it is decoded."""
    memory_bytes: int = Field(512 * 2**20, ge=2**20)
    """Most memory that all requests in progress in one process may hold: their bodies, their pictures (four bytes per
    pixel), what is computed for them, and their responses until the clients have taken them. A request that needs more
    than is left is refused with 429, one that needs more than all of it with 413. Decoding or encoding a picture may
    need four times as much on top, for at most max(2, CPUs) pictures at once."""
    concurrent_requests: int = Field(512, ge=1, le=100_000)
    """Most requests in progress in one process, from the end of their body until the client has taken the answer; one
    more is refused with 429 at once, before anything is spent on it."""
    files: int = Field(64, ge=1, le=1024)
    """Most files in one multipart upload."""
    timeout_seconds: float = Field(30.0, gt=0, le=3600)
    """Deadline of a request that does not set its own in `X-Request-Timeout-Ms`; a longer one is cut to this."""

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
    """All that can be set about the service."""

    model_config = SettingsConfigDict(env_prefix="GLIMPSE_", env_nested_delimiter="__", frozen=True, extra="forbid")

    models: Path = SHIPPED_MODELS
    """The model repository: folders `NAME/VERSION` with a manifest."""
    runtime: Literal["onnxruntime", "torchscript"] = "onnxruntime"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`cuda` refuses to start without a working GPU; `auto` takes one if there is one."""
    threads: int = Field(0, ge=0, le=256)
    """Threads within one graph. 0: half the granted CPUs, divided among the workers, at least 1."""
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=64)
    """Processes that share the port, each with its own copy of the models."""
    drain_seconds: float = Field(20.0, ge=0, le=3600)
    """How long a shutdown waits for requests that were admitted."""
    drain_notice_seconds: float = Field(0.5, ge=0, le=60)
    """How long a draining server still answers (with 503), so that a load balancer sees it before the port closes."""
    keep_alive_seconds: int = Field(75, ge=1, le=3600)
    """How long an idle connection is kept. Longer than a reverse proxy in front does, or a request that it sends at the
    last moment is lost: nginx and Amazon's load balancer keep one for 60 s, Go's client (Traefik) 90, Google's 600."""
    stall_seconds: float = Field(5.0, gt=0, le=600)
    """A batch that runs longer than this makes the service unready; twice as long ends the process."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Separated by commas. If any is given, requests must name one in `X-API-Key` or as a bearer token."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    limits: Limits = Limits()
    stn: Batching = Batching()
    draw: RecurrentBatching = RecurrentBatching()
    ntm: RecurrentBatching = RecurrentBatching()

    @property
    def graph_threads(self) -> int:
        """Threads within one graph: as many as were asked for, or as suit this machine."""
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
            raise ValueError("api_keys is set and names no key")
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
    """Variables that look like settings and are none: misspelt, most likely.

    They are not refused, because an orchestrator may set some of its own (`GLIMPSE_SERVICE_HOST`, of a Kubernetes
    service of this name).
    """
    known = {*Settings.model_fields, "data"}  # the last is that of `glimpse train` and `evaluate`
    return sorted(
        name
        for name in environment
        if name.startswith("GLIMPSE_") and name.removeprefix("GLIMPSE_").partition("__")[0].lower() not in known
    )


def granted_cpus(control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use: its affinity, cut by the control group's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(control_group)
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def _cpu_quota(control_group: Path) -> float | None:
    """CPUs that a control group grants, of either version; None without a limit."""
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
