"""Graphs on ONNX Runtime, on the CPU or a CUDA device."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from export.manifest import Array, Signature
from service.errors import ArtifactRejected, DeviceUnavailable
from service.runtime.base import Bound, RuntimeOptions

CPU = "CPUExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider"}
ONNX_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "uint8": "tensor(uint8)"}


class OnnxRuntime:
    """A graph in an ONNX Runtime session; see `service.runtime.base.Runtime`."""

    def __init__(self, session: ort.InferenceSession, signature: Signature) -> None:
        self._session = session
        self._signature = signature

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and state of the graph."""
        return self._signature

    @property
    def provider(self) -> str:
        """First execution provider of the session."""
        return str(self._session.get_providers()[0])

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Bound:
        """Bind host buffers; on the CPU they are used in place, without a copy."""
        bound = _BoundSession(self._session, self._session.io_binding(), inputs, outputs, self.provider != CPU)
        bound.bind_inputs()
        bound.bind_outputs()
        return bound


@dataclass(frozen=True, slots=True)
class _BoundSession:
    session: ort.InferenceSession
    binding: ort.IOBinding
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    """Output buffers; kept alive here, like the inputs, because the binding only holds their addresses."""
    is_elsewhere: bool
    """Whether the inputs must be copied to a device; ONNX Runtime copies when binding, not when running the graph."""

    def bind_inputs(self) -> None:
        for name, array in self.inputs.items():
            self.binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def bind_outputs(self) -> None:
        for name, array in self.outputs.items():
            self.binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def __call__(self) -> None:
        if self.is_elsewhere:
            self.bind_inputs()
        self.session.run_with_iobinding(self.binding)


def best_device() -> str:
    """Return the device for `auto`: `cuda` if there is a GPU, `cpu` otherwise."""
    has_gpu = PROVIDERS["cuda"] in ort.get_available_providers() and Path("/dev/nvidiactl").exists()
    return "cuda" if has_gpu else "cpu"


def load(path: str, signature: Signature, options: RuntimeOptions) -> OnnxRuntime:
    """Load an ONNX file; see `service.runtime.base.RuntimeModule`."""
    provider = PROVIDERS[options.device]
    if provider not in ort.get_available_providers():
        raise DeviceUnavailable(
            f"device {options.device} was asked for, but this ONNX Runtime has no {provider} "
            f"(it has {', '.join(ort.get_available_providers())})"
        )
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = 3
    # Threads that spin while idle would take CPU time from the HTTP side.
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if options.device != "cpu":
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(path, session_options, providers=[provider])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        if options.device != "cpu":
            raise DeviceUnavailable(f"{path} does not run on {provider}: {error}") from error
        raise ArtifactRejected(f"{path} is not a graph that ONNX Runtime can load: {error}") from error
    # A provider that failed to start is missing from this list. The option `session.disable_cpu_ep_fallback` would be
    # too strict: shape arithmetic always runs on the CPU.
    if session.get_providers()[0] != provider:
        raise DeviceUnavailable(f"{path} should run on {provider}, but runs on {session.get_providers()[0]}")
    _check(path, session, signature)
    return OnnxRuntime(session, signature)


def _check(path: str, session: ort.InferenceSession, signature: Signature) -> None:
    expected_inputs = {name: ONNX_TYPES[spec.dtype] for name, spec in signature.all_inputs.items()}
    expected_outputs = {name: ONNX_TYPES[spec.dtype] for name, spec in signature.all_outputs.items()}
    inputs = {node.name: node.type for node in session.get_inputs()}
    outputs = {node.name: node.type for node in session.get_outputs()}
    if inputs != expected_inputs or outputs != expected_outputs:
        raise ArtifactRejected(
            f"{path} takes {inputs} and returns {outputs}; its manifest says {expected_inputs} and {expected_outputs}"
        )
    for node in session.get_inputs():
        axes = len(signature.all_inputs[node.name].shape)
        if len(node.shape) != axes:
            raise ArtifactRejected(f"{path}: input {node.name} has {len(node.shape)} axes, its manifest says {axes}")
