"""Measures of DRAW: the bound on binarised MNIST, and whether a classifier of clean digits reads its samples.

Gregor et al., "DRAW", ICML 2015, https://arxiv.org/abs/1502.04623, section 4.2 and table 2.

Axis letters: B batch, T steps, Z latent variables.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.classifier import CleanClassifier
from models.draw.experiment import mean_bound
from models.draw.network import CLASSES, NO_CLASS, Draw, condition
from models.draw.objective import binarise
from models.mnist import Digits

CERTAIN = 0.9
"""A sample is recognisable if the classifier gives a class more than this."""
STEPS = (8, 16, 32, 64)
BOUND_STEPS = (32, 64)
BATCH = 250


@dataclass(frozen=True, slots=True)
class Recognition:
    """How the classifier reads samples."""

    steps: int
    certain_share: float
    """Of unconditional samples, the share that it is more than `CERTAIN` sure of."""
    conditional_certain_share: float
    """The same, of samples of a given digit."""
    conditional_accuracy: float
    """Of samples of a given digit, the share that it reads as that digit."""


@torch.no_grad()
def recognition(network: Draw, reader: CleanClassifier, steps: int, *, samples: int, seed: int) -> Recognition:
    """Draw samples without and with a class, as many of each, and have them read."""
    generator = torch.Generator().manual_seed(seed)
    unconditional = _read(network, reader, torch.full((samples,), NO_CLASS), steps, generator)
    labels = torch.arange(samples) % CLASSES
    conditional = _read(network, reader, labels, steps, generator)
    return Recognition(
        steps,
        float((unconditional.amax(dim=1) > CERTAIN).float().mean()),
        float((conditional.amax(dim=1) > CERTAIN).float().mean()),
        float((conditional.argmax(dim=1) == labels).float().mean()),
    )


@torch.no_grad()
def test_bound(network: Draw, digits: Digits, steps: int, *, seed: int) -> float:
    """The bound in nats on binarised digits without their classes; the seed fixes binarisation and noise."""
    generator = torch.Generator().manual_seed(seed)
    binary = binarise(torch.tensor(digits.images, dtype=torch.float32) / 255, generator)
    return mean_bound(network, binary, steps, generator)


def _read(network: Draw, reader: CleanClassifier, labels: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    probabilities = []
    for part in torch.split(labels, BATCH):
        noise = torch.randn(steps, len(part), network.config.latent_size, generator=generator)
        finished = network.generate(condition(part, steps), noise)[-1]
        probabilities.append(torch.softmax(reader(finished[:, None]), dim=1))
    return torch.cat(probabilities)
