"""Training a neural Turing machine on a task: its objective, and the sizes and schedules that work.

Section 4 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

Where it departs from the paper: batches of 16 with Adam at 1e-3 and the whole gradient's norm clipped, where
the paper has single sequences with RMSProp at 1e-4 and each element clipped.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.ntm.evaluate import evaluate
from models.ntm.network import Config, NeuralTuringMachine
from models.ntm.tasks import Task
from models.training import Schedule

EVALUATION_SEQUENCES = 64

UPDATES: Mapping[str, int] = {
    "copy": 40_000,
    "repeat-copy": 40_000,
    "associative-recall": 40_000,
    "dynamic-ngrams": 20_000,
    "priority-sort": 40_000,
}


def default_config(task: Task) -> Config:
    """The sizes of the machine that ships for a task."""
    return Config(inputs=task.inputs, outputs=task.outputs)


def default_schedule(task: Task) -> Schedule:
    """The schedule of the machine that ships for a task."""
    return Schedule(updates=UPDATES[task.name], learning_rate=1e-3, clip_norm=10.0, average_decay=0.99)


class NtmExperiment:
    """A machine and its task, for `models.training`."""

    def __init__(self, task: Task, config: Config, device: torch.device, batch_size: int = 16) -> None:
        self.task = task
        self.config = config
        self.batch_size = batch_size
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

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean cross-entropy, in nats, of the bits that matter."""
        inputs, targets, mask = self.task.training_batch(generator, self.batch_size)
        logits = self.network.unroll(inputs)
        total = functional.binary_cross_entropy_with_logits(logits, targets, mask, reduction="sum")
        return total / (mask.sum() * self.task.outputs)

    def evaluate(self, network: nn.Module) -> Mapping[str, float]:
        """Bit errors (bits of cost for n-grams) per sequence, and their `score`."""
        assert isinstance(network, NeuralTuringMachine)
        return evaluate(network, self.task, sequences=EVALUATION_SEQUENCES)
