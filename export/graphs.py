"""The graphs to export: what each computes, its inputs and outputs, its initial state, and example inputs.

A recurrent graph whose module is one *step* becomes a segment of any length in `to_onnx` and `to_torchscript`.

Axis letters: B batch, T steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from export.manifest import Signature, TensorSpec
from export.modules import GenerateGraph, MemoryGraph, ReconstructGraph, RectifyGraph, to_grey_levels
from models.draw.attention import WINDOW_PARAMETERS
from models.draw.network import CLASSES, CONDITION_SIZE, Draw, LSTMState, condition
from models.ntm.network import NeuralTuringMachine
from models.stn.network import StnNetwork

TRACED_STEPS, TRACED_ROWS = 3, 2

FEEDBACK_ROWS = 2
"""Smallest batch of a graph whose steps depend on the outputs of earlier steps.

A matrix product with one row uses a kernel of its own, which rounds differently from those for more rows. The
difference, about 1e-6, is negligible by itself, but the state carries it on, and over a long episode it can grow.
"""


class Form(Enum):
    """What a module computes in one call."""

    BATCH = "batch"
    """Everything: the graph is not recurrent."""
    STEP = "step"
    """One step, on inputs without the axis T."""
    SEGMENT = "segment"
    """T steps, on inputs with the axis T."""


@dataclass(frozen=True, slots=True)
class ExportGraph:
    """A module with what the exporters need to know about it."""

    module: nn.Module
    """Module that takes the signature's inputs and its state, and returns a tuple of its outputs and the next state."""
    form: Form
    signature: Signature
    initial: Mapping[str, Tensor]
    """Initial state: one row for each state tensor, without the batch axis."""
    example: Callable[[int, int, torch.Generator], Mapping[str, Tensor]]
    """Function that makes realistic inputs from numbers of steps and sequences, and a generator."""


def inputs_for(graph: ExportGraph, steps: int, rows: int, seed: int) -> Mapping[str, Tensor]:
    """Return example inputs, with the initial state, for every input of the graph."""
    state = {name: row.expand(rows, *row.shape).contiguous() for name, row in graph.initial.items()}
    return {**graph.example(steps, rows, torch.Generator().manual_seed(seed)), **state}


def traced_inputs(graph: ExportGraph) -> tuple[Tensor, ...]:
    """Return inputs to trace the graph's module with, in its order."""
    values = dict(inputs_for(graph, TRACED_STEPS, TRACED_ROWS, seed=0))
    if graph.form is Form.STEP:
        values |= {spec.name: values[spec.name][0] for spec in graph.signature.inputs if spec.is_per_step}
    return tuple(values[name] for name in graph.signature.input_names)


