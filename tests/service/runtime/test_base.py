"""Shapes and buffers of a signature."""

import numpy as np

from export.manifest import Signature, TensorSpec
from service.runtime.base import allocate_outputs, shape_of

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("T", "B", 3)),),
    outputs=(
        TensorSpec(name="y", dtype="uint8", shape=("T", "B", 2, 2)),
        TensorSpec(name="z", dtype="float32", shape=("B",)),
    ),
    state=(TensorSpec(name="h", dtype="float32", shape=("B", 5)),),
)


def test_free_axes_are_filled_in() -> None:
    """T is replaced by the steps and B by the rows."""
    assert shape_of(SIGNATURE.inputs[0], rows=4, steps=7) == (7, 4, 3)
    assert shape_of(SIGNATURE.state[0], rows=4, steps=7) == (4, 5)


def test_there_is_a_buffer_for_every_output_and_next_state() -> None:
    """The buffers have the right dtype and shape, and are contiguous."""
    outputs = allocate_outputs(SIGNATURE, rows=4, steps=7)

    assert {name: (array.shape, array.dtype) for name, array in outputs.items()} == {
        "y": ((7, 4, 2, 2), np.dtype("uint8")),
        "z": ((4,), np.dtype("float32")),
        "next_h": ((4, 5), np.dtype("float32")),
    }
    assert all(array.flags.c_contiguous for array in outputs.values())
