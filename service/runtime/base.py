"""The interface between the engine and the runtimes that compute graphs.

A runtime is *bound* to buffers: arrays that the caller owns and whose addresses do not change. `bind` returns a call
that computes the graph from the input buffers into the output buffers, without further copies where the runtime allows
it. Binding is slow and done once per shape; calling is fast.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from export.manifest import Array, Signature, TensorSpec

Bound = Callable[[], None]
"""Call that computes a graph on the buffers it is bound to."""


class Runtime(Protocol):
    """A loaded graph. Not thread-safe: one worker thread owns it."""

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and state of the graph."""
        ...

    @property
    def provider(self) -> str:
        """Backend, as the runtime names it: `CPUExecutionProvider`, `CUDAExecutionProvider`, `cpu` or `cuda`."""
        ...

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Bound:
        """Bind C-contiguous buffers by name and return the call that computes the graph on them.

        The call raises whatever the runtime raises when it fails.

        Args:
            inputs: every input and state, with the signature's shapes and dtypes.
            outputs: every output, and every next state as `next_` and its name.
        """
        ...


class RuntimeModule(Protocol):
    """The interface of a runtime's module."""

    def best_device(self) -> str:
        """Return the device for `auto`: `cuda` if there is a GPU, `cpu` otherwise."""
        ...

    def load(self, path: str, signature: Signature, options: "RuntimeOptions") -> Runtime:
        """Load the graph in the file at `path`.

        Raises:
            ArtifactRejected: the file is not a graph of this runtime, or does not match the signature.
            DeviceUnavailable: the device that the options name is not available.
        """
        ...


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """Where and how graphs are computed."""

    device: str
    """Device type: `cpu` or `cuda`."""
    threads: int
    """Number of CPU threads within one graph."""


def shape_of(spec: TensorSpec, rows: int, steps: int) -> tuple[int, ...]:
    """Return a tensor's shape with its free axes filled in: `B` by `rows`, `T` by `steps`."""
    free = {"B": rows, "T": steps}
    return tuple(axis if isinstance(axis, int) else free[axis] for axis in spec.shape)


def allocate_outputs(signature: Signature, rows: int, steps: int) -> dict[str, Array]:
    """Return new, uninitialised buffers for all outputs of a graph, by name, including the next state."""
    return {name: np.empty(shape_of(spec, rows, steps), spec.dtype) for name, spec in signature.all_outputs.items()}


def compute(runtime: Runtime, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a graph once on new buffers, for warm-up and golden examples; return its outputs and next state by name."""
    signature = runtime.signature
    first = signature.inputs[0]
    value = inputs[first.name]
    steps, rows = (value.shape[0], value.shape[1]) if first.is_per_step else (1, value.shape[0])
    outputs = allocate_outputs(signature, rows, steps)
    runtime.bind({name: np.ascontiguousarray(inputs[name]) for name in signature.input_names}, outputs)()
    return outputs
