"""The neural Turing machine, assembled: one step, and whole episodes.

Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

In a step the controller sees the input and what was read in the step before; all heads are addressed
together in M_{t-1}; the write heads make M_t of it; the read heads read M_t; and the output is a linear
function of the controller's output and of what was read.

Axes: T steps, B batch, I inputs, O outputs, C controller units, R read heads, W write heads, H = R + W heads
(the read heads first), N memory slots, M slot width.

Where it fills in what the paper leaves open:

- The first weightings, the first reads and the controller's first state are learned. Weightings start close
  to slot 0: while all slots are alike, a uniform weighting has no gradient to become anything else.
- The memory starts in one of two ways, `Config.addressing`. By location: at the constant 1e-6 (Collier, Beel,
  "Implementing Neural Turing Machines", 2018, https://arxiv.org/abs/1807.08518), so that all slots are alike and
  heads tell them apart by moving among them. By content: at random slots, which are learned, with heads that
  begin by looking for what their keys name; each key then has slots of its own before anything was written.
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
"""Standard deviation of the numbers in random slots: below what a write can add, well above nothing."""
INITIAL_FOCUS = 8.0
"""Logit of slot 0 in the first weightings, the others being 0: of 128 slots it has 96 % of the weight."""


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
    """How heads tell slots apart before training: by where they are, or by what is in them."""


class State(NamedTuple):
    """What a machine carries from a step to the next."""

    memory: Float[Tensor, "B M N"]
    weights: Float[Tensor, "B H N"]
    """Where the heads looked: the read heads, then the write heads."""
    reads: Float[Tensor, "B R*M"]
    """What the read heads read, one after the other."""
    controller: tuple[Tensor, ...]
    """(hidden [B C], cell [B C]) of an LSTM, () of a feed-forward controller."""


class Step(NamedTuple):
    """What a step yields."""

    logits: Float[Tensor, "B O"]
    state: State
    adds: Float[Tensor, "B W M"]
    """What the write heads added: nothing follows from it, it is there to be looked at."""


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
        """One step."""
        hidden, controller = self.controller(torch.cat((x, state.reads), dim=1), state.controller)
        focus, e, a = self.heads(hidden)
        weights = address(focus, state.memory, state.weights)
        memory = write(state.memory, weights[:, self.config.read_heads :], e, a)
        reads = read(memory, weights[:, : self.config.read_heads]).flatten(1)
        logits = self.output(torch.cat((hidden, reads), dim=1))
        return Step(logits, State(memory, weights, reads, controller), a)

    def unroll(self, inputs: Float[Tensor, "T B I"]) -> Float[Tensor, "T B O"]:
        """Logits of whole episodes, from the initial state."""
        state = self.initial_state(inputs.shape[1])
        logits = []
        for x in inputs:
            step: Step = self(x, state)
            state = step.state
            logits.append(step.logits)
        return torch.stack(logits)
