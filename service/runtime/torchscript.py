"""Graphs on TorchScript, on the CPU or a CUDA device. The only module of the service that imports PyTorch."""

from collections.abc import Mapping

import torch

from export.manifest import Array, Signature
from service.errors import ArtifactRejected, DeviceUnavailable
from service.runtime.base import Bound, RuntimeOptions


class TorchScriptRuntime:
    """A graph in a TorchScript module; see `service.runtime.base.Runtime`."""

    def __init__(self, module: torch.jit.ScriptModule, signature: Signature, device: torch.device) -> None:
        self._module = module
        self._signature = signature
        self._device = device

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and state of the graph."""
        return self._signature

    @property
    def provider(self) -> str:
        """Type of the device: `cpu` or `cuda`."""
        return self._device.type

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Bound:
        """Bind host buffers as tensors that share their memory; results are copied into the outputs."""
        given = [torch.from_numpy(inputs[name]) for name in self._signature.input_names]
        answered = [torch.from_numpy(outputs[name]) for name in self._signature.output_names]

        def call() -> None:
            with torch.inference_mode():
                results = self._module(*(tensor.to(self._device) for tensor in given))
                for buffer, result in zip(answered, results, strict=True):
                    buffer.copy_(result)

        return call


def best_device() -> str:
    """Return the device for `auto`: `cuda` if there is a GPU, `cpu` otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load(path: str, signature: Signature, options: RuntimeOptions) -> TorchScriptRuntime:
    """Load a TorchScript file; see `service.runtime.base.RuntimeModule`."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("device cuda was asked for, but this PyTorch sees no CUDA device")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    try:
        module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ArtifactRejected(f"{path} is not a graph that TorchScript can load: {error}") from error
    module.eval()
    takes = len(list(module.graph.inputs())) - 1  # the first is the module itself
    if takes != len(signature.input_names):
        raise ArtifactRejected(
            f"{path} takes {takes} tensors; its manifest says {len(signature.input_names)}: "
            f"{', '.join(signature.input_names)}"
        )
    return TorchScriptRuntime(module, signature, device)
