"""The DRAW network: section 2 of the paper.

DRAW: A Recurrent Neural Network For Image Generation. Gregor, Danihelka, Graves, Rezende, Wierstra. ICML 2015,
https://arxiv.org/abs/1502.04623.

In each step, an encoder reads a picture through a window and parametrises the posterior of a latent variable z_t, and
a decoder uses z_t to write to a canvas through a window of its own. T such steps draw a picture. Without a picture to
read, z_t is sampled from the prior and the decoder generates.

Departures from the paper:

- Encoder and decoder also get the digit's class (or that it is withheld) and the progress of the drawing. Training
  draws T anew for every batch, so that one network learns to finish a picture in any number of steps from 8 to 64.
- The read window is 5 x 5, like the write window (the paper reads 2 x 2 on MNIST).
- One linear layer computes all outputs of the decoder: patch, write window and the next step's read window.

Axis letters: B batch, T steps, A side of the canvas in pixels, N side of a window in filters, H units of an LSTM,
Z latent variables, Y size of the condition.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.draw.attention import WINDOW_PARAMETERS, Window, read, window, write

CLASSES = 10
NO_CLASS = 10
"""Label of a picture whose class is withheld."""
CONDITION_SIZE = CLASSES + 1 + 2
MIN_STEPS, MAX_STEPS = 8, 64
"""Range of the number of steps that the network is trained for."""


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of the network; the defaults are the paper's for MNIST, except for the read window."""

    side: int = 28
    hidden_size: int = 256
    latent_size: int = 100
    read_filters: int = 5
    write_filters: int = 5


class LSTMState(NamedTuple):
    """State of one LSTM."""

    hidden: Float[Tensor, "B H"]
    cell: Float[Tensor, "B H"]


class State(NamedTuple):
    """State that one step passes to the next."""

    canvas: Float[Tensor, "B A A"]
    """Canvas c_t in logits, to which every step adds; its sigmoid is the picture."""
    encoder: LSTMState
    decoder: LSTMState


class Posterior(NamedTuple):
    """Parameters of Q(Z_t | h_t^enc), a diagonal Gaussian."""

    mean: Float[Tensor, "*batch Z"]
    log_sigma: Float[Tensor, "*batch Z"]


class Stroke(NamedTuple):
    """Outputs of the decoder in one step."""

    patch: Float[Tensor, "B N N"]
    write_window: Window
    next_read_window: Window


class Reconstruction(NamedTuple):
    """Result of reconstructing a picture in T steps."""

    canvas: Float[Tensor, "B A A"]
    """Final canvas c_T in logits."""
    posterior: Posterior
    """Posteriors of all steps, [T B Z]."""


def condition(labels: Int[Tensor, " B"], steps: int) -> Float[Tensor, "T B Y"]:
    """Return the additional input of both LSTMs: the class, the elapsed time t/T and the pace 8/T, for t = 0..T-1.

    Labels are 0..9 or `NO_CLASS`; the class is one-hot over these eleven.
    """
    B = labels.shape[0]
    one_hot = nn.functional.one_hot(labels, CLASSES + 1).to(torch.float32)
    elapsed = torch.arange(steps, device=labels.device, dtype=torch.float32) / steps
    pace = torch.full_like(elapsed, MIN_STEPS / steps)
    clock = torch.stack([elapsed, pace], dim=-1)
    return torch.cat([one_hot.expand(steps, B, -1), clock[:, None].expand(steps, B, -1)], dim=-1)


