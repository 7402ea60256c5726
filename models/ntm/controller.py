"""Controllers: networks that decide what the heads do, given the input and what was read.

Section 3.4 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

A controller's recurrent state is a tuple of tensors [B C], passed in and returned; it may be empty.
Axes: B batch, I inputs (including what was read), C controller units.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Controller(nn.Module, ABC):
    """Interface of a controller: its step and its initial state."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "B I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B C"], tuple[Tensor, ...]]:
        """Return the controller's output and its next state."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """Return the state before the first step."""


class LstmController(Controller):
    """A single LSTM layer; its state is (hidden, cell), with learned initial values."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.gates = nn.Linear(inputs + size, 4 * size)
        self.initial = nn.Parameter(torch.zeros(2, size))

    def forward(
        self, x: Float[Tensor, "B I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B C"], tuple[Tensor, ...]]:
        """Return the hidden values after one step, and the next state."""
        hidden, cell = state
        gates = self.gates(torch.cat((x, hidden), dim=1))
        i, f, o = torch.sigmoid(gates[:, : 3 * self.size]).chunk(3, dim=1)
        candidate = torch.tanh(gates[:, 3 * self.size :])
        cell = f * cell + i * candidate
        hidden = o * torch.tanh(cell)
        return hidden, (hidden, cell)

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """Return the learned hidden values, squashed to (-1, 1), and the learned cell."""
        hidden, cell = self.initial.unsqueeze(1).expand(-1, batch_size, -1).unbind(0)
        return torch.tanh(hidden), cell


class FeedForwardController(Controller):
    """One hidden layer without state: anything to be remembered must go through the machine's memory."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, size)

    def forward(
        self, x: Float[Tensor, "B I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B C"], tuple[Tensor, ...]]:
        """Return the hidden layer's values and `state`, which is empty."""
        return torch.tanh(self.hidden(x)), state

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:  # noqa: ARG002 - the state is empty
        """Return the empty state."""
        return ()
