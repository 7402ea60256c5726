"""Training a neural Turing machine on a task: the objective, and each task's architecture and schedule.

Section 4 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

Departures from the paper: training uses batches, Adam at 1e-3 and clipping of the whole gradient's norm; the paper
uses single sequences, RMSProp at 1e-4 and clipping of each element.
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
    """Configuration and training settings of the machine that is shipped for a task."""

    updates: int
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Config` that differ from the defaults."""
    batch_size: int = 16
    clip_norm: float = 10.0
    average_decay: float = 0.99
    easy: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Size ranges that replace the task's in the first `easy_updates` updates."""
    easy_updates: int = 0


# N-grams are counted per context, in any slot: content addressing gives each context its own slots from the first step
# on. The gradient is small, with a norm of about 0.2 and occasional spikes; hence the tight clipping.
# Repeat copy is learned on episodes as long as the paper's, and counting beyond that on longer ones. Trained on the
# former only, the machine stops at about the twelfth repeat.
# Priority sort writes one vector after the other, and later addresses by content; with two heads of each kind, the two
# do not interfere. With `addressing="content"`, training ended in a bucket sort with 28 wrong bits.
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
    """Return the configuration of the machine that is shipped for a task."""
    return replace(Config(inputs=task.inputs, outputs=task.outputs), **RECIPES[task.name].config)


def default_schedule(task: Task) -> Schedule:
    """Return the schedule of the machine that is shipped for a task."""
    recipe = RECIPES[task.name]
    return Schedule(
        updates=recipe.updates,
        clip_norm=recipe.clip_norm,
        average_decay=recipe.average_decay,
        easy_updates=recipe.easy_updates,
    )


class NtmExperiment:
    """Experiment (see `models.training`): a machine and its task."""

    def __init__(self, task: Task, config: Config, device: torch.device, batch_size: int | None = None) -> None:
        """Train in batches of `batch_size`, or of the size in the task's recipe."""
        self.task = task
        self.config = config
        self.recipe = RECIPES[task.name]
        self.batch_size = batch_size or self.recipe.batch_size
        self.network = NeuralTuringMachine(config).to(device)

    @property
    def description(self) -> Mapping[str, Any]:
        """Family, name, task and configuration, from which the network can be rebuilt."""
        return {
            "family": "ntm",
            "name": f"ntm-{self.task.name}",
            "task": self.task.name,
            "config": asdict(self.config),
        }

    def loss(self, generator: torch.Generator, update: int) -> Tensor:
        """Return the mean cross-entropy, in nats, of the output bits in steps whose outputs matter."""
        easy = self.recipe.easy if update < self.recipe.easy_updates else {}
        ranges = {**self.task.training, **easy}
        inputs, targets, mask = self.task.training_batch(generator, self.batch_size, update, ranges)
        logits = self.network.unroll(inputs)
        total = functional.binary_cross_entropy_with_logits(logits, targets, mask, reduction="sum")
        return total / (mask.sum() * self.task.outputs)

    def evaluate(self, network: nn.Module) -> Mapping[str, float]:
        """Return bit errors per sequence (for n-grams, cost in bits) and their `score`."""
        assert isinstance(network, NeuralTuringMachine)
        return evaluate(network, self.task, sequences=EVALUATION_SEQUENCES)
