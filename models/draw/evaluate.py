"""Measures of DRAW: whether a classifier of clean digits reads its samples, and what its bound is compared with.

Gregor et al., "DRAW", ICML 2015, https://arxiv.org/abs/1502.04623, section 4.2 and table 2.

Axis letters: B batch, A side of the canvas in pixels.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.classifier import CleanClassifier

CERTAIN = 0.9
"""A sample is recognisable if the classifier gives a class more than this."""
STEPS = (8, 16, 32, 64)
BOUND_STEPS = (32, 64)
PAPER_BOUND: Mapping[str, float] = {"64": 80.97}
"""Nats at a number of steps, from above; table 2."""
BATCH = 250


@torch.no_grad()
def read(pictures: Float[Tensor, "B A A"], reader: CleanClassifier) -> Float[Tensor, "B 10"]:
    """The probabilities of the classes, of finished pictures in 0..1."""
    return torch.cat([torch.softmax(reader(part[:, None]), dim=1) for part in torch.split(pictures, BATCH)])


def certain_share(probabilities: Float[Tensor, "B 10"]) -> float:
    """Share of the samples of which the classifier is more than `CERTAIN` sure."""
    return float((probabilities.amax(dim=1) > CERTAIN).float().mean())


def agreement(probabilities: Float[Tensor, "B 10"], labels: Int[Tensor, " B"]) -> float:
    """Share of the samples that the classifier reads as what they were to be."""
    return float((probabilities.argmax(dim=1) == labels).float().mean())
