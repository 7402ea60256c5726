"""Per-step inputs and outputs: a segment's buffers, and the inputs of whole sequences, from which they are filled."""

from collections.abc import Iterable, Mapping

import numpy as np

from export.manifest import Array, TensorSpec
from service.engine.request import Sequence
from service.runtime.base import shape_of

FEW_STEPS = 64
"""Number of steps for which memory is taken at first."""


class SegmentBuffer:
    """A buffer for per-step values, [steps rows ...], with contiguous views for smaller segments."""

    def __init__(self, spec: TensorSpec, rows: int, steps: int) -> None:
        self._spec = spec
        self._buffer = np.zeros(int(np.prod(shape_of(spec, rows, steps))), spec.dtype)
        self._cuts: dict[tuple[int, int], Array] = {}

    def cut(self, rows: int, steps: int) -> Array:
        """Return the contiguous view [steps rows ...] for a segment; views of different sizes overlap."""
        found = self._cuts.get((rows, steps))
        if found is None:
            shape = shape_of(self._spec, rows, steps)
            found = self._cuts[rows, steps] = self._buffer[: int(np.prod(shape))].reshape(shape)
        return found


class StepInputs:
    """The per-step inputs of the sequences in the slots, at all of their steps.

    They are copied when a sequence enters, so that one call gathers those of a segment: to slice them from the arrays
    of every request, segment by segment, takes three times as long. They lie at the end of their slot's memory, because
    the steps that are left are counted from there.

    The memory grows for a longer sequence than any before, and is not given back: for 64 slots, the longest episode of
    the service, a repeat copy of 4,226 steps, needs 11 MB, and at most twice that is taken.
    """

    def __init__(self, specs: Iterable[TensorSpec], slots: int, longest_segment: int) -> None:
        """Allocate memory for sequences of `FEW_STEPS`."""
        self._capacity = FEW_STEPS
        self._arrays = {
            spec.name: np.zeros((slots, FEW_STEPS, *shape_of(spec, 1, 1)[2:]), spec.dtype)
            for spec in specs
            if spec.is_per_step
        }
        """By name, [slots capacity ...]."""
        self._ahead = np.arange(longest_segment)[:, None]

    def enter(self, slot: int, sequence: Sequence) -> None:
        """Copy the inputs of a sequence to its slot."""
        request = sequence.request
        if request.steps > self._capacity:
            self._grow(max(request.steps, 2 * self._capacity))
        for name, array in self._arrays.items():
            array[slot, -request.steps :] = request.inputs[name][:, sequence.row]

    def move(self, source: int, target: int) -> None:
        """Copy the inputs of a slot's sequence to another slot."""
        for array in self._arrays.values():
            array[target] = array[source]

    def gather(self, slots: range, left: list[int], buffers: Mapping[str, Array]) -> None:
        """Copy the inputs of a segment to buffers [steps rows ...].

        Behind the end of a sequence, its last step is repeated: what lies there belongs to the next slot, and may be
        what makes another request fail. Rows beyond the slots repeat the first of them.

        Args:
            slots: those whose inputs are copied.
            left: number of steps that the sequence in each of these slots has left.
            buffers: by name.
        """
        if not buffers:
            return
        steps, rows = next(iter(buffers.values())).shape[:2]
        ends = np.arange(slots.start + 1, slots.stop + 1) * self._capacity
        at = ends - np.maximum(np.array(left) - self._ahead[:steps], 1)
        if rows > len(slots):
            at = np.concatenate([at, at[:, :1].repeat(rows - len(slots), axis=1)], axis=1)
        for name, buffer in buffers.items():
            array = self._arrays[name]
            # By default NumPy would compute in a copy of `out`, to leave it as it was if an index were out of bounds.
            array.reshape(-1, *array.shape[2:]).take(at, axis=0, out=buffer, mode="clip")

    def _grow(self, capacity: int) -> None:
        """Make room for longer sequences."""
        for name, array in self._arrays.items():
            grown = self._arrays[name] = np.zeros((len(array), capacity, *array.shape[2:]), array.dtype)
            grown[:, -self._capacity :] = array
        self._capacity = capacity
