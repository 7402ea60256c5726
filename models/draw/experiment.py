"""Training DRAW: binarised MNIST, a random number of steps, and the variational bound as the loss."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import mnist
from models.draw.network import MAX_STEPS, MIN_STEPS, NO_CLASS, Config, Draw, condition
from models.draw.objective import binarise, bound
from models.training import Schedule

NO_CLASS_SHARE = 0.4
"""Share of the training pictures whose class is withheld."""
VALIDATION_PICTURES = 1_000
VALIDATION_STEPS = 32

SCHEDULE = Schedule(updates=200_000, cooldown=0.3)
BATCH = 128
EVALUATION_BATCH = 250


class DrawExperiment:
    """Experiment (see `models.training`): one network for 8 to 64 steps, with and without the digit's class."""

    def __init__(self, config: Config, data: Path, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.network = Draw(config).to(device)
        train = mnist.load(data, mnist.Split.TRAIN)
        validation = mnist.load(data, mnist.Split.VALIDATION)
        self.images = _pictures(train, device)
        self.labels = torch.tensor(train.labels, dtype=torch.long, device=device)
        generator = torch.Generator(device).manual_seed(0)
        self.validation = binarise(_pictures(validation, device)[:VALIDATION_PICTURES], generator)

    @property
    def description(self) -> Mapping[str, Any]:
        """Family, name and configuration, from which the network can be rebuilt."""
        return {
            "family": "draw",
            "name": "draw",
            "config": asdict(self.config),
        }

    def loss(self, generator: torch.Generator, _update: int = 0) -> Tensor:
        """Return a batch's mean bound in nats, at a number of steps drawn log-uniformly from 8 to 64."""
        B, device = BATCH, self.device
        index = torch.randint(len(self.images), (B,), generator=generator, device=device)
        withheld = torch.rand(B, generator=generator, device=device) < NO_CLASS_SHARE
        labels = torch.where(withheld, NO_CLASS, self.labels[index])
        share = torch.rand((), generator=generator, device=device).item()
        steps = round(MIN_STEPS * math.exp(share * math.log(MAX_STEPS / MIN_STEPS)))
        x = binarise(self.images[index], generator)
        noise = torch.randn(steps, B, self.config.latent_size, generator=generator, device=device)
        return bound(x, self.network.reconstruct(x, condition(labels, steps), noise)).nats.mean()

    def evaluate(self, network: nn.Module) -> Mapping[str, float]:
        """Return the bound in nats on held-out pictures without their class, at 32 steps."""
        assert isinstance(network, Draw), "this is a bug: the trainer averages the experiment's own network"
        generator = torch.Generator(self.device).manual_seed(1)
        nats = mean_bound(network, self.validation, VALIDATION_STEPS, generator)
        return {"score": nats, f"nats_{VALIDATION_STEPS}_steps": nats}


def mean_bound(network: Draw, binary: Tensor, steps: int, generator: torch.Generator) -> float:
    """Return the mean bound in nats over binary pictures [N A A], without their class."""
    total = 0.0
    for x in torch.split(binary, EVALUATION_BATCH):
        labels = torch.full((len(x),), NO_CLASS, device=x.device)
        noise = torch.randn(steps, len(x), network.config.latent_size, generator=generator, device=x.device)
        seen = network.reconstruct(x, condition(labels, steps), noise)
        total += bound(x, seen).nats.sum().item()
    return total / len(binary)


def _pictures(digits: mnist.Digits, device: torch.device) -> Tensor:
    return torch.tensor(digits.images, dtype=torch.float32, device=device) / 255
