"""Scores: an oracle makes no error, a stubborn network is right by chance alone."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier import CleanClassifier
from models.mnist import Digits
from models.stn.distortion import Rotation
from models.stn.evaluate import BATCH, challenge, score
from models.stn.network import Rectification

SIZE = BATCH + 50
"""More than a batch, so that the last one is short."""


def digits() -> Digits:
    random = np.random.default_rng(0)
    labels = (np.arange(SIZE) % 10).astype(np.uint8)
    return Digits(random.integers(0, 256, (SIZE, 28, 28), np.uint8), labels)


class Stubborn(nn.Module):
    """Sees every picture as a whole, and a three in it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, picture: Tensor) -> Rectification:
        size = len(picture)
        whole = F.interpolate(picture, (28, 28), mode="bilinear", align_corners=False)
        three = F.one_hot(torch.full((size,), 3), 10).float()
        return Rectification(whole, three, torch.zeros(size, 6), torch.zeros(size, 2), torch.zeros(size, 6))


def test_challenge_is_the_same_for_the_same_seed() -> None:
    """What networks are compared on does not move."""
    first = challenge(Rotation(), digits(), side=64, seed=1)
    again = challenge(Rotation(), digits(), side=64, seed=1)
    other = challenge(Rotation(), digits(), side=64, seed=2)

    assert first.pictures.equal(again.pictures)
    assert not first.pictures.equal(other.pictures)


def test_stubborn_network_errs_on_all_other_digits() -> None:
    """One label for everything is right for a tenth of evenly spread digits."""
    result = score(Stubborn(), challenge(Rotation(), digits(), side=64, seed=1), CleanClassifier().eval())

    assert result.error_percent == 90.0


def test_pixel_error_is_that_of_the_pictures() -> None:
    """Undistorted digits seen as a whole are nearly themselves; turned ones are not."""
    smooth = Digits(np.full((SIZE, 28, 28), 200, np.uint8), digits().labels)

    still = score(Stubborn(), challenge(Rotation(degrees=0.0), smooth, side=56, seed=1), CleanClassifier().eval())
    turned = score(Stubborn(), challenge(Rotation(), digits(), side=56, seed=1), CleanClassifier().eval())

    assert still.pixel_error < 1e-5
    assert turned.pixel_error > 0.05


def test_reader_is_scored_on_the_rectified_pictures() -> None:
    """With a reader there is a second error, of its own reading."""
    reader = CleanClassifier().eval()
    last = reader.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(F.one_hot(torch.tensor(7), 10))

    result = score(Stubborn(), challenge(Rotation(), digits(), side=64, seed=1), reader)

    assert result.reader_error_percent == 90.0
