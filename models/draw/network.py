"""The DRAW network: section 2 of the paper.

DRAW: A Recurrent Neural Network For Image Generation. Gregor, Danihelka, Graves, Rezende, Wierstra. ICML 2015,
https://arxiv.org/abs/1502.04623.

An encoder looks at a picture through a window, tells a latent variable z_t what it saw, and a decoder writes z_t onto
a canvas through a window of its own; T such steps draw a picture. Without a picture, z_t comes from the prior and the
decoder draws by itself.

Where this departs from the paper:

- Encoder and decoder are told the class of the digit (or that it is not given) and how far the drawing has come.
  Trained with T drawn anew for every batch, one network so finishes a picture in any number of steps.
- The read window is 5 x 5, as the write window is (the paper reads 2 x 2 on MNIST).
- All that the decoder's state decides (patch, write window, the next step's read window) is one linear layer.

Axis letters: B batch, T steps, A side of the canvas in pixels, N side of a window in filters, H units of an LSTM,
Z latent variables, Y numbers of the condition.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.draw.attention import WINDOW_PARAMETERS, Window, read, window, write

CLASSES = 10
NO_CLASS = 10
"""The label of a picture whose class is not given."""
CONDITION_SIZE = CLASSES + 1 + 2
MIN_STEPS, MAX_STEPS = 8, 64
"""Numbers of steps that the network is trained for."""


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of the network; the defaults are the paper's for MNIST, but for the read window."""

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
    """All that one step hands to the next."""

    canvas: Float[Tensor, "B A A"]
    """Sum of what was written, c_t; its sigmoid is the picture."""
    encoder: LSTMState
    decoder: LSTMState


class Posterior(NamedTuple):
    """Parameters of Q(Z_t | h_t^enc), a diagonal Gaussian."""

    mean: Float[Tensor, "*batch Z"]
    log_sigma: Float[Tensor, "*batch Z"]


class Stroke(NamedTuple):
    """What the decoder does with its state."""

    patch: Float[Tensor, "B N N"]
    write_window: Window
    next_read_window: Window


class Reconstruction(NamedTuple):
    """A picture seen through T steps; a row a step."""

    canvas: Float[Tensor, "B A A"]
    """The last canvas, c_T, in logits."""
    posterior: Posterior
    """Shapes T B Z."""


def condition(labels: Int[Tensor, " B"], steps: int) -> Float[Tensor, "T B Y"]:
    """What both LSTMs are told: the class (0..9, or `NO_CLASS`), the time gone t/T, and the pace 8/T."""
    B = labels.shape[0]
    one_hot = nn.functional.one_hot(labels, CLASSES + 1).to(torch.float32)
    elapsed = torch.arange(steps, device=labels.device, dtype=torch.float32) / steps
    pace = torch.full_like(elapsed, MIN_STEPS / steps)
    clock = torch.stack([elapsed, pace], dim=-1)
    return torch.cat([one_hot.expand(steps, B, -1), clock[:, None].expand(steps, B, -1)], dim=-1)


class LSTM(nn.Module):
    """One LSTM cell as one matrix product; gates in PyTorch's order (input, forget, cell, output)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)
        # A forget gate that starts open lets gradients through many steps (Jozefowicz et al., 2015).
        with torch.no_grad():
            self.gates.bias[hidden_size : 2 * hidden_size].fill_(1.0)

    def forward(self, x: Float[Tensor, "B X"], state: LSTMState) -> LSTMState:
        """One step."""
        i, f, g, o = self.gates(torch.cat([x, state.hidden], dim=-1)).float().chunk(4, dim=-1)
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
        return LSTMState(torch.sigmoid(o) * torch.tanh(cell), cell)


class Draw(nn.Module):
    """Encoder, decoder and their windows."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        N_read, N_write, H = config.read_filters, config.write_filters, config.hidden_size
        self.encoder = LSTM(2 * N_read**2 + H + CONDITION_SIZE, H)
        self.decoder = LSTM(config.latent_size + CONDITION_SIZE, H)
        self.posterior = nn.Linear(H, 2 * config.latent_size)
        self.stroke = nn.Linear(H, N_write**2 + 2 * WINDOW_PARAMETERS)
        # The paper's initial states are learned; the canvas starts dark, as most of a digit's picture is.
        self.initial_canvas = nn.Parameter(torch.full((config.side, config.side), -2.0))
        self.initial_hidden = nn.Parameter(torch.zeros(4, H))

    def initial_state(self, batch_size: int) -> State:
        """The learned state before the first step."""
        encoder_hidden, encoder_cell, decoder_hidden, decoder_cell = (
            row.expand(batch_size, -1) for row in self.initial_hidden
        )
        return State(
            self.initial_canvas.expand(batch_size, -1, -1),
            LSTMState(encoder_hidden, encoder_cell),
            LSTMState(decoder_hidden, decoder_cell),
        )

    def act(self, decoder_hidden: Float[Tensor, "B H"]) -> Stroke:
        """Equations 28 and 21: what to write, where, and where to look next."""
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
        """Equations 3 to 5 and 1, 2: read the picture and the error image, encode, and return Q(Z_t | h_t^enc)."""
        error_image = x - torch.sigmoid(state.canvas)
        r = read(torch.stack([x, error_image], dim=1), read_window, self.config.read_filters)
        encoder = self.encoder(torch.cat([r.flatten(1), state.decoder.hidden, y], dim=-1), state.encoder)
        mean, log_sigma = self.posterior(encoder.hidden).float().chunk(2, dim=-1)
        return encoder, Posterior(mean, log_sigma)

    def draw(self, z: Float[Tensor, "B Z"], y: Float[Tensor, "B Y"], state: State) -> tuple[State, Stroke]:
        """Equations 7 and 8: decode z_t and write onto the canvas."""
        decoder = self.decoder(torch.cat([z, y], dim=-1), state.decoder)
        stroke = self.act(decoder.hidden)
        canvas = state.canvas + write(stroke.patch, stroke.write_window, self.config.side)
        return State(canvas, state.encoder, decoder), stroke

    def reconstruct(
        self, x: Float[Tensor, "B A A"], y: Float[Tensor, "T B Y"], noise: Float[Tensor, "T B Z"]
    ) -> Reconstruction:
        """See a picture through T steps, z_t = mean + sigma * noise_t (equation 6, reparametrised)."""
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
        """Draw from the prior (equations 13 to 16): the picture after every step, in 0..1; z_t is noise_t."""
        state = self.initial_state(noise.shape[1])
        pictures = []
        for y_t, z in zip(y, noise, strict=True):
            state, _ = self.draw(z, y_t, state)
            pictures.append(torch.sigmoid(state.canvas))
        return torch.stack(pictures)
