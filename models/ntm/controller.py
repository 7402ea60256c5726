"""Controllers: the network that decides, from the input and from what was read, what the heads do.

Section 3.4 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

A controller's own memory, if it has one, is a tuple of tensors [B C] that is passed in and out.
Axes: B batch, I inputs (what was read included), C controller units.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Controller(nn.Module, ABC):
    """A step of a controller, and the state before its first step."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "B I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B C"], tuple[Tensor, ...]]:
        """Return the controller's output and its next state."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """Return the state before the first step."""


class LstmController(Controller):
    """Long short-term memory of one layer; its state is (hidden, cell), whose start is learned."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.gates = nn.Linear(inputs + size, 4 * size)
        self.initial = nn.Parameter(torch.zeros(2, size))

    def forward(
        self, x: Float[Tensor, "B I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B C"], tuple[Tensor, ...]]:
        """Keep f of the cell, let i of the new candidate in, show o of the result."""
        hidden, cell = state
        gates = self.gates(torch.cat((x, hidden), dim=1))
        i, f, o = torch.sigmoid(gates[:, : 3 * self.size]).chunk(3, dim=1)
        candidate = torch.tanh(gates[:, 3 * self.size :])
        cell = f * cell + i * candidate
        hidden = o * torch.tanh(cell)
        return hidden, (hidden, cell)

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """Return the learned hidden values, kept in (-1, 1), and the learned cell."""
        hidden, cell = self.initial.unsqueeze(1).expand(-1, batch_size, -1).unbind(0)
        return torch.tanh(hidden), cell


class FeedForwardController(Controller):
    """One hidden layer without a state: whatever is to be kept must go through the machine's memory."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, size)

    def forward(
        self, x: Float[Tensor, "B I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B C"], tuple[Tensor, ...]]:
        """Return the hidden layer's values; `state` is empty and stays so."""
        return torch.tanh(self.hidden(x)), state

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:  # noqa: ARG002 - nothing to be made for a batch
        """Return nothing to carry."""
        return ()
