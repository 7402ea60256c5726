"""Parity: what differs is found, with its place and its size."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from export import package, parity, to_onnx, to_torchscript
from export.graphs import ExportGraph, inputs_for
from export.manifest import Array

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

Graph = Callable[[str, str], ExportGraph]
Runner = Callable[[Mapping[str, torch.Tensor]], Mapping[str, Array]]

FAMILIES = [
    ("stn-affine", "rectify"),
    ("stn-tps", "rectify"),
    ("draw", "generate"),
    ("draw", "reconstruct"),
    ("ntm-copy", "step"),
]


def onnx_runner(graph: ExportGraph, path: Path) -> Runner:
    to_onnx.export(graph, path)
    return package._onnx_runner(path, graph)


def script_runner(graph: ExportGraph, path: Path) -> Runner:
    to_torchscript.export(graph, path)
    return package._script_runner(path, graph)


@pytest.mark.parametrize("runner", [onnx_runner, script_runner])
@pytest.mark.parametrize(("model", "name"), FAMILIES)
def test_exported_graph_answers_what_the_network_does(
    graph: Graph, tmp_path: Path, model: str, name: str, runner: Callable[[ExportGraph, Path], Runner]
) -> None:
    """At batch 1, 2 and 64, for one step and for many, though it was traced at batch 2 and 3 steps."""
    found = graph(model, name)
    run = runner(found, tmp_path / "graph")

    for rows in (1, 2, 64):
        for steps in (1, 9) if found.signature.is_recurrent else (1,):
            inputs = inputs_for(found, steps, rows, seed=rows)
            worst = parity.compare(parity.reference(found, inputs), run(inputs), f"{rows} x {steps}")
            assert worst <= parity.TOLERANCE["float32"]


def test_corrupted_graph_is_refused_with_place_and_size(graph: Graph, tmp_path: Path) -> None:
    """One weight that is off by a tenth is found, by the output that it spoils."""
    found = graph("ntm-copy", "step")
    path = tmp_path / "graph.onnx"
    to_onnx.export(found, path)
    model = onnx.load(path)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("output.weight"))
    spoilt = numpy_helper.to_array(weights) + np.float32(0.1)
    weights.CopyFrom(numpy_helper.from_array(spoilt, weights.name))
    onnx.save(model, path)
    inputs = inputs_for(found, 3, 2, seed=0)

    with pytest.raises(
        parity.ParityError, match=r"graph: probabilities\[\d, \d, \d\] is .*, not .*: off by 0\.\d+, more than 0.0002"
    ):
        parity.compare(parity.reference(found, inputs), package._onnx_runner(path, found)(inputs), "graph")


class Forgetful(torch.nn.Module):
    """DRAW's segment, but for the canvas that the one before left."""

    def __init__(self, segment: torch.nn.Module) -> None:
        super().__init__()
        self.segment = segment

    def forward(
        self, noise: Tensor, told: Tensor, canvas: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Draw on an empty canvas."""
        drawn: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = self.segment(noise, told, 0 * canvas, hidden, cell)
        return drawn


def test_segment_that_forgets_what_it_drew_is_refused(graph: Graph, tmp_path: Path) -> None:
    """Called step by step, it does not answer what it does in one call."""
    found = graph("draw", "generate")
    forgetful = replace(found, module=Forgetful(found.module))

    with pytest.raises(parity.ParityError, match="here at batch 1, 7 steps: pictures"):
        parity.prove(forgetful, script_runner(forgetful, tmp_path / "graph"), "here")


# --- comparing ---


def answers(**arrays: object) -> dict[str, Array]:
    return {name: np.asarray(array) for name, array in arrays.items()}


def test_worst_difference_is_answered() -> None:
    """The largest of all outputs."""
    right = answers(a=np.zeros((2, 3), np.float32), b=np.zeros(4, np.float32))
    found = answers(a=right["a"] + np.float32(1e-5), b=right["b"].copy())
    found["b"][2] = 3e-5

    assert parity.compare(right, found, "here") == pytest.approx(3e-5)


def test_worst_difference_is_relative_to_large_values() -> None:
    """A hundredth of 100 is as bad as a ten-thousandth of 1."""
    right = answers(a=np.array([100.0, 0.0], np.float32))

    assert parity.compare(right, answers(a=np.array([100.0, 0.01], np.float32)), "here") == pytest.approx(1e-4)


def test_equal_answers_do_not_differ() -> None:
    """By nothing; and a tolerated grey level is no difference of floats."""
    right = answers(a=np.ones(3, np.float32), g=np.ones(3, np.uint8))

    assert parity.compare(right, right, "here") == 0
    assert parity.compare(right, {**right, "g": right["g"] + np.uint8(1)}, "here") == 0


def test_proof_tries_every_batch_and_answers_the_worst(graph: Graph) -> None:
    """Neither the first nor the last."""
    found = graph("ntm-copy", "step")
    tried = []

    def run(inputs: Mapping[str, torch.Tensor]) -> Mapping[str, Array]:
        steps, rows, _ = inputs["inputs"].shape
        tried.append((rows, steps))
        answer = parity.reference(found, inputs)
        return {**answer, "probabilities": answer["probabilities"] + np.float32(1e-4 if rows == 2 else 1e-5)}

    worst = parity.prove(found, run, "graph")

    assert tried == [(rows, steps) for rows in parity.BATCHES for steps in parity.STEPS]
    assert worst == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize(
    ("right", "found"),
    [
        (np.array([1.0], np.float32), np.array([1.00021], np.float32)),
        (np.array([1.0], np.float32), np.array([np.nan], np.float32)),
        (np.array([1.0], np.float32), np.array([np.inf], np.float32)),
        (np.array([50.0, 1.0], np.float32), np.array([50.0, 1.011], np.float32)),
        (np.array([7], np.uint8), np.array([9], np.uint8)),
        (np.array([0], np.uint8), np.array([255], np.uint8)),
        (np.array([7], np.int64), np.array([8], np.int64)),
    ],
)
def test_difference_beyond_the_tolerance_is_refused(right: Array, found: Array) -> None:
    """Floats by 2e-4 of the largest value, greys by more than a level, whole numbers at all, and NaN always."""
    with pytest.raises(parity.ParityError, match=r"here: x\[\d\] is .* off by .* more than"):
        parity.compare({"x": right}, {"x": found}, "here")


@pytest.mark.parametrize(
    ("right", "found"),
    [
        (np.array([1.0], np.float32), np.array([1.00019], np.float32)),
        (np.array([50.0, 1.0], np.float32), np.array([50.009, 1.009], np.float32)),
        (np.array([7], np.uint8), np.array([6], np.uint8)),
    ],
)
def test_difference_within_the_tolerance_passes(right: Array, found: Array) -> None:
    """Rounding is allowed."""
    parity.compare({"x": right}, {"x": found}, "here")


@pytest.mark.parametrize("found", [np.zeros((2, 1), np.float32), np.zeros(2, np.float64)])
def test_other_shape_or_type_is_refused(found: Array) -> None:
    """Even if the numbers are the same."""
    with pytest.raises(parity.ParityError, match=r"x is float.*, not float32\[2\]"):
        parity.compare({"x": np.zeros(2, np.float32)}, {"x": found}, "here")
