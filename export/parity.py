"""Parity: what a served graph answers against the same network in eager PyTorch.

A recurrent graph's reference is its module called step after step, so that the loop is checked with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.graphs import ExportGraph, Form
from export.manifest import Array
from models.errors import ModelError

TOLERANCE = {"float32": 2e-4, "uint8": 1.0, "int64": 0.0}
"""Largest absolute difference by type; for floats beyond 1, relative to the largest value."""


class ParityError(ModelError):
    """A served graph does not answer what its network does."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest difference, and where it was found."""

    error: float
    place: str


def inputs_for(graph: ExportGraph, steps: int, rows: int, seed: int) -> Mapping[str, Tensor]:
    """Example inputs with the initial state, for every tensor that the graph takes."""
    state = {name: row.expand(rows, *row.shape).contiguous() for name, row in graph.initial.items()}
    return {**graph.example(steps, rows, torch.Generator().manual_seed(seed)), **state}


@torch.no_grad()
def reference(graph: ExportGraph, inputs: Mapping[str, Tensor]) -> dict[str, Array]:
    """The eager network's outputs and next state, by name."""
    signature, module = graph.signature, graph.module.eval()
    if graph.form is not Form.STEP:
        results = module(*(inputs[name] for name in signature.input_names))
        return {name: tensor.numpy() for name, tensor in zip(signature.output_names, results, strict=True)}
    values = dict(inputs)
    per_step = [spec.name for spec in signature.inputs if spec.is_per_step]
    collected: dict[str, list[Tensor]] = {spec.name: [] for spec in signature.outputs}
    for step in range(len(inputs[per_step[0]])):
        now = {**values, **{name: inputs[name][step] for name in per_step}}
        results = module(*(now[name] for name in signature.input_names))
        named = dict(zip(signature.output_names, results, strict=True))
        for name, steps in collected.items():
            steps.append(named[name])
        values |= {spec.name: named[f"next_{spec.name}"] for spec in signature.state}
    answer = {name: torch.stack(steps).numpy() for name, steps in collected.items()}
    return answer | {f"next_{spec.name}": values[spec.name].numpy() for spec in signature.state}


def compare(expected: Mapping[str, Array], found: Mapping[str, Array], where: str) -> Worst:
    """The largest difference between floats; relative to the largest value where that is beyond 1.

    Raises:
        ParityError: a difference is not tolerated; says where it is and how large.
    """
    worst = Worst(0.0, "nowhere")
    for name, right in expected.items():
        answer = found[name]
        if answer.shape != right.shape or answer.dtype != right.dtype:
            raise ParityError(
                f"{where}: {name} is {answer.dtype}{list(answer.shape)}, not {right.dtype}{list(right.shape)}"
            )
        difference = np.abs(answer.astype(np.float64) - right.astype(np.float64))
        difference = np.where(np.isfinite(difference), difference, np.inf)
        place = np.unravel_index(int(difference.argmax()), difference.shape)
        error = float(difference[place])
        scale = max(1.0, float(np.abs(right.astype(np.float64)).max()))
        tolerated = TOLERANCE[str(right.dtype)] * (scale if right.dtype == np.float32 else 1.0)
        described = f"{where}: {name}{[int(index) for index in place]}"
        if error > tolerated:
            raise ParityError(
                f"{described} is {answer[place]:g}, not {right[place]:g}: off by {error:g}, more than {tolerated:g}"
            )
        if right.dtype == np.float32 and error / scale > worst.error:
            worst = Worst(error / scale, described)
    return worst