class LSTM(nn.Module):
    """An LSTM cell as a single matrix product; gates are in PyTorch's order (input, forget, cell, output)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)
        # A forget gate that starts open lets gradients flow through many steps (Jozefowicz et al., 2015).
        with torch.no_grad():
            self.gates.bias[hidden_size : 2 * hidden_size].fill_(1.0)

    def forward(self, x: Float[Tensor, "B X"], state: LSTMState) -> LSTMState:
        """Return the next state."""
        i, f, g, o = self.gates(torch.cat([x, state.hidden], dim=-1)).float().chunk(4, dim=-1)
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
        return LSTMState(torch.sigmoid(o) * torch.tanh(cell), cell)


class Draw(nn.Module):
    """The DRAW network: encoder, decoder and their windows."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        N_read, N_write, H = config.read_filters, config.write_filters, config.hidden_size
        self.encoder = LSTM(2 * N_read**2 + H + CONDITION_SIZE, H)
        self.decoder = LSTM(config.latent_size + CONDITION_SIZE, H)
        self.posterior = nn.Linear(H, 2 * config.latent_size)
        self.stroke = nn.Linear(H, N_write**2 + 2 * WINDOW_PARAMETERS)
        # Initial states are learned, as in the paper; the canvas starts dark, like most of a digit's picture.
        self.initial_canvas = nn.Parameter(torch.full((config.side, config.side), -2.0))
        self.initial_hidden = nn.Parameter(torch.zeros(4, H))

    def initial_state(self, batch_size: int) -> State:
        """Return the learned state before the first step."""
        encoder_hidden, encoder_cell, decoder_hidden, decoder_cell = (
            row.expand(batch_size, -1) for row in self.initial_hidden
        )
        return State(
            self.initial_canvas.expand(batch_size, -1, -1),
            LSTMState(encoder_hidden, encoder_cell),
            LSTMState(decoder_hidden, decoder_cell),
        )

    def act(self, decoder_hidden: Float[Tensor, "B H"]) -> Stroke:
        """Equations 28 and 21: return the patch to write, where to write it, and where to read next."""
        N, side = self.config.write_filters, self.config.side
        patch, write_parameters, read_parameters = (
            self.stroke(decoder_hidden).float().split([N * N, WINDOW_PARAMETERS, WINDOW_PARAMETERS], dim=-1)
        )
        return Stroke(
            patch.view(-1, N, N),
            window(write_parameters, side, N),
            window(read_parameters, side, self.config.read_filters),
        )

    def look(
        self, x: Float[Tensor, "B A A"], y: Float[Tensor, "B Y"], state: State, read_window: Window
    ) -> tuple[LSTMState, Posterior]:
        """Equations 1 to 5: read the picture and the error image, and encode them.

        Returns:
            The encoder's next state and Q(Z_t | h_t^enc).
        """
        error_image = x - torch.sigmoid(state.canvas)
        r = read(torch.stack([x, error_image], dim=1), read_window, self.config.read_filters)
        encoder = self.encoder(torch.cat([r.flatten(1), state.decoder.hidden, y], dim=-1), state.encoder)
        mean, log_sigma = self.posterior(encoder.hidden).float().chunk(2, dim=-1)
        return encoder, Posterior(mean, log_sigma)

    def draw(self, z: Float[Tensor, "B Z"], y: Float[Tensor, "B Y"], state: State) -> tuple[State, Stroke]:
        """Equations 7 and 8: decode z_t and write to the canvas; return the next state and what was written."""
        decoder = self.decoder(torch.cat([z, y], dim=-1), state.decoder)
        stroke = self.act(decoder.hidden)
        canvas = state.canvas + write(stroke.patch, stroke.write_window, self.config.side)
        return State(canvas, state.encoder, decoder), stroke

    def reconstruct(
        self, x: Float[Tensor, "B A A"], y: Float[Tensor, "T B Y"], noise: Float[Tensor, "T B Z"]
    ) -> Reconstruction:
        """Reconstruct a picture in T steps, with z_t = mean + sigma * noise_t (equation 6, reparametrised)."""
        state = self.initial_state(x.shape[0])
        read_window = self.act(state.decoder.hidden).next_read_window
        means, log_sigmas = [], []
        for y_t, noise_t in zip(y, noise, strict=True):
            encoder, posterior = self.look(x, y_t, state, read_window)
            z = posterior.mean + torch.exp(posterior.log_sigma) * noise_t
            state, stroke = self.draw(z, y_t, state._replace(encoder=encoder))
            read_window = stroke.next_read_window
            means.append(posterior.mean)
            log_sigmas.append(posterior.log_sigma)
        return Reconstruction(state.canvas, Posterior(torch.stack(means), torch.stack(log_sigmas)))

    def generate(self, y: Float[Tensor, "T B Y"], noise: Float[Tensor, "T B Z"]) -> Float[Tensor, "T B A A"]:
        """Generate with z_t = noise_t from the prior (equations 13 to 16); return the picture after each step, 0..1."""
        state = self.initial_state(noise.shape[1])
        pictures = []
        for y_t, z in zip(y, noise, strict=True):
            state, _ = self.draw(z, y_t, state)
            pictures.append(torch.sigmoid(state.canvas))
        return torch.stack(pictures)
