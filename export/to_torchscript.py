"""Graphs as TorchScript: traced, and for a recurrent graph that is written as a step, looped by a small script.

PyTorch has deprecated TorchScript in favour of `torch.export`; on Python 3.11 to 3.13 it works as before.
"""

import warnings
from pathlib import Path

import torch
from torch import nn

from export.graphs import ExportGraph, Form, traced_inputs
from export.manifest import Signature


class _Stepper(nn.Module):
    """Module that holds a traced step; its `forward` is defined later."""

    def __init__(self, step: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.step = step


def export(graph: ExportGraph, path: Path) -> None:
    """Write a graph to `path`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about deprecation, and the tracer's about shapes
        module = torch.jit.trace(  # type: ignore[no-untyped-call]
            graph.module.eval(), traced_inputs(graph), check_trace=False
        )
        if graph.form is Form.STEP:
            module = torch.jit.script(_Stepper(module))
            module.define(loop_source(graph.signature))
    torch.jit.save(module, path)


def loop_source(signature: Signature) -> str:
    """Return the TorchScript source of a `forward` that calls `self.step` for each step.

    A tracer would unroll the loop, and TorchScript has no type for a variable number of tensors, so the loop is
    generated for each signature.
    """
    per_step = [spec.name for spec in signature.inputs if spec.is_per_step]
    outputs = [spec.name for spec in signature.outputs]
    state = [spec.name for spec in signature.state]
    arguments = [f"{name}[t]" if name in per_step else name for name in signature.input_names]
    lines = [
        f"def forward(self, {', '.join(f'{name}: Tensor' for name in signature.input_names)}):",
        *(f"    all_{name}: List[Tensor] = []" for name in outputs),
        f"    for t in range({per_step[0]}.shape[0]):",
        f"        {', '.join([f'a_{name}' for name in outputs] + state)} = self.step({', '.join(arguments)})",
        *(f"        all_{name}.append(a_{name})" for name in outputs),
        f"    return ({', '.join([f'torch.stack(all_{name})' for name in outputs] + state)},)",
    ]
    return "\n".join(lines) + "\n"