def stn_graphs(network: StnNetwork) -> dict[str, ExportGraph]:
    """The graphs of a spatial transformer."""
    side, parameters = network.config.side, len(network.warp.grid.identity)

    def example(_: int, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        # Blurred noise has edges of every direction, as pictures do.
        noise = torch.rand(rows, 1, side // 8, side // 8, generator=generator)
        picture = nn.functional.interpolate(noise, size=(side, side), mode="bilinear")
        return {"picture": to_grey_levels(picture[:, 0])}

    signature = Signature(
        inputs=(_spec("picture", ("B", side, side), "uint8"),),
        outputs=(
            _spec("rectified", ("B", 28, 28), "uint8"),
            _spec("probabilities", ("B", 10)),
            _spec("theta", ("B", parameters)),
            _spec("tone", ("B", 2)),
        ),
    )
    return {"rectify": ExportGraph(RectifyGraph(network), Form.BATCH, signature, {}, example)}


def draw_graphs(network: Draw) -> dict[str, ExportGraph]:
    """The graphs of DRAW."""
    config = network.config
    side, latent, hidden = config.side, config.latent_size, config.hidden_size
    begin = network.initial_state(1)

    def generated(steps: int, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        labels = torch.randint(CLASSES + 1, (rows,), generator=generator)
        noise = torch.randn(steps, rows, latent, generator=generator)
        return {"noise": noise, "condition": condition(labels, steps)}

    def reconstructed(steps: int, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        picture = torch.rand(rows, side, side, generator=generator)
        return {**generated(steps, rows, generator), "picture": picture}

    step_inputs = (_spec("noise", ("T", "B", latent)), _spec("condition", ("T", "B", CONDITION_SIZE)))
    pictures = _spec("pictures", ("T", "B", side, side), "uint8")
    write_windows = _spec("write_windows", ("T", "B", WINDOW_PARAMETERS))
    canvas = _spec("canvas", ("B", side, side))
    generate = Signature(
        inputs=step_inputs,
        outputs=(pictures, write_windows),
        state=(canvas, _spec("hidden", ("B", hidden)), _spec("cell", ("B", hidden))),
    )
    reconstruct = Signature(
        inputs=(*step_inputs, _spec("picture", ("B", side, side))),
        outputs=(
            pictures,
            write_windows,
            _spec("read_windows", ("T", "B", WINDOW_PARAMETERS)),
            _spec("losses", ("T", "B", 2)),
        ),
        state=(
            canvas,
            *(_spec(f"{part}_{name}", ("B", hidden)) for part in ("encoder", "decoder") for name in LSTMState._fields),
        ),
        least_rows=FEEDBACK_ROWS,
    )
    return {
        "generate": ExportGraph(
            GenerateGraph(network),
            Form.SEGMENT,
            generate,
            _rows(generate, (begin.canvas, *begin.decoder)),
            generated,
        ),
        "reconstruct": ExportGraph(
            ReconstructGraph(network),
            Form.STEP,
            reconstruct,
            _rows(reconstruct, (begin.canvas, *begin.encoder, *begin.decoder)),
            reconstructed,
        ),
    }


def ntm_graphs(network: NeuralTuringMachine) -> dict[str, ExportGraph]:
    """The graphs of a neural Turing machine."""
    config = network.config
    N, M, heads = config.memory_slots, config.slot_width, config.read_heads + config.write_heads
    begin = network.initial_state(1)

    def example(steps: int, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        return {"inputs": torch.randint(2, (steps, rows, config.inputs), generator=generator).float()}

    signature = Signature(
        inputs=(_spec("inputs", ("T", "B", config.inputs)),),
        outputs=(
            _spec("probabilities", ("T", "B", config.outputs)),
            _spec("read_weights", ("T", "B", config.read_heads, N)),
            _spec("write_weights", ("T", "B", config.write_heads, N)),
            _spec("reads", ("T", "B", config.read_heads * M)),
            _spec("adds", ("T", "B", config.write_heads * M)),
        ),
        state=(
            _spec("memory", ("B", M, N)),
            _spec("weights", ("B", heads, N)),
            _spec("last_reads", ("B", config.read_heads * M)),
            *(_spec(f"controller_{index}", ("B", *tensor.shape[1:])) for index, tensor in enumerate(begin.controller)),
        ),
        least_rows=FEEDBACK_ROWS,
    )
    initial = _rows(signature, (begin.memory, begin.weights, begin.reads, *begin.controller))
    return {"step": ExportGraph(MemoryGraph(network), Form.STEP, signature, initial, example)}


def graphs_of(network: nn.Module) -> dict[str, ExportGraph]:
    """The graphs of any network of this project, by name."""
    if isinstance(network, StnNetwork):
        return stn_graphs(network)
    if isinstance(network, Draw):
        return draw_graphs(network)
    if isinstance(network, NeuralTuringMachine):
        return ntm_graphs(network)
    raise TypeError(f"{type(network).__name__} has no graphs to export")


def _spec(name: str, shape: tuple[int | str, ...], dtype: str = "float32") -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": shape})


def _rows(signature: Signature, state: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
    """A state of one row, by name, without its batch axis."""
    return {spec.name: tensor[0].detach().clone() for spec, tensor in zip(signature.state, state, strict=True)}
