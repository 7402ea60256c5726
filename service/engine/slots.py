"""Slots: the arrays of the running batch, and the calls into the runtime.

Each sequence in the running batch has a slot: one row of arrays that are preallocated for the largest batch. A segment
of n rows is computed on the prefix `[:n]` of these arrays. The state is double-buffered, not copied: each segment
reads one set of state arrays and writes the other. What is copied are a sequence's own inputs, when it enters and, if
they are per step, for each segment; its outputs; and all that a slot holds when a sequence moves to another.

The runtime is bound once to each (rows, steps, set); after that, a segment is one call.

When a sequence enters a slot, the row is reset to the graph's initial state, so that nothing of its predecessor
remains.

A segment has at least `least_rows` rows, as the graph's signature asks, so that rounding does not depend on the batch
size; a lone sequence is computed beside copies of itself.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from export.manifest import Array, TensorSpec
from service.engine.batcher import Batch
from service.engine.request import Sequence
from service.engine.steps import SegmentBuffer, StepInputs
from service.runtime.base import Bound, Runtime, shape_of

MAX_BINDINGS = 4096
"""Maximum number of cached bindings, about 12 kB each in ONNX Runtime; a recurrent graph with the default policy needs
a quarter of them."""


class Slots:
    """The running batch of one graph; owned by one worker thread."""

    def __init__(self, runtime: Runtime, initial: Mapping[str, Array], *, slots: int, longest_segment: int) -> None:
        """Allocate the arrays; nothing is bound yet.

        Args:
            runtime: the graph.
            initial: state of a new sequence by name; each array has the state's shape without the batch axis.
            slots: largest batch, in sequences.
            longest_segment: longest segment, in steps.
        """
        signature = runtime.signature
        self._runtime = runtime
        self._initial = initial
        self._least_rows = signature.least_rows
        self._spare = slots
        """First of the `least_rows` rows behind the slots, where a sequence can be computed alone."""
        height = slots + self._least_rows

        def rows(specs: Iterable[TensorSpec]) -> dict[str, Array]:
            return {
                spec.name: np.zeros(shape_of(spec, height, 1), spec.dtype) for spec in specs if not spec.is_per_step
            }

        def buffers(specs: Iterable[TensorSpec]) -> dict[str, SegmentBuffer]:
            return {spec.name: SegmentBuffer(spec, height, longest_segment) for spec in specs if spec.is_per_step}

        self._inputs, self._input_buffers = rows(signature.inputs), buffers(signature.inputs)
        self._outputs, self._output_buffers = rows(signature.outputs), buffers(signature.outputs)
        self._step_inputs = StepInputs(signature.inputs, slots, longest_segment)
        self._states = (rows(signature.state), rows(signature.state))
        self._current = 0
        self._bound: dict[tuple[int, int, int, int], Bound] = {}

    def load(self, batch: Batch) -> None:
        """Prepare the slots and the inputs for the segment."""
        for source, target in batch.moves:
            self._move(source, target)
            self._step_inputs.move(source, target)
        if batch.entered:
            self._enter(batch.entered)
        self._gather(batch, range(len(batch.running)))

    def compute(self, batch: Batch) -> dict[int, Exception]:
        """Compute the loaded segment; return the exceptions of the rows that failed, by slot.

        If the batch fails, compute its rows one by one, so that only those fail that also fail alone.
        """
        failures: dict[int, Exception] = {}
        slots = range(len(batch.running))
        try:
            self._segment(batch, slots, 0)
        except Exception as error:  # noqa: BLE001 - a runtime may raise anything, and one row must not fail the batch
            if len(slots) == 1:
                failures[0] = error
            else:
                for slot in slots:
                    try:
                        self._compute_alone(batch, slot)
                    except Exception as alone:  # noqa: BLE001
                        failures[slot] = alone
        self._current = 1 - self._current
        return failures

    def _compute_alone(self, batch: Batch, slot: int) -> None:
        alone = range(slot, slot + 1)
        self._gather(batch, alone)
        self._move(slot, self._spare)
        self._segment(batch, alone, self._spare)
        for array in self._states[1 - self._current].values():
            array[slot] = array[self._spare]

    def _segment(self, batch: Batch, slots: range, first: int) -> None:
        """Compute the segment of some slots, held in rows `first` and after, and copy the outputs to their requests."""
        rows = self._rows(slots)
        for copy in range(first + len(slots), first + rows):
            self._move(first, copy)
        self._bind(rows, first, batch.steps)()
        self._copy_outputs(batch, slots, first)

    def _gather(self, batch: Batch, slots: range) -> None:
        """Copy the inputs of the segment to the buffers."""
        buffers = _cut(self._input_buffers, self._rows(slots), batch.steps)
        self._step_inputs.gather(slots, batch.left[slots.start : slots.stop], buffers)

    def _rows(self, slots: range) -> int:
        return max(len(slots), self._least_rows)

    def _copy_outputs(self, batch: Batch, slots: range, first: int) -> None:
        steps, some = batch.steps, slice(slots.start, slots.stop)
        buffers = _cut(self._output_buffers, self._rows(slots), steps)
        computed = {name: buffer.swapaxes(0, 1) for name, buffer in buffers.items()}
        for row, (sequence, left) in enumerate(zip(batch.running[some], batch.left[some], strict=True)):
            # Steps are counted from the end, where those that are left are counted from.
            if left > steps:
                for name, kept in sequence.step_outputs:
                    if left <= len(kept):
                        kept[-left : steps - left] = computed[name][row]
            else:
                for name, kept in sequence.step_outputs:
                    last = min(left, len(kept))
                    kept[-last:] = computed[name][row, left - last : left]
                for name, answers in self._outputs.items():
                    if name in sequence.request.outputs:
                        sequence.request.outputs[name][sequence.row] = answers[first + row]

    def _bind(self, rows: int, first: int, steps: int) -> Bound:
        key = (rows, first, steps, self._current)
        bound = self._bound.get(key)
        if bound is None:
            if len(self._bound) == MAX_BINDINGS:
                self._bound.clear()
            last = first + rows
            before, after = self._states[self._current], self._states[1 - self._current]
            inputs = {name: array[first:last] for name, array in (self._inputs | before).items()}
            outputs = {name: array[first:last] for name, array in self._outputs.items()}
            outputs |= {f"next_{name}": array[first:last] for name, array in after.items()}
            inputs |= _cut(self._input_buffers, rows, steps)
            outputs |= _cut(self._output_buffers, rows, steps)
            bound = self._bound[key] = self._runtime.bind(inputs, outputs)
        return bound

    def _move(self, source: int, target: int) -> None:
        for arrays in (self._inputs, self._states[self._current]):
            for array in arrays.values():
                array[target] = array[source]

    def _enter(self, entered: list[tuple[int, Sequence]]) -> None:
        if self._states[self._current]:
            slots = np.array([slot for slot, _ in entered])
            for name, array in self._states[self._current].items():
                array[slots] = self._initial[name]
        for slot, sequence in entered:
            request, row = sequence.request, sequence.row
            for name, array in self._inputs.items():
                array[slot] = request.inputs[name][row]
            self._step_inputs.enter(slot, sequence)
            # Slice once, on entry: slicing costs as much as copying a few steps.
            sequence.step_outputs = tuple(
                (name, kept[:, row]) for name, kept in request.outputs.items() if name in self._output_buffers
            )


def _cut(buffers: Mapping[str, SegmentBuffer], rows: int, steps: int) -> dict[str, Array]:
    """Return the buffers' views for a segment."""
    return {name: buffer.cut(rows, steps) for name, buffer in buffers.items()}
