"""Scores of rectifiers: their own error on every distortion, and how well other classifiers read the result.

M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, "Spatial Transformer Networks", 2015,
https://arxiv.org/abs/1506.02025, section 4.1.

Axes: B pictures of one size, H W their height and width, S side of the network's input.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from models.classifier import CleanClassifier
from models.mnist import Digits
from models.stn.distortion import (
    CONTROL,
    Clutter,
    Distortion,
    Elastic,
    Perspective,
    Rotation,
    RotationScaleTranslation,
    framed,
)
from models.stn.network import RECTIFIED_SIDE, Rectification, Tone
from models.stn.photograph import SCAN, Photograph
from models.stn.transformer import GridGenerator, Warp

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
UPLOADS: Mapping[str, Distortion] = {
    **DISTORTIONS,
    "photograph": Photograph(shorter_side=(64, 480)),
    "P unfolded": Perspective(min_turn=0.0),
    "P as drawn": Perspective(min_turn=-math.inf),
}
"""The same distortions as clients would send them: photographs have any size up to 640 x 480. The paper does not say
what happens to corners that make a picture of P too flat, so there are two more versions of P: only folded pictures are
redrawn, or none."""
PAPER_ERRORS: Mapping[str, Mapping[str, float]] = {
    "CNN": {"R": 1.2, "RTS": 0.8, "P": 1.5, "E": 1.4, "clutter": 3.5},
    "ST-CNN affine": {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.2},
    "ST-CNN projective": {"R": 0.8, "RTS": 0.6, "P": 0.8, "E": 1.3},
    "ST-CNN TPS": {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.1},
    "ST-CNN": {"clutter": 1.7},
}
"""Error in % of the paper's networks, each trained for one distortion: table 1; for clutter, section 4.1."""
BATCH, UPLOADED_BATCH = 250, 50


class Batch(NamedTuple):
    """Distorted digits of one size, with 8-bit greys as in an upload."""

    pictures: UInt8[Tensor, "B 1 H W"]
    digits: UInt8[Tensor, "B 1 28 28"]
    labels: Int[Tensor, "B"]
    points: Float[Tensor, "B 16 2"]
    """Positions of the digit's control points."""
    greys: Float[Tensor, "B 2"]
    """Grey levels of paper and ink, in this order, 0..1."""


class Reading(NamedTuple):
    """Output of a rectifier, as far as it is scored."""

    rectified: Float[Tensor, "B 1 28 28"]
    """Rectified digits, 0..1."""
    logits: Float[Tensor, "B 10"] | None
    """Class logits; None if the rectifier does not classify."""


Rectifier = Callable[[Batch], Reading | Rectification]
"""Function that rectifies a batch's pictures, and may classify them."""


class Score(NamedTuple):
    """Scores of one rectifier."""

    error_percent: float
    """Classification error; NaN if the rectifier does not classify."""
    pixel_error: float
    """Mean squared difference between the rectified picture and the clean digit."""
    readers_error_percent: tuple[float, ...]
    """Error of each classifier of clean digits on the rectified pictures."""


def challenge(distortion: Distortion, digits: Digits, *, side: int, seed: int) -> list[Batch]:
    """Return distorted digits, framed for the network; the seed decides the distortions."""
    return list(_distorted(distortion, digits, BATCH, seed, lambda pictures: framed(pictures, side)))


def uploads(distortion: Distortion, digits: Digits, *, seed: int) -> Iterator[Batch]:
    """Yield distorted digits in the size and shape of the distortion's frame; the seed decides the distortions."""
    return _distorted(distortion, digits, UPLOADED_BATCH, seed, lambda pictures: pictures)


def network_rectifier(network: nn.Module) -> Rectifier:
    """Return a network as a rectifier of pictures that are framed for it; it runs on the network's device."""
    device = next(network.parameters()).device
    return lambda batch: network(batch.pictures.to(device) / 255)


def best_fit(grid: GridGenerator) -> Rectifier:
    """Return a rectifier that knows where the digit is: it fits the grid to the true positions of the control points.

    Its errors are those of a perfect localisation: they come from distortions that the family of transformations cannot
    undo, from parts of the digit outside the picture, and from clutter on top of it.
    """
    warp = Warp(grid, RECTIFIED_SIDE, RECTIFIED_SIDE)

    def rectify(batch: Batch) -> Reading:
        square = framed(batch.pictures / 255, max(batch.pictures.shape[-2:]))
        developed = Tone.of_greys(batch.greys).developed(square)
        return Reading(warp(developed, grid.fitted(CONTROL, batch.points)).clamp(0, 1), logits=None)

    return rectify


@torch.no_grad()
def score(rectifiers: Sequence[Rectifier], batches: Iterable[Batch], readers: Sequence[CleanClassifier]) -> list[Score]:
    """Score every rectifier on the same distorted digits, and every reader on what each of them rectifies."""
    device = next(readers[0].parameters()).device
    size, sums = 0, torch.zeros(len(rectifiers), 2 + len(readers), dtype=torch.float64)
    for batch in batches:
        digits, labels = batch.digits.to(device) / 255, batch.labels.to(device)
        size += len(labels)
        for rectify, row in zip(rectifiers, sums, strict=True):
            result = rectify(batch)
            row[0] += math.nan if result.logits is None else 100 * (result.logits.argmax(1) != labels).sum().cpu()
            row[1] += (result.rectified - digits).square().mean((1, 2, 3)).sum().cpu()
            for index, reader in enumerate(readers, start=2):
                row[index] += 100 * (reader(result.rectified).argmax(1) != labels).sum().cpu()
    return [Score(error, pixels, tuple(read)) for error, pixels, *read in (sums / size).tolist()]


def _distorted(
    distortion: Distortion, digits: Digits, size: int, seed: int, frame: Callable[[Tensor], Tensor]
) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    clean, labels = torch.tensor(digits.images).unsqueeze(1), torch.tensor(digits.labels).long()
    for some, their_labels in zip(torch.split(clean, size), torch.split(labels, size), strict=True):
        pictures, points, greys = distortion(some / 255, generator)
        yield Batch((frame(pictures) * 255).round().byte(), some, their_labels, points, greys)
