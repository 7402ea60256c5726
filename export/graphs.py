"""The graphs to export: pure functions from tensors to tensors. Noise, clocks and state are inputs.

Each `*Graph` below is a thin module around a trained network. A recurrent graph is written as one *step*, from which
`to_onnx` and `to_torchscript` make a segment of any length; or, where the steps can be computed in parallel, as the
segment itself.

Axis letters: B batch, T steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from export.manifest import Signature, TensorSpec
from models.draw.attention import WINDOW_PARAMETERS, Window, write
from models.draw.network import CLASSES, CONDITION_SIZE, Draw, Posterior, Reconstruction, condition
from models.draw.network import Recurrent as LSTMState
from models.draw.network import State as DrawState
from models.draw.objective import bound
from models.ntm.network import NeuralTuringMachine
from models.ntm.network import State as NtmState
from models.stn.network import StnNetwork


class Form(Enum):
    """What a module computes in one call."""

    BATCH = "batch"
    """All of it: the graph is not recurrent."""
    STEP = "step"
    """One step, on inputs without the axis T."""
    SEGMENT = "segment"
    """T steps, on inputs with the axis T."""


@dataclass(frozen=True, slots=True)
class ExportGraph:
    """A module with what its exporters need to know."""

    module: nn.Module
    """Called with the signature's inputs, then its state; answers its outputs, then the next state, as a tuple."""
    form: Form
    signature: Signature
    initial: Mapping[str, Tensor]
    """The first state, a row a tensor."""
    example: Callable[[int, int, torch.Generator], Mapping[str, Tensor]]
    """Inputs for T steps and B sequences such as a server would give."""


def to_grey_levels(picture: Tensor) -> Tensor:
    """A picture in 0..1 as whole grey levels 0..255."""
    return torch.round(picture * 255).to(torch.uint8)


class RectifyGraph(nn.Module):
    """A square grey picture in; the digit upright, its class, the transformation and the tone out."""

    def __init__(self, network: StnNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rectify."""
        seen = self.network(picture[:, None].to(torch.float32) / 255)
        return (
            to_grey_levels(seen.rectified[:, 0]),
            torch.softmax(seen.logits, dim=-1),
            seen.theta,
            seen.tone,
        )


class GenerateGraph(nn.Module):
    """T steps of drawing at once.

    In generation the decoder sees nothing of the canvas. So one LSTM runs over all steps, all patches are written in
    parallel, and the canvases are a running sum.
    """

    def __init__(self, network: Draw) -> None:
        super().__init__()
        self.network = network
        gates = network.decoder.gates
        hidden_size = network.config.hidden_size
        inputs = gates.in_features - hidden_size
        self.lstm = nn.LSTM(inputs, hidden_size)
        with torch.no_grad():
            parameters = dict(self.lstm.named_parameters())
            parameters["weight_ih_l0"].copy_(gates.weight[:, :inputs])
            parameters["weight_hh_l0"].copy_(gates.weight[:, inputs:])
            parameters["bias_ih_l0"].copy_(gates.bias)
            parameters["bias_hh_l0"].zero_()

    def forward(
        self, noise: Tensor, told: Tensor, canvas: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Draw."""
        T, side = noise.shape[0], self.network.config.side
        decoded, (last_hidden, last_cell) = self.lstm(torch.cat([noise, told], dim=-1), (hidden[None], cell[None]))
        stroke = self.network.act(decoded.flatten(0, 1))
        written = write(stroke.patch, stroke.write_window, side).view(T, -1, side, side)
        canvases = canvas + torch.cumsum(written, dim=0)
        windows = _window_parameters(stroke.write_window).view(T, -1, len(Window._fields))
        return to_grey_levels(torch.sigmoid(canvases)), windows, canvases[-1], last_hidden[0], last_cell[0]


class ReconstructGraph(nn.Module):
    """One step of looking at a picture and redrawing it."""

    def __init__(self, network: Draw) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        noise: Tensor,
        told: Tensor,
        picture: Tensor,
        canvas: Tensor,
        encoder_hidden: Tensor,
        encoder_cell: Tensor,
        decoder_hidden: Tensor,
        decoder_cell: Tensor,
    ) -> tuple[Tensor, ...]:
        """Look, then draw."""
        state = DrawState(canvas, LSTMState(encoder_hidden, encoder_cell), LSTMState(decoder_hidden, decoder_cell))
        read_window = self.network.act(decoder_hidden).next_read_window
        encoder, posterior = self.network.look(picture, told, state, read_window)
        z = posterior.mean + torch.exp(posterior.log_sigma) * noise
        state, stroke = self.network.draw(z, told, state._replace(encoder=encoder))
        alone = Posterior(posterior.mean[None], posterior.log_sigma[None])
        losses = bound(picture, Reconstruction(state.canvas, alone))
        return (
            to_grey_levels(torch.sigmoid(state.canvas)),
            _window_parameters(stroke.write_window),
            _window_parameters(read_window),
            torch.stack(losses, dim=-1),
            state.canvas,
            *state.encoder,
            *state.decoder,
        )


class MemoryGraph(nn.Module):
    """One step of a neural Turing machine, with what its heads did."""

    def __init__(self, network: NeuralTuringMachine) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, inputs: Tensor, memory: Tensor, weights: Tensor, reads: Tensor, *controller: Tensor
    ) -> tuple[Tensor, ...]:
        """Step."""
        config = self.network.config
        step = self.network(inputs, NtmState(memory, weights, reads, controller))
        state = step.state
        read_weights, write_weights = state.weights.split([config.read_heads, config.write_heads], dim=1)
        return (
            torch.sigmoid(step.logits),
            read_weights,
            write_weights,
            state.reads,
            step.adds.flatten(1),
            state.memory,
            state.weights,
            state.reads,
            *state.controller,
        )


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


def _window_parameters(where: Window) -> Tensor:
    return torch.stack(where, dim=-1)


def _spec(name: str, shape: tuple[int | str, ...], dtype: str = "float32") -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": shape})


def _rows(signature: Signature, state: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
    """A state of one row, by name, without its batch axis."""
    return {spec.name: tensor[0].detach().clone() for spec, tensor in zip(signature.state, state, strict=True)}
