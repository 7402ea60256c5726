"""Requests to the engine: groups of sequences that share input arrays and a deadline, and succeed or fail together.

A *sequence* is the unit of scheduling: one row of the running batch for a number of steps. A picture for the STN is a
sequence of one step; a drawing or a memory task is a sequence of many. A request of several sequences (four samples,
three files) is finished when all of them are.

Outputs are written step by step into arrays that belong to the request. Streams read them from there, so that a slow
reader does not hold up the batch.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from export.manifest import Array, Signature
from service.errors import GlimpseError
from service.runtime.base import shape_of


@dataclass(slots=True, eq=False)
class Sequence:
    """One row of a request in a slot. The request holds no reference to it, to avoid a reference cycle."""

    request: "Request"
    row: int
    ends_at: int
    """Step of the batcher's count at which it ends."""
    step_outputs: tuple[tuple[str, Array], ...] = ()
    """Arrays [T ...] for this row's per-step outputs, at all steps or the last alone, with their names; sliced when it
    enters a slot."""


@dataclass(slots=True, eq=False)
class Request:
    """Rows of inputs to be computed before a deadline.

    The batcher keeps the counters, under its owner's lock; the worker thread writes the outputs; the event loop
    resolves the future.
    """

    inputs: Mapping[str, Array]
    """Input arrays by name: `[rows, ...]`, or `[steps, rows, ...]` for per-step inputs; dtypes as in the signature."""
    rows: int
    """Number of sequences."""
    steps: int
    """Number of steps, the same for every row."""
    deadline: float
    """Time on the engine's monotonic clock, in seconds."""
    wanted: frozenset[str] | None = None
    """Names of the outputs to keep; all of them when None."""
    keeps_last_step: bool = False
    """Whether to keep per-step outputs of the last step alone, as if there were no other; not for streams."""
    on_progress: Callable[[], None] | None = None
    """Callback on the event loop, called whenever `steps_done` may have grown; marks the request as a stream."""

    # The engine sets the following fields.
    outputs: dict[str, Array] = field(init=False, default_factory=dict)
    """Output arrays by name: `[rows, ...]`, or `[kept_steps, rows, ...]` for per-step outputs."""
    future: asyncio.Future[None] | None = field(init=False, default=None)
    steps_done: list[int] = field(init=False)
    """Number of steps computed per row, for streams alone; per-step outputs are valid up to there."""
    rows_entered: int = field(init=False, default=0)
    """Number of rows that have entered a slot."""
    rows_left: int = field(init=False)
    """Number of unfinished rows."""
    is_settled: bool = field(init=False, default=False)
    """Whether it is finished, failed, expired or cancelled; rows that still wait or run are dropped."""
    error: GlimpseError | None = field(init=False, default=None)
    """Cause of the failure, if any; set before the future is resolved."""
    queued_at: float = field(init=False, default=math.inf)
    """Time of entering the queue on the engine's clock, in seconds."""
    started_at: float | None = field(init=False, default=None)
    """Time of the first segment on the engine's clock, in seconds."""
    finished_at: float | None = field(init=False, default=None)
    """End of the last segment on the engine's clock, in seconds."""

    def __post_init__(self) -> None:
        self.steps_done = [0] * self.rows
        self.rows_left = self.rows

    def allocate(self, signature: Signature) -> None:
        """Allocate the wanted outputs.

        Assert that the inputs match the signature: a mismatch is the caller's bug, and found later it would crash the
        worker and fail all other requests.
        """
        for spec in signature.inputs:
            given, fitting = self.inputs[spec.name], shape_of(spec, self.rows, self.steps)
            assert given.shape == fitting, f"this is a bug: {spec.name} has the shape {given.shape}, not {fitting}"
            assert given.dtype == spec.dtype, f"this is a bug: {spec.name} is {given.dtype}, not {spec.dtype}"
        for spec in signature.outputs:
            if self.wanted is None or spec.name in self.wanted:
                self.outputs[spec.name] = np.empty(shape_of(spec, self.rows, self.kept_steps), spec.dtype)

    @property
    def kept_steps(self) -> int:
        """Number of steps whose per-step outputs are kept."""
        return 1 if self.keeps_last_step else self.steps

    def queue_seconds(self, now: float) -> float:
        """Return the seconds from entering the queue to the first segment, or until now; 0 if it is not queued yet."""
        return max(0.0, (now if self.started_at is None else self.started_at) - self.queued_at)

    def compute_seconds(self, now: float) -> float:
        """Return the seconds from the start of the first segment to the end of the last, or until now; 0 before it."""
        if self.started_at is None:
            return 0.0
        return (now if self.finished_at is None else self.finished_at) - self.started_at
