"""The experiment, on MNIST itself."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models.stn.experiment
from models.classifier import READERS, CleanClassifier
from models.stn.evaluate import DISTORTIONS
from models.stn.experiment import SHARES, StnExperiment, tone_error
from models.stn.network import Config


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> StnExperiment:
    folder = os.environ.get("GLIMPSE_DATA")
    if folder is None:
        pytest.skip("needs MNIST; set GLIMPSE_DATA to its folder")
    monkeypatch.setattr(models.stn.experiment, "EVALUATION_DIGITS", 10)
    return StnExperiment("affine", Path(folder), [CleanClassifier().eval()], torch.device("cpu"), batch_size=64)


def test_batch_is_shared_among_all_distortions(experiment: StnExperiment) -> None:
    """Every distortion gets its part, and the parts fill the batch."""
    assert set(SHARES) == set(DISTORTIONS)
    assert sum(experiment.sizes) == 64
    assert min(experiment.sizes) > 0


def test_loss_depends_on_the_generator_alone(experiment: StnExperiment) -> None:
    """The same seed gives the same batch, another seed another one."""
    experiment.network.eval()

    with torch.no_grad():
        first, again, other = (float(experiment.loss(torch.Generator().manual_seed(n))) for n in (1, 1, 2))

    assert first == again
    assert first != other


def test_loss_falls_within_a_few_updates(experiment: StnExperiment) -> None:
    """Eight steps down the gradient of one batch lower its loss."""
    optimizer = torch.optim.Adam(experiment.network.parameters(), lr=1e-3)
    losses = []

    for _ in range(8):
        loss = experiment.loss(torch.Generator().manual_seed(3))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.9 * losses[0]


def test_reader_is_asked_but_not_taught(experiment: StnExperiment) -> None:
    """Its classification is part of the loss, but its weights get no gradient."""
    loss = experiment.loss(torch.Generator().manual_seed(3))
    loss.backward()  # type: ignore[no-untyped-call]
    [reader] = experiment.readers
    with torch.no_grad():
        for parameter in reader.parameters():
            parameter.zero_()

    assert experiment.loss(torch.Generator().manual_seed(3)).item() != loss.item()
    assert all(parameter.grad is None for parameter in reader.parameters())


def test_readers_take_turns(experiment: StnExperiment) -> None:
    """Several that read alike weigh as much as one; of three that differ, each reads a third of every distortion."""
    experiment.network.eval()

    def loss() -> float:
        with torch.no_grad():
            return float(experiment.loss(torch.Generator().manual_seed(3)))

    alone, [reader] = loss(), experiment.readers
    experiment.readers = [reader] * 3
    assert loss() == pytest.approx(alone, rel=1e-5)

    rectified: list[Tensor] = []
    reader.register_forward_pre_hook(lambda _, given: rectified.append(given[0]))
    experiment.readers = [reader]
    loss()
    experiment.readers = [CleanClassifier(config).eval() for config in READERS.values()]
    for each in experiment.readers:
        each.register_forward_pre_hook(lambda _, given: rectified.append(given[0]))
    assert loss() != pytest.approx(alone, rel=1e-5)
    everything, *thirds = rectified
    assert len(thirds) == 3
    for turn, third in enumerate(thirds):
        assert torch.equal(third, everything[turn::3])


class Attentive(nn.Module):
    """Reads the label that a picture's grey stands for."""

    def forward(self, pictures: Tensor) -> Tensor:
        labels = (10 * pictures[:, 0, 0, 0]).round().long()
        return 100.0 * F.one_hot(labels, 10)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_reading_is_compared_with_the_label_of_its_picture(experiment: StnExperiment, count: int) -> None:
    """Readers that make no mistake have no loss, however many take turns."""
    labels = torch.arange(64) ** 2 % 10
    experiment.readers = [Attentive()] * count  # type: ignore[list-item]

    readings = experiment._read((labels / 10).view(-1, 1, 1, 1).expand(-1, 1, 28, 28), labels)

    assert F.cross_entropy(*readings) < 1e-6


@pytest.mark.parametrize("term", ["POINT", "COARSE", "READER", "TONE", "PIXEL"])
def test_every_term_adds_to_the_loss(experiment: StnExperiment, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the loss of a new network is lower."""
    experiment.network.eval()

    def loss() -> float:
        with torch.no_grad():
            return float(experiment.loss(torch.Generator().manual_seed(3)))

    whole = loss()
    monkeypatch.setattr(models.stn.experiment, f"{term}_WEIGHT", 0.0)

    assert loss() < whole - 1e-3


def test_negative_has_its_greys_inverted_too(experiment: StnExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Light becomes dark, in the picture and in the greys of paper and ink; the points stay."""
    digits = experiment.images[:64] / 255

    monkeypatch.setattr(models.stn.experiment, "INVERTED_SHARE", 0.0)
    pictures, points, greys = experiment._distort(digits, torch.Generator().manual_seed(3))
    monkeypatch.setattr(models.stn.experiment, "INVERTED_SHARE", 1.0)
    negative = experiment._distort(digits, torch.Generator().manual_seed(3))

    torch.testing.assert_close(negative.pictures, 1 - pictures)
    torch.testing.assert_close(negative.points, points)
    torch.testing.assert_close(negative.greys, 1 - greys)


def test_tone_may_go_beyond_black_and_white() -> None:
    """Values that are clamped cost nothing; remaining grey costs its square."""
    assert tone_error(torch.tensor([[0.0, 1.0], [-0.3, 1.4]])) == 0
    torch.testing.assert_close(tone_error(torch.tensor([[0.2, 1.0], [-0.3, 0.8]])), torch.tensor(0.02))


def test_evaluation_names_every_distortion(experiment: StnExperiment) -> None:
    """The metrics are the network's and the reader's error for each distortion, and the score that adds their means."""
    metrics = experiment.evaluate(experiment.network.eval())

    assert set(metrics) == {"score", *DISTORTIONS, *(f"read_{name}" for name in DISTORTIONS)}
    errors = [metrics[name] + metrics[f"read_{name}"] for name in DISTORTIONS]
    assert metrics["score"] == pytest.approx(sum(errors) / len(errors))


def test_description_rebuilds_the_config(experiment: StnExperiment) -> None:
    """What a checkpoint keeps of the experiment survives JSON unchanged."""
    description = json.loads(json.dumps(experiment.description))

    assert description == experiment.description
    assert Config(**description["config"]) == experiment.config
