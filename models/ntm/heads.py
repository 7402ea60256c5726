"""Heads: what the controller tells them, from one linear layer for all of them.

Figure 2 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

Axes: B batch, C controller units, R read heads, W write heads, H = R + W heads (the read heads first), M slot
width.

Where it fills in what the paper leaves open: keys and add vectors are squashed by tanh, erase vectors and
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
"""Largest absolute value of what the linear layer emits."""
CONTENT_STRENGTH = 8.0
"""Key strength at which, of 128 random slots, the few that match best take nearly all of the weight."""
CONTENT_GATE = 3.0
"""Logit of a gate that takes 95 % from the content."""
CONTENT_STAY = 3.0
"""Logit of no shift, the others being close to 0: about 91 % of the weight stays."""


class Commands(NamedTuple):
    """What all heads are told in a step."""

    focus: Focus
    """Where to look: the read heads, then the write heads."""
    e: Float[Tensor, "B W M"]
    """Erase vectors, in (0, 1)."""
    a: Float[Tensor, "B W M"]
    """Add vectors, in (-1, 1)."""


class Heads(nn.Module):
    """The linear layer, whose outputs are ordered by the function that squashes them: each is called once."""

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
        """Set the biases so that a head begins by looking for its key: strongly, at once and without a shift.

        Keys get no bias: their direction, and so the slots that they match, is all the controller's.
        """
        for_tanh, for_sigmoid, for_softplus, for_softmax = torch.split(self.linear.bias, self.groups)
        torch.split(for_tanh, self.tanh)[0].zero_()
        torch.split(for_sigmoid, self.sigmoid)[0].fill_(CONTENT_GATE)
        torch.split(for_softplus, self.softplus)[0].fill_(CONTENT_STRENGTH)
        for_softmax.view(-1, len(SHIFTS))[:, SHIFTS.index(0)] = CONTENT_STAY

    def forward(self, hidden: Float[Tensor, "B C"]) -> Commands:
        """Return what the heads are told by a controller whose output is `hidden`."""
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
