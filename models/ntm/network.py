"""The complete neural Turing machine: single steps and whole episodes.

Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

In each step, the controller gets the input and what was read in the previous step. All heads are addressed
together in M_{t-1}; the write heads turn it into M_t, and the read heads read M_t. The output is a linear
function of the controller's output and of what was read.

Axes: T steps, B batch, I inputs, O outputs, C controller units, R read heads, W write heads, H = R + W heads
(the read heads first), N memory slots, M slot width.

Choices where the paper leaves them open:

- The initial weightings, reads and controller state are learned. Weightings start focused on slot 0: while all
  slots are alike, a uniform weighting gets no gradient that would change it.
- The memory starts in one of two ways, `Config.addressing`. "location": at the constant 1e-6 (Collier, Beel,
  "Implementing Neural Turing Machines", 2018, https://arxiv.org/abs/1807.08518), so that all slots are alike and
  heads tell them apart by shifting. "content": at random values, which are learned, with heads that start with
  content addressing; each key then matches slots of its own before anything has been written.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.ntm.addressing import address
from models.ntm.controller import Controller, FeedForwardController, LstmController
from models.ntm.heads import Heads
from models.ntm.memory import read, write

INITIAL_MEMORY = 1e-6
INITIAL_SLOT_DEVIATION = 0.5
"""Standard deviation of the values in random slots: below what a write can add (1), well above 0."""
INITIAL_FOCUS = 8.0
"""Logit of slot 0 in the initial weightings; the others are 0, so that slot 0 of 128 has 96 % of the weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a neural Turing machine."""

    inputs: int
    outputs: int
    controller: Literal["lstm", "feed-forward"] = "lstm"
    controller_size: int = 100
    memory_slots: int = 128
    """N in the paper."""
    slot_width: int = 20
    """M in the paper."""
    read_heads: int = 1
    write_heads: int = 1
    addressing: Literal["location", "content"] = "location"
    """How heads tell slots apart before training: by their position or by their content."""


class State(NamedTuple):
    """State that one step passes to the next."""

    memory: Float[Tensor, "B M N"]
    weights: Float[Tensor, "B H N"]
    """Weightings of the heads: the read heads', then the write heads'."""
    reads: Float[Tensor, "B R*M"]
    """Vectors that the read heads read, concatenated."""
    controller: tuple[Tensor, ...]
    """State of the controller: (hidden [B C], cell [B C]) for an LSTM, () for a feed-forward one."""


class Step(NamedTuple):
    """Results of one step."""

    logits: Float[Tensor, "B O"]
    state: State
    adds: Float[Tensor, "B W M"]
    """Add vectors of the write heads, for display only."""


class NeuralTuringMachine(nn.Module):
    """A controller coupled to a memory by read and write heads."""

    initial_memory: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        reads = config.read_heads * config.slot_width
        kind = {"lstm": LstmController, "feed-forward": FeedForwardController}[config.controller]
        self.controller: Controller = kind(config.inputs + reads, config.controller_size)
        self.heads = Heads(config.controller_size, config.read_heads, config.write_heads, config.slot_width)
        self.output = nn.Linear(config.controller_size + reads, config.outputs)
        focus = torch.zeros(config.read_heads + config.write_heads, config.memory_slots)
        focus[:, 0] = INITIAL_FOCUS
        self.initial_weights = nn.Parameter(focus)
        self.initial_reads = nn.Parameter(torch.zeros(reads))
        slots = (config.memory_slots, config.slot_width)
        if config.addressing == "content":
            self.heads.look_for_content()
            self.initial_memory = nn.Parameter(INITIAL_SLOT_DEVIATION * torch.randn(slots))
        else:
            self.register_buffer("initial_memory", torch.full(slots, INITIAL_MEMORY), persistent=False)

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step of `batch_size` episodes."""
        return State(
            memory=self.initial_memory.T.expand(batch_size, -1, -1),
            weights=torch.softmax(self.initial_weights, dim=1).expand(batch_size, -1, -1),
            reads=torch.tanh(self.initial_reads).expand(batch_size, -1),
            controller=self.controller.initial_state(batch_size),
        )

    def forward(self, x: Float[Tensor, "B I"], state: State) -> Step:
        """Run one step."""
        hidden, controller = self.controller(torch.cat((x, state.reads), dim=1), state.controller)
        focus, e, a = self.heads(hidden)
        weights = address(focus, state.memory, state.weights)
        memory = write(state.memory, weights[:, self.config.read_heads :], e, a)
        reads = read(memory, weights[:, : self.config.read_heads]).flatten(1)
        logits = self.output(torch.cat((hidden, reads), dim=1))
        return Step(logits, State(memory, weights, reads, controller), a)

    def unroll(self, inputs: Float[Tensor, "T B I"]) -> Float[Tensor, "T B O"]:
        """Return the logits of whole episodes, which start from the initial state."""
        state = self.initial_state(inputs.shape[1])
        logits = []
        for x in inputs:
            step: Step = self(x, state)
            state = step.state
            logits.append(step.logits)
        return torch.stack(logits)
