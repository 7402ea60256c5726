"""Parity: a served graph is compared with the same network in eager PyTorch.

The reference of a recurrent graph is its module called step by step, whether it was written as a step or as a segment,
so that the loop and the state that it carries are checked too.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from export.graphs import ExportGraph, Form, inputs_for
from export.manifest import Array
from models.errors import ModelError

TOLERANCE = {"float32": 2e-4, "uint8": 1.0, "int64": 0.0}
"""Tolerated absolute difference, by type; relative to the largest value if that is a float above 1."""
BATCHES = (1, 2, 64)
STEPS = (1, 7)
"""Lengths of the segments with which a recurrent graph is tried."""
Runner = Callable[[Mapping[str, Tensor]], Mapping[str, Array]]
"""Function that runs a served graph on inputs by name, and returns its outputs by name."""


class ParityError(ModelError):
    """A served graph does not compute what its network does."""


def prove(graph: ExportGraph, run: Runner, where: str) -> float:
    """Compare the graph with its network at all `BATCHES` and `STEPS`, and return the largest difference.

    Raises:
        ParityError: a difference is not tolerated.
    """
    worst = 0.0
    for rows in BATCHES:
        for steps in STEPS if graph.signature.is_recurrent else (1,):
            inputs = inputs_for(graph, steps, rows, seed=rows + steps)
            place = f"{where} at batch {rows}, {steps} steps"
            worst = max(worst, compare(reference(graph, inputs), run(inputs), place))
    return worst


@torch.no_grad()
def reference(graph: ExportGraph, inputs: Mapping[str, Tensor]) -> dict[str, Array]:
    """Return the outputs and the next state of the network in eager PyTorch, by name."""
    signature, module = graph.signature, graph.module.eval()
    if graph.form is Form.BATCH:
        results = module(*(inputs[name] for name in signature.input_names))
        return {name: tensor.numpy() for name, tensor in zip(signature.output_names, results, strict=True)}
    takes_steps = graph.form is Form.SEGMENT
    values = dict(inputs)
    per_step = [spec.name for spec in signature.inputs if spec.is_per_step]
    collected: dict[str, list[Tensor]] = {spec.name: [] for spec in signature.outputs}
    for step in range(len(inputs[per_step[0]])):
        part = slice(step, step + 1) if takes_steps else step
        now = {**values, **{name: inputs[name][part] for name in per_step}}
        results = module(*(now[name] for name in signature.input_names))
        named = dict(zip(signature.output_names, results, strict=True))
        for name, steps in collected.items():
            steps.append(named[name])
        values |= {spec.name: named[f"next_{spec.name}"] for spec in signature.state}
    joined = torch.cat if takes_steps else torch.stack
    answer = {name: joined(steps).numpy() for name, steps in collected.items()}
    return answer | {f"next_{spec.name}": values[spec.name].numpy() for spec in signature.state}


def compare(expected: Mapping[str, Array], found: Mapping[str, Array], where: str) -> float:
    """Return the largest difference between floats; relative to the largest value if that is above 1.

    Raises:
        ParityError: a difference is not tolerated; the message says where and how large it is.
    """
    worst = 0.0
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
        if error > tolerated:
            raise ParityError(
                f"{where}: {name}{[int(index) for index in place]} is {answer[place]:g}, not {right[place]:g}: "
                f"off by {error:g}, more than {tolerated:g}"
            )
        if right.dtype == np.float32:
            worst = max(worst, error / scale)
    return worst
