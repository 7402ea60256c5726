"""Training a neural Turing machine on a task: its objective, and the sizes and schedules that work.

Section 4 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

Where it departs from the paper: batches with Adam at 1e-3 and the whole gradient's norm clipped, where the paper
has single sequences with RMSProp at 1e-4 and each element clipped.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.ntm.evaluate import evaluate
from models.ntm.network import Config, NeuralTuringMachine
from models.ntm.tasks import Task
from models.training import Schedule

EVALUATION_SEQUENCES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is particular to the machine that ships for a task, and to its training."""

    updates: int
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Config` that differ from their defaults."""
    batch_size: int = 16
    clip_norm: float = 10.0
    average_decay: float = 0.99
    easy: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Ranges of sizes that replace those of the task in the first `easy_updates`."""
    easy_updates: int = 0


# N-grams are counted by context, wherever that is kept: addressing by content gives each context its slots from the
# first step on. Their gradient is small, a norm of about 0.2, and spikes now and then: hence the tight clipping.
# Repeating is learned on episodes as long as the paper's, and counting further on longer ones: trained on the former
# alone, it stops at about the twelfth repeat.
# Sorting writes one vector after the other and addresses by content later; two heads of each kind do not get in each
# other's way. Begun by content, training ended in a sort by buckets, 28 wrong bits.
RECIPES: Mapping[str, Recipe] = {
    "copy": Recipe(updates=40_000),
    "repeat-copy": Recipe(
        updates=63_000, average_decay=0.999, easy={"length": (1, 10), "repeats": (1, 10)}, easy_updates=51_000
    ),
    "associative-recall": Recipe(updates=40_000),
    "dynamic-ngrams": Recipe(updates=12_000, config={"addressing": "content"}, clip_norm=0.5, average_decay=0.999),
    "priority-sort": Recipe(
        updates=40_000,
        config={"controller_size": 128, "read_heads": 2, "write_heads": 2},
        batch_size=32,
        average_decay=0.999,
        easy={"length": (2, 10)},
        easy_updates=5_000,
    ),
}


def default_config(task: Task) -> Config:
    """The sizes of the machine that ships for a task."""
    return replace(Config(inputs=task.inputs, outputs=task.outputs), **RECIPES[task.name].config)


def default_schedule(task: Task) -> Schedule:
    """The schedule of the machine that ships for a task."""
    recipe = RECIPES[task.name]
    return Schedule(
        updates=recipe.updates,
        clip_norm=recipe.clip_norm,
        average_decay=recipe.average_decay,
        easy_updates=recipe.easy_updates,
    )


class NtmExperiment:
    """A machine and its task, for `models.training`."""

    def __init__(self, task: Task, config: Config, device: torch.device, batch_size: int | None = None) -> None:
        """Train in batches of `batch_size`, or of the size in the task's recipe."""
        self.task = task
        self.config = config
        self.recipe = RECIPES[task.name]
        self.batch_size = batch_size or self.recipe.batch_size
        self.network = NeuralTuringMachine(config).to(device)

    @property
    def description(self) -> Mapping[str, Any]:
        """What rebuilds the network."""
        return {
            "family": "ntm",
            "name": f"ntm-{self.task.name}",
            "task": self.task.name,
            "config": asdict(self.config),
        }

    def loss(self, generator: torch.Generator, update: int) -> Tensor:
        """Mean cross-entropy, in nats, of the bits that matter."""
        easy = self.recipe.easy if update < self.recipe.easy_updates else {}
        ranges = {**self.task.training, **easy}
        inputs, targets, mask = self.task.training_batch(generator, self.batch_size, update, ranges)
        logits = self.network.unroll(inputs)
        total = functional.binary_cross_entropy_with_logits(logits, targets, mask, reduction="sum")
        return total / (mask.sum() * self.task.outputs)

    def evaluate(self, network: nn.Module) -> Mapping[str, float]:
        """Bit errors (bits of cost for n-grams) per sequence, and their `score`."""
        assert isinstance(network, NeuralTuringMachine)
        return evaluate(network, self.task, sequences=EVALUATION_SEQUENCES)
