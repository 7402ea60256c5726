"""The protocol between the engine and whatever computes a graph.

A runtime is *bound* to buffers: arrays that the caller owns, reads and writes, and whose addresses stay. Calling what
`bind` answers computes the graph from the input buffers into the output buffers, without another copy where the
runtime can help it. Binding is the slow part and is done once for a shape; calling is the fast part.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from export.manifest import Array, Signature, TensorSpec

Bound = Callable[[], None]


class Runtime(Protocol):
    """A graph, loaded and ready. Not thread-safe: one worker thread owns it."""

    @property
    def signature(self) -> Signature:
        """What the graph takes and answers."""
        ...

    @property
    def provider(self) -> str:
        """What computes, as the runtime names it: `CPUExecutionProvider`, `CUDAExecutionProvider`, `cpu`, `cuda`."""
        ...

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Bound:
        """Bind C-contiguous buffers by name: every input and state, every output and next state.

        The call that is answered raises whatever the runtime raises when it fails.
        """
        ...


class RuntimeModule(Protocol):
    """What a runtime's module offers."""

    def best_device(self) -> str:
        """The device to take if none is asked for: `cuda` if there is a GPU, or `cpu`."""
        ...

    def load(self, path: str, signature: Signature, options: "RuntimeOptions") -> Runtime:
        """Load the graph in the file at `path`.

        Raises:
            ArtifactRejected: the file is no such graph, or its inputs and outputs are not the signature's.
            DeviceUnavailable: the device that the options ask for is not there.
        """
        ...


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How graphs are computed."""

    device: str
    """`cpu` or `cuda`."""
    threads: int
    """Threads within one graph; runtimes do not spin while they wait."""


def shape_of(spec: TensorSpec, rows: int, steps: int) -> tuple[int, ...]:
    """A tensor's shape with its free axes filled in."""
    free = {"B": rows, "T": steps}
    return tuple(axis if isinstance(axis, int) else free[axis] for axis in spec.shape)


def allocate_outputs(signature: Signature, rows: int, steps: int) -> dict[str, Array]:
    """Buffers for all that a graph answers, the next state included."""
    return {name: np.empty(shape_of(spec, rows, steps), spec.dtype) for name, spec in signature.answers.items()}


def compute(runtime: Runtime, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a graph once on fresh buffers: for warm-up and golden examples, not for the hot path."""
    signature = runtime.signature
    first = signature.inputs[0]
    value = inputs[first.name]
    steps, rows = (value.shape[0], value.shape[1]) if first.is_per_step else (1, value.shape[0])
    outputs = allocate_outputs(signature, rows, steps)
    runtime.bind({name: np.ascontiguousarray(inputs[name]) for name in signature.input_names}, outputs)()
    return outputs
