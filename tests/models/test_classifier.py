"""Classifiers of clean digits are trained once and kept; a checkpoint of another network is refused."""

from pathlib import Path

import pytest
import torch

from models.checkpoint import Checkpoint, CheckpointError, save
from models.classifier import JUDGE, READER, CleanClassifier, classifier_in, classifiers, train_classifier


def test_classifier_that_is_there_is_not_trained_again(tmp_path: Path) -> None:
    """What was saved is what is loaded; no data are needed for that."""
    kept = CleanClassifier().eval()
    save(Checkpoint(kept.state_dict(), {}), tmp_path / "classifier.safetensors")
    picture = torch.rand(3, 1, 28, 28)

    loaded = train_classifier(tmp_path / "no data", tmp_path / "classifier.safetensors", seed=1)

    torch.testing.assert_close(loaded(picture), kept(picture))
    assert not loaded.training


@pytest.mark.parametrize("name", JUDGE.configs)
def test_readers_tell_ten_classes_apart(name: str) -> None:
    """Every architecture returns ten logits per digit, each of which depends on the digit."""
    torch.manual_seed(0)
    reader = CleanClassifier(JUDGE.configs[name]).eval()
    digits = torch.rand(3, 1, 28, 28, requires_grad=True)

    logits = reader(digits)

    assert logits.shape == (3, 10)
    (gradient,) = torch.autograd.grad(logits[1, 4], digits)
    assert gradient[1].abs().sum() > 0
    assert not gradient[[0, 2]].any()


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    save(Checkpoint({"weight": torch.zeros(1)}, {}), tmp_path / "other.safetensors")

    with pytest.raises(CheckpointError, match=r"other\.safetensors does not fit"):
        train_classifier(tmp_path, tmp_path / "other.safetensors", seed=1)


def test_judges_are_not_the_readers(tmp_path: Path) -> None:
    """The two roles have separate files and seeds, and one judge has an architecture that no reader has."""
    kept = {}
    for role in (READER, JUDGE):
        for name, config in role.configs.items():
            kept[role.name, name] = CleanClassifier(config)
            save(Checkpoint(kept[role.name, name].state_dict(), {}), tmp_path / f"{role.name}-{name}.safetensors")
    picture = torch.rand(2, 1, 28, 28)

    for role in (READER, JUDGE):
        found = classifiers(tmp_path / "no data", tmp_path, role)
        assert found.keys() == role.configs.keys()
        for name, classifier in found.items():
            torch.testing.assert_close(classifier(picture), kept[role.name, name].eval()(picture))
            again = classifier_in(tmp_path / "no data", tmp_path, role, name)
            torch.testing.assert_close(again(picture), classifier(picture))
    assert len(kept) == len(READER.configs) + len(JUDGE.configs)
    assert READER.seed != JUDGE.seed
    assert any(config not in READER.configs.values() for config in JUDGE.configs.values())
