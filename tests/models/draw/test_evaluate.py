"""Measures: the bound does not depend on how pictures are batched, and recognition counts what it says."""

import pytest
import torch
from torch import Tensor, nn

from models.draw.evaluate import BATCH, agreement, certain_share, read
from models.draw.experiment import mean_bound
from models.draw.network import NO_CLASS, Config, Draw, condition
from models.draw.objective import bound


def test_mean_bound_is_the_mean_of_the_bounds() -> None:
    """Without the class; one batch gives what the formula gives."""
    torch.manual_seed(0)
    draw = Draw(Config(hidden_size=8, latent_size=4))
    binary = torch.bernoulli(torch.full((6, 28, 28), 0.2), generator=torch.Generator().manual_seed(1))

    found = mean_bound(draw, binary, 5, torch.Generator().manual_seed(2))

    noise = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(2))
    labels = torch.full((6,), NO_CLASS)
    expected = bound(binary, draw.reconstruct(binary, condition(labels, 5), noise)).nats.mean()
    assert found == pytest.approx(expected.item())


class Reader(nn.Module):
    """Reads a class off the picture's brightest column, as surely as it is told to."""

    def __init__(self, certainty: float) -> None:
        super().__init__()
        self.certainty = certainty

    def forward(self, picture: Tensor) -> Tensor:
        column = picture.mean(dim=(1, 2)).argmax(dim=1)
        return self.certainty * nn.functional.one_hot(column % 10, 10).float()


@pytest.mark.parametrize(("certainty", "share"), [(12.0, 1.0), (1.0, 0.0)])
def test_samples_are_read_and_counted(certainty: float, share: float) -> None:
    """Every column is classified correctly; the classifier's confidence decides whether that counts as certain."""
    labels = torch.arange(BATCH + 10) % 10
    pictures = nn.functional.one_hot(labels, 28)[:, None].expand(-1, 28, -1).float()

    probabilities = read(pictures, Reader(certainty))  # type: ignore[arg-type]

    assert certain_share(probabilities) == share
    assert agreement(probabilities, labels) == 1.0
    assert agreement(probabilities, (labels + 1) % 10) == 0.0
