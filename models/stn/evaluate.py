"""What a network is worth: its error on every distortion, and whether others can read what it rectifies.

Axes: N pictures, S side of the network's input.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from models.classifier import CleanClassifier
from models.mnist import Digits
from models.stn.distortion import (
    Clutter,
    Distortion,
    Elastic,
    Perspective,
    Rotation,
    RotationScaleTranslation,
    framed,
)
from models.stn.network import Rectification
from models.stn.photograph import SCAN, Photograph

DISTORTIONS: Mapping[str, Distortion] = {
    "R": Rotation(),
    "RTS": RotationScaleTranslation(),
    "P": Perspective(),
    "E": Elastic(),
    "clutter": Clutter(),
    "photograph": Photograph(),
    "scan": SCAN,
    "clean": Rotation(degrees=0.0),
}
BATCH = 250


@dataclass(frozen=True, slots=True)
class Challenge:
    """Digits distorted once and for all, with 8-bit greys as in an upload."""

    pictures: UInt8[Tensor, "N 1 S S"]
    digits: UInt8[Tensor, "N 1 28 28"]
    labels: Int[Tensor, "N"]


@dataclass(frozen=True, slots=True)
class Score:
    """How a network did on a challenge."""

    error_percent: float
    pixel_error: float
    """Mean squared difference between the rectified picture and the clean digit."""
    reader_error_percent: float
    """Error of a classifier of clean digits on the rectified pictures."""


def challenge(distortion: Distortion, digits: Digits, *, side: int, seed: int) -> Challenge:
    """Distort digits, the same way for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.tensor(digits.images).unsqueeze(1)
    pictures = [
        (framed(distortion(part / 255, generator).pictures, side) * 255).round().byte()
        for part in torch.split(clean, BATCH)
    ]
    return Challenge(torch.cat(pictures), clean, torch.tensor(digits.labels).long())


@torch.no_grad()
def score(network: nn.Module, challenge: Challenge, reader: CleanClassifier) -> Score:
    """Put the challenge to a network in evaluation mode, on the device where the network is."""
    wrong, misread, squared = 0, 0, 0.0
    for pictures, digits, labels in _batches(challenge, next(network.parameters()).device):
        answer: Rectification = network(pictures)
        wrong += int((answer.logits.argmax(1) != labels).sum())
        squared += float((answer.rectified - digits).square().mean((1, 2, 3)).sum())
        misread += int((reader(answer.rectified).argmax(1) != labels).sum())
    size = len(challenge.labels)
    return Score(100 * wrong / size, squared / size, 100 * misread / size)


def table(
    network: nn.Module,
    digits: Digits,
    reader: CleanClassifier,
    *,
    side: int = 64,
    seed: int = 0,
) -> Mapping[str, Score]:
    """The score of every distortion, each applied to all of `digits`."""
    return {
        name: score(network, challenge(distortion, digits, side=side, seed=seed), reader)
        for name, distortion in DISTORTIONS.items()
    }


def _batches(
    challenge: Challenge, device: torch.device
) -> Iterator[tuple[Float[Tensor, "N 1 S S"], Float[Tensor, "N 1 28 28"], Int[Tensor, "N"]]]:
    for start in range(0, len(challenge.labels), BATCH):
        part = slice(start, start + BATCH)
        yield (
            challenge.pictures[part].to(device) / 255,
            challenge.digits[part].to(device) / 255,
            challenge.labels[part].to(device),
        )
