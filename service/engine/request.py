"""What the engine is asked: a group of sequences that share their inputs' arrays, a deadline and a fate.

A *sequence* is the unit of scheduling: one row of the running batch, for as many steps as it has. A picture for the
STN is a sequence of one step; a drawing or a memory task is a sequence of many. A request of several sequences (four
samples, three files) is answered when the last of them is done.

Outputs are written into arrays that belong to the request, step after step, so that a reader of a stream sees them
where they are, and a slow one holds up nobody.
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
    """One row of a request, in a slot. The request does not refer to it: a reference cycle would outlive them both."""

    request: "Request"
    row: int
    step_inputs: tuple[Array, ...] = ()
    """Its own inputs per step, [T 1 ...] each, in the signature's order; sliced when it enters a slot."""
    step_outputs: tuple[Array | None, ...] = ()
    """Arrays that its outputs per step go to, [T ...] each; None for those that are not wanted."""

    @property
    def steps_done(self) -> int:
        """Steps that were computed."""
        return self.request.steps_done[self.row]

    @property
    def steps_left(self) -> int:
        """Steps until this sequence has finished."""
        return self.request.steps - self.steps_done

    @property
    def is_live(self) -> bool:
        """Whether it still has steps to go that somebody waits for."""
        return self.steps_left > 0 and not self.request.is_settled


@dataclass(slots=True, eq=False)
class Request:
    """Rows of inputs to be computed before a deadline.

    The batcher keeps the counters, under its owner's lock; the worker thread writes the outputs; the event loop
    resolves the future.
    """

    inputs: Mapping[str, Array]
    """By name: `[rows, ...]`, or `[steps, rows, ...]` for inputs a step."""
    rows: int
    steps: int
    deadline: float
    """On the engine's monotonic clock, in seconds."""
    wanted: frozenset[str] | None = None
    """Names of the outputs to keep; all of them when None."""
    on_progress: Callable[[], None] | None = None
    """Called on the event loop whenever `steps_done` may have grown; marks the request as a stream."""

    # The engine sets what follows.
    outputs: dict[str, Array] = field(init=False, default_factory=dict)
    future: asyncio.Future[None] | None = field(init=False, default=None)
    steps_done: list[int] = field(init=False)
    """Steps computed of every row; its outputs are there up to these."""
    rows_entered: int = field(init=False, default=0)
    """Rows that have had a slot."""
    rows_left: int = field(init=False)
    """Rows that have not finished."""
    is_settled: bool = field(init=False, default=False)
    """Answered, failed, expired or abandoned: whatever still waits or runs of it is to be dropped."""
    error: GlimpseError | None = field(init=False, default=None)
    """Why it failed, if it did; set before it is settled."""
    queued_at: float = field(init=False, default=math.inf)
    started_at: float | None = field(init=False, default=None)
    finished_at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.steps_done = [0] * self.rows
        self.rows_left = self.rows

    def allocate(self, signature: Signature) -> None:
        """Make room for the outputs that are wanted.

        Inputs that do not fit are a bug of the caller, found here: later they would take the worker down, and with it
        everybody else's requests.
        """
        for spec in signature.inputs:
            given, fitting = self.inputs[spec.name], shape_of(spec, self.rows, self.steps)
            assert given.shape == fitting, f"this is a bug: {spec.name} has the shape {given.shape}, not {fitting}"
            assert given.dtype == spec.dtype, f"this is a bug: {spec.name} is {given.dtype}, not {spec.dtype}"
        for spec in signature.outputs:
            if self.wanted is None or spec.name in self.wanted:
                self.outputs[spec.name] = np.empty(shape_of(spec, self.rows, self.steps), spec.dtype)

    def queue_seconds(self, now: float) -> float:
        """From admission to the first segment, or until now."""
        return max(0.0, (now if self.started_at is None else self.started_at) - self.queued_at)

    def compute_seconds(self, now: float) -> float:
        """From the first segment to the end of the last, or until now."""
        if self.started_at is None:
            return 0.0
        return (now if self.finished_at is None else self.finished_at) - self.started_at
