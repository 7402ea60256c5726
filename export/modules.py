"""What each graph computes: pure functions from tensors to tensors. Noise and state are inputs.

Each module below is a thin wrapper around a trained network. A recurrent one is written as a single *step*, or as a
segment of steps if they can be computed in parallel.

Axis letters: B batch, T steps.
"""

import torch
from torch import Tensor, nn

from models.draw.attention import Window, write
from models.draw.network import Draw, LSTMState, Posterior, Reconstruction
from models.draw.network import State as DrawState
from models.draw.objective import bound
from models.ntm.network import NeuralTuringMachine
from models.ntm.network import State as NtmState
from models.stn.network import StnNetwork


def to_grey_levels(picture: Tensor) -> Tensor:
    """Round a picture in 0..1 to grey levels 0..255."""
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

    In generation the decoder does not see the canvas. One LSTM therefore runs over all steps, all patches are written
    in parallel, and the canvases are a running sum.
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
        # Add to the canvas in the order of the steps, not to their sum: it rounds the same wherever a segment ends.
        canvases = torch.cumsum(torch.cat([canvas[None], written]), dim=0)[1:]
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
    """One step of a neural Turing machine, with the weightings, reads and writes of its heads."""

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


def _window_parameters(where: Window) -> Tensor:
    return torch.stack(where, dim=-1)
