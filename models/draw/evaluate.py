"""Measures of DRAW: how well a classifier of clean digits reads its samples, and the paper's bound for comparison.

Gregor et al., "DRAW", ICML 2015, https://arxiv.org/abs/1502.04623, section 4.2 and table 2.

Axis letters: B batch, A side of the canvas in pixels.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.classifier import CleanClassifier

CERTAIN = 0.9
"""Probability of a class above which a sample counts as recognisable."""
STEPS = (8, 16, 32, 64)
"""Numbers of steps at which samples are evaluated."""
BOUND_STEPS = (32, 64)
"""Numbers of steps at which the bound is evaluated."""
PAPER_BOUND: Mapping[str, float] = {"64": 80.97}
"""Upper bound on -log p(x) of test digits in nats, by number of steps: table 2."""
BATCH = 250


@torch.no_grad()
def read(pictures: Float[Tensor, "B A A"], reader: CleanClassifier) -> Float[Tensor, "B 10"]:
    """Return the class probabilities of finished pictures in 0..1."""
    return torch.cat([torch.softmax(reader(part[:, None]), dim=1) for part in torch.split(pictures, BATCH)])


def certain_share(probabilities: Float[Tensor, "B 10"]) -> float:
    """Return the share of samples to which the classifier gives a class with a probability above `CERTAIN`."""
    return float((probabilities.amax(dim=1) > CERTAIN).float().mean())


def agreement(probabilities: Float[Tensor, "B 10"], labels: Int[Tensor, " B"]) -> float:
    """Return the share of samples that the classifier reads as the digit that was asked for."""
    return float((probabilities.argmax(dim=1) == labels).float().mean())
