"""Slots: the arrays of the running batch, and the calls into the runtime.

Every sequence in the running batch has a slot: a row in preallocated arrays of the largest batch. A segment of n rows
is computed on the prefix `[:n]` of them, without copying the state: the state lives in two sets of arrays, a segment
reads one and writes the other, and they change places. What is copied are a sequence's own inputs and outputs.

The runtime is bound to a prefix once for every (rows, steps, set); after that, a segment is one call.

A slot's row is written afresh when a sequence enters it, from the graph's initial state. Nothing of its predecessor is
left.
"""

from collections.abc import Mapping

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
        self._step_inputs = [spec for spec in signature.inputs if spec.is_per_step]
        self._row_outputs = [spec for spec in signature.outputs if not spec.is_per_step]
        self._step_outputs = [spec for spec in signature.outputs if spec.is_per_step]
        self._state_names = [spec.name for spec in signature.state]
        self._rows = {spec.name: np.zeros(shape_of(spec, slots, 1), spec.dtype) for spec in self._row_inputs}
        self._states = tuple(
            {spec.name: np.zeros(shape_of(spec, slots, 1), spec.dtype) for spec in signature.state} for _ in range(2)
        )
        self._answers = {spec.name: np.zeros(shape_of(spec, slots, 1), spec.dtype) for spec in self._row_outputs}
        # The steps of a segment lie one after the other for whatever number of rows, so these are cut to size flat.
        self._steps = {
            spec.name: _Flat(spec, slots, longest_segment) for spec in (*self._step_inputs, *self._step_outputs)
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
        for spec in self._step_inputs:
            view = self._steps[spec.name].view(len(running), steps)
            for row, sequence in enumerate(running):
                given = sequence.request.inputs[spec.name][
                    sequence.steps_done : sequence.steps_done + steps, sequence.row
                ]
                view[: len(given), row] = given
                if len(given) < steps:
                    # Padding repeats the sequence's own last step. What an earlier segment left there is another
                    # request's, and may be what made it fail.
                    view[len(given) :, row] = given[-1]

    def _answer(self, running: list[Sequence], first: int, steps: int) -> None:
        for row, sequence in enumerate(running):
            request = sequence.request
            if request.is_settled:
                continue
            begin = sequence.steps_done
            end = min(begin + steps, request.steps)
            for spec in self._step_outputs:
                if (kept := request.outputs.get(spec.name)) is not None:
                    view = self._steps[spec.name].view(len(running), steps)
                    kept[begin:end, sequence.row] = view[: end - begin, row]
            if end == request.steps:
                for spec in self._row_outputs:
                    if (kept := request.outputs.get(spec.name)) is not None:
                        kept[sequence.row] = self._answers[spec.name][first + row]

    def _bind(self, rows: int, first: int, steps: int) -> Bound:
        key = (rows, first, steps, self._now)
        bound = self._bound.get(key)
        if bound is None:
            last = first + rows
            before, after = self._states[self._now], self._states[1 - self._now]
            inputs = {name: array[first:last] for name, array in (self._rows | before).items()}
            outputs = {name: array[first:last] for name, array in self._answers.items()}
            outputs |= {f"next_{name}": array[first:last] for name, array in after.items()}
            inputs |= {spec.name: self._steps[spec.name].view(rows, steps) for spec in self._step_inputs}
            outputs |= {spec.name: self._steps[spec.name].view(rows, steps) for spec in self._step_outputs}
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
        for spec in self._row_inputs:
            self._rows[spec.name][slot] = sequence.request.inputs[spec.name][sequence.row]


class _Flat:
    """A buffer for up to `steps` x `rows` values, cut to contiguous arrays of any smaller segment."""

    def __init__(self, spec: TensorSpec, rows: int, steps: int) -> None:
        self._spec = spec
        self._buffer = np.zeros(int(np.prod(shape_of(spec, rows, steps))), spec.dtype)
        self._views: dict[tuple[int, int], Array] = {}

    def view(self, rows: int, steps: int) -> Array:
        view = self._views.get((rows, steps))
        if view is None:
            shape = shape_of(self._spec, rows, steps)
            view = self._views[rows, steps] = self._buffer[: int(np.prod(shape))].reshape(shape)
        return view
