"""Measures: the bound does not depend on how pictures are batched, and recognition counts what it says."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.draw import evaluate
from models.draw.experiment import mean_bound
from models.draw.network import NO_CLASS, Config, Draw, condition
from models.draw.objective import bound
from models.mnist import Digits

SMALL = Config(hidden_size=8, latent_size=4)


def network() -> Draw:
    torch.manual_seed(0)
    return Draw(SMALL)


def test_mean_bound_is_the_mean_of_the_bounds() -> None:
    """Without the class; one batch gives what the formula gives."""
    draw = network()
    binary = torch.bernoulli(torch.full((6, 28, 28), 0.2), generator=torch.Generator().manual_seed(1))

    found = mean_bound(draw, binary, 5, torch.Generator().manual_seed(2))

    noise = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(2))
    labels = torch.full((6,), NO_CLASS)
    expected = bound(binary, draw.reconstruct(binary, condition(labels, 5), noise)).nats.mean()
    assert found == pytest.approx(expected.item())


def test_bound_of_digits_is_decided_by_the_seed() -> None:
    """Binarisation and noise are the seed's."""
    images = np.random.default_rng(0).integers(256, size=(4, 28, 28)).astype(np.uint8)
    digits = Digits(images, np.zeros(4, np.uint8))

    first, again, other = (evaluate.test_bound(network(), digits, 4, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert first != other


class Reader(nn.Module):
    """Reads a class off the picture's brightest column, as surely as it is told to."""

    def __init__(self, certainty: float) -> None:
        super().__init__()
        self.certainty = certainty

    def forward(self, picture: Tensor) -> Tensor:
        column = picture.mean(dim=(1, 2)).argmax(dim=1)
        return self.certainty * nn.functional.one_hot(column % 10, 10).float()


class Painter(Draw):
    """Draws every digit as its own bright column; nothing in particular where no digit is told."""

    def generate(self, y: Tensor, noise: Tensor) -> Tensor:
        labels = y[0, :, :11].argmax(dim=1)
        pictures = torch.zeros(len(noise), len(labels), 28, 28)
        for row, label in enumerate(labels.tolist()):
            pictures[:, row, :, label] = 1
        return pictures


@pytest.mark.parametrize(("certainty", "share"), [(12.0, 1.0), (1.0, 0.0)])
def test_recognition_counts_certainty_and_agreement(certainty: float, share: float) -> None:
    """A painter of columns is always read right; whether it counts as certain is for the reader to say."""
    found = evaluate.recognition(Painter(SMALL), Reader(certainty), 3, samples=20, seed=0)  # type: ignore[arg-type]

    assert found == evaluate.Recognition(3, share, share, 1.0)
