"""Heads: their parameters, which one linear layer computes from the controller's output.

Figure 2 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

Axes: B batch, C controller units, R read heads, W write heads, H = R + W heads (the read heads first), M slot
width.

Choices where the paper leaves them open: keys and add vectors are squashed by tanh, erase vectors and
gates by the sigmoid, strengths by softplus, all after clipping to [-20, 20] (Collier, Beel, "Implementing
Neural Turing Machines", 2018, https://arxiv.org/abs/1807.08518).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.ntm.addressing import SHIFTS, Focus

CLIP = 20.0
"""Largest absolute value of the linear layer's outputs; larger ones are clipped."""
CONTENT_STRENGTH = 8.0
"""Initial key strength, at which the best few matches among 128 random slots get nearly all of the weight."""
CONTENT_GATE = 3.0
"""Initial logit of the interpolation gate, at which the content weighting has a share of 95 %."""
CONTENT_STAY = 3.0
"""Initial logit of shift 0; with the others close to 0, about 91 % of the weight stays in place."""


class Commands(NamedTuple):
    """Parameters of all heads in one step."""

    focus: Focus
    """Addressing parameters: the read heads', then the write heads'."""
    e: Float[Tensor, "B W M"]
    """Erase vectors, in (0, 1)."""
    a: Float[Tensor, "B W M"]
    """Add vectors, in (-1, 1)."""


class Heads(nn.Module):
    """The linear layer; its outputs are grouped by activation function, so that each is called once."""

    def __init__(self, controller_size: int, read_heads: int, write_heads: int, slot_width: int) -> None:
        super().__init__()
        heads = read_heads + write_heads
        self.slot_width = slot_width
        self.tanh = [heads * slot_width, write_heads * slot_width]  # k, a
        self.sigmoid = [heads, write_heads * slot_width]  # g, e
        self.softplus = [heads, heads]  # beta, gamma - 1
        self.softmax = [heads * len(SHIFTS)]  # s
        self.groups = [sum(sizes) for sizes in (self.tanh, self.sigmoid, self.softplus, self.softmax)]
        self.linear = nn.Linear(controller_size, sum(self.groups))

    @torch.no_grad()
    def look_for_content(self) -> None:
        """Set the biases so that heads start with content addressing: strong keys, open gates and no shift.

        Keys get no bias, so that their direction, and thus the slots that they match, depends on the controller only.
        """
        for_tanh, for_sigmoid, for_softplus, for_softmax = torch.split(self.linear.bias, self.groups)
        torch.split(for_tanh, self.tanh)[0].zero_()
        torch.split(for_sigmoid, self.sigmoid)[0].fill_(CONTENT_GATE)
        torch.split(for_softplus, self.softplus)[0].fill_(CONTENT_STRENGTH)
        for_softmax.view(-1, len(SHIFTS))[:, SHIFTS.index(0)] = CONTENT_STAY

    def forward(self, hidden: Float[Tensor, "B C"]) -> Commands:
        """Return the head parameters for the controller output `hidden`."""
        emitted = torch.clamp(self.linear(hidden), -CLIP, CLIP)
        for_tanh, for_sigmoid, for_softplus, for_softmax = torch.split(emitted, self.groups, dim=1)
        k, a = torch.split(torch.tanh(for_tanh), self.tanh, dim=1)
        g, e = torch.split(torch.sigmoid(for_sigmoid), self.sigmoid, dim=1)
        beta, sharpness = torch.split(functional.softplus(for_softplus), self.softplus, dim=1)
        heads = g.shape[1]
        focus = Focus(
            k=k.reshape(-1, heads, self.slot_width),
            beta=beta.unsqueeze(2),
            g=g.unsqueeze(2),
            s=torch.softmax(for_softmax.reshape(-1, heads, len(SHIFTS)), dim=2),
            gamma=1 + sharpness.unsqueeze(2),
        )
        write_heads = e.shape[1] // self.slot_width
        return Commands(
            focus,
            e=e.reshape(-1, write_heads, self.slot_width),
            a=a.reshape(-1, write_heads, self.slot_width),
        )
