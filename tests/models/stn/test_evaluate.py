"""Scores: an oracle makes no error, and a rectifier that ignores its input is right by chance alone."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier import CleanClassifier
from models.mnist import Digits
from models.stn.distortion import Rotation
from models.stn.evaluate import BATCH, UPLOADS, Batch, Reading, best_fit, challenge, score, uploads
from models.stn.transformer import Kind, grid_generator

SIZE = BATCH + 50
"""More than a batch, so that the last one is short."""


def digits() -> Digits:
    random = np.random.default_rng(0)
    labels = (np.arange(SIZE) % 10).astype(np.uint8)
    return Digits(random.integers(0, 256, (SIZE, 28, 28), np.uint8), labels)


def stubborn(batch: Batch) -> Reading:
    """Return every picture whole, and classify it as a three."""
    picture = batch.pictures / 255
    whole = F.interpolate(picture, (28, 28), mode="bilinear", align_corners=False)
    return Reading(whole, F.one_hot(torch.full((len(picture),), 3), 10).float())


def test_challenge_is_the_same_for_the_same_seed() -> None:
    """What networks are compared on does not move."""
    first = challenge(Rotation(), digits(), side=64, seed=1)
    again = challenge(Rotation(), digits(), side=64, seed=1)
    other = challenge(Rotation(), digits(), side=64, seed=2)

    assert [len(batch.labels) for batch in first] == [BATCH, 50]
    assert all(one.pictures.equal(same.pictures) for one, same in zip(first, again, strict=True))
    assert not first[0].pictures.equal(other[0].pictures)


@pytest.mark.parametrize(("name", "side"), [("R", 28), ("RTS", 42), ("P", 28), ("E", 28), ("clutter", 60)])
def test_uploads_have_the_size_of_their_own_frame(name: str, side: int) -> None:
    """Nothing is framed yet, and every digit comes once, with its label."""
    given = digits()

    batches = list(uploads(UPLOADS[name], given, seed=1))

    assert {batch.pictures.shape[1:] for batch in batches} == {(1, side, side)}
    np.testing.assert_array_equal(torch.cat([batch.digits for batch in batches])[:, 0], given.images)
    np.testing.assert_array_equal(torch.cat([batch.labels for batch in batches]), given.labels)


def test_uploaded_photographs_are_of_many_sizes() -> None:
    """None is larger than 640 x 480, and not all are square."""
    few = Digits(digits().images[:4], digits().labels[:4])

    shapes = [next(uploads(UPLOADS["photograph"], few, seed=seed)).pictures.shape[2:] for seed in range(8)]

    assert all(max(shape) <= 640 and min(shape) <= 480 for shape in shapes)
    assert len(set(shapes)) > 4
    assert any(height != width for height, width in shapes)


def test_stubborn_rectifier_errs_on_all_other_digits() -> None:
    """One label for everything is right for a tenth of evenly spread digits."""
    [result] = score([stubborn], challenge(Rotation(), digits(), side=64, seed=1), [CleanClassifier().eval()])

    assert result.error_percent == 90.0


def test_pixel_error_is_that_of_the_pictures() -> None:
    """Undistorted digits seen as a whole are nearly themselves; turned ones are not."""
    smooth = Digits(np.full((SIZE, 28, 28), 200, np.uint8), digits().labels)

    [still] = score([stubborn], challenge(Rotation(degrees=0.0), smooth, side=56, seed=1), [CleanClassifier().eval()])
    [turned] = score([stubborn], challenge(Rotation(), digits(), side=56, seed=1), [CleanClassifier().eval()])

    assert still.pixel_error < 1e-5
    assert turned.pixel_error > 0.05


def test_reader_is_scored_on_the_rectified_pictures() -> None:
    """A reader adds a second error, that of its own classification."""
    reader = CleanClassifier().eval()
    last = reader.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(F.one_hot(torch.tensor(7), 10))

    [result] = score([stubborn], challenge(Rotation(), digits(), side=64, seed=1), [reader, CleanClassifier().eval()])

    assert result.readers_error_percent[0] == 90.0
    assert len(result.readers_error_percent) == 2


class OneDigitReader(CleanClassifier):
    """Reads 0 where a picture is close to the only digit that it knows, and 1 elsewhere."""

    def __init__(self, known: np.ndarray, tolerance: float) -> None:
        super().__init__()
        self.known = torch.tensor(known) / 255
        self.tolerance = tolerance

    def forward(self, picture: Tensor) -> Tensor:
        distance = (picture - self.known).square().mean((1, 2, 3))
        return torch.stack((torch.full_like(distance, self.tolerance), distance), 1)


def bar() -> np.ndarray:
    digit = np.zeros((28, 28), np.float32)
    digit[6:22, 9:13] = 255
    return F.avg_pool2d(torch.tensor(digit)[None], 5, 1, 2)[0].numpy().astype(np.uint8)


def best_fit_misread(kind: Kind, name: str, *, tolerance: float) -> float:
    digits = Digits(np.repeat(bar()[None], SIZE, axis=0), np.zeros(SIZE, np.uint8))
    reader = OneDigitReader(bar(), tolerance)
    [result] = score([best_fit(grid_generator(kind))], uploads(UPLOADS[name], digits, seed=1), [reader])
    assert math.isnan(result.error_percent)
    return result.readers_error_percent[0]


@pytest.mark.parametrize("kind", ["affine", "projective", "tps"])
@pytest.mark.parametrize("name", ["R", "RTS", "scan", "clean"])
def test_best_fit_undoes_what_the_family_can(name: str, kind: Kind) -> None:
    """Turned, moved, scaled, dark on light: every digit is seen as it was."""
    assert best_fit_misread(kind, name, tolerance=0.02) == 0


def test_best_fit_keeps_what_the_family_cannot_undo() -> None:
    """A digit whose corners were displaced is still skewed after an affine map."""
    assert best_fit_misread("projective", "P", tolerance=0.005) < best_fit_misread("affine", "P", tolerance=0.005)
