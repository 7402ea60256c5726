"""Slots: the arrays of the running batch, and the calls into the runtime.

Every sequence in the running batch has a slot: a row in preallocated arrays of the largest batch. A segment of n rows
is computed on the prefix `[:n]` of them, without copying the state: the state lives in two sets of arrays, a segment
reads one and writes the other, and they change places. What is copied are a sequence's own inputs and outputs.

The runtime is bound to a prefix once for every (rows, steps, set); after that, a segment is one call.

A slot's row is written afresh when a sequence enters it, from the graph's initial state. Nothing of its predecessor is
left.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from export.manifest import Array, TensorSpec
from service.engine.batcher import Batch
from service.engine.request import Sequence
from service.runtime.base import Bound, Runtime, shape_of


class Slots:
    """The running batch of one graph; owned by one worker thread."""

    def __init__(self, runtime: Runtime, initial: Mapping[str, Array], *, slots: int, longest_segment: int) -> None:
        signature = runtime.signature
        self._runtime = runtime
        self._initial = initial
        self._row_inputs = [spec for spec in signature.inputs if not spec.is_per_step]
        self._row_outputs = [spec for spec in signature.outputs if not spec.is_per_step]
        self._state_names = [spec.name for spec in signature.state]
        self._rows = {spec.name: np.zeros(shape_of(spec, slots, 1), spec.dtype) for spec in self._row_inputs}
        self._states = tuple(
            {spec.name: np.zeros(shape_of(spec, slots, 1), spec.dtype) for spec in signature.state} for _ in range(2)
        )
        self._answers = {spec.name: np.zeros(shape_of(spec, slots, 1), spec.dtype) for spec in self._row_outputs}
        self._step_inputs = {
            spec.name: _Steps(spec, slots, longest_segment) for spec in signature.inputs if spec.is_per_step
        }
        self._step_outputs = {
            spec.name: _Steps(spec, slots, longest_segment) for spec in signature.outputs if spec.is_per_step
        }
        self._now = 0
        self._bound: dict[tuple[int, int, int, int], Bound] = {}

    def compute(self, batch: Batch) -> dict[int, Exception]:
        """Compute a segment; answers what failed, by slot.

        If the batch fails as a whole, its rows are computed one by one, so that only those fail that fail alone.
        """
        for source, target in batch.moves:
            self._move(source, target)
        for slot, sequence in batch.entered:
            self._enter(slot, sequence)
        failures: dict[int, Exception] = {}
        try:
            self._segment(batch.running, 0, batch.steps)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises, its batch must not share the fate
            if len(batch.running) == 1:
                failures[0] = error
            else:
                for slot, sequence in enumerate(batch.running):
                    try:
                        self._segment([sequence], slot, batch.steps)
                    except Exception as alone:  # noqa: BLE001
                        failures[slot] = alone
        self._now = 1 - self._now
        return failures

    def _segment(self, running: list[Sequence], first: int, steps: int) -> None:
        """Compute `steps` for the rows in slots `first` and after, and hand each its outputs."""
        self._show(running, steps)
        self._bind(len(running), first, steps)()
        self._answer(running, first, steps)

    def _show(self, running: list[Sequence], steps: int) -> None:
        for name, buffer in self._step_inputs.items():
            for slot, sequence in zip(buffer.cut(len(running), steps).rows, running, strict=True):
                given = sequence.shown[name][sequence.steps_done : sequence.steps_done + steps]
                if len(given) == steps:
                    slot[:] = given
                else:
                    # Padding repeats the sequence's own last step. What an earlier segment left there is another
                    # request's, and may be what made it fail.
                    slot[: len(given)] = given
                    slot[len(given) :] = given[-1]

    def _answer(self, running: list[Sequence], first: int, steps: int) -> None:
        for name, buffer in self._step_outputs.items():
            for slot, sequence in zip(buffer.cut(len(running), steps).rows, running, strict=True):
                kept = sequence.kept.get(name)
                if kept is not None and not sequence.request.is_settled:
                    here = kept[sequence.steps_done : sequence.steps_done + steps]
                    here[:] = slot[: len(here)]
        for spec in self._row_outputs:
            for answer, sequence in zip(self._answers[spec.name][first:], running, strict=False):
                kept = sequence.request.outputs.get(spec.name)
                if kept is not None and sequence.steps_left <= steps and not sequence.request.is_settled:
                    kept[sequence.row] = answer

    def _bind(self, rows: int, first: int, steps: int) -> Bound:
        key = (rows, first, steps, self._now)
        bound = self._bound.get(key)
        if bound is None:
            last = first + rows
            before, after = self._states[self._now], self._states[1 - self._now]
            inputs = {name: array[first:last] for name, array in (self._rows | before).items()}
            outputs = {name: array[first:last] for name, array in self._answers.items()}
            outputs |= {f"next_{name}": array[first:last] for name, array in after.items()}
            inputs |= {name: buffer.cut(rows, steps).whole for name, buffer in self._step_inputs.items()}
            outputs |= {name: buffer.cut(rows, steps).whole for name, buffer in self._step_outputs.items()}
            bound = self._bound[key] = self._runtime.bind(inputs, outputs)
        return bound

    def _move(self, source: int, target: int) -> None:
        for arrays in (self._rows, self._states[self._now]):
            for array in arrays.values():
                array[target] = array[source]

    def _enter(self, slot: int, sequence: Sequence) -> None:
        state = self._states[self._now]
        for name in self._state_names:
            state[name][slot] = self._initial[name]
        request, row = sequence.request, sequence.row
        for spec in self._row_inputs:
            self._rows[spec.name][slot] = request.inputs[spec.name][row]
        # Cut out once: cutting costs as much as copying a few steps does.
        sequence.shown = {name: request.inputs[name][:, row] for name in self._step_inputs}
        sequence.kept = {name: request.outputs[name][:, row] for name in self._step_outputs if name in request.outputs}


@dataclass(frozen=True, slots=True)
class _Cut:
    """A segment's part of a buffer."""

    whole: Array
    """[T, B, ...], contiguous."""
    rows: list[Array]
    """[T, ...] for each row."""


class _Steps:
    """A buffer for up to `steps` x `rows` values, cut to contiguous arrays of any smaller segment."""

    def __init__(self, spec: TensorSpec, rows: int, steps: int) -> None:
        self._spec = spec
        self._buffer = np.zeros(int(np.prod(shape_of(spec, rows, steps))), spec.dtype)
        self._cuts: dict[tuple[int, int], _Cut] = {}

    def cut(self, rows: int, steps: int) -> _Cut:
        found = self._cuts.get((rows, steps))
        if found is None:
            shape = shape_of(self._spec, rows, steps)
            whole = self._buffer[: int(np.prod(shape))].reshape(shape)
            found = self._cuts[rows, steps] = _Cut(whole, [whole[:, row] for row in range(rows)])
        return found
