"""The reader of clean digits: kept once trained, and refused where it is not one."""

from pathlib import Path

import pytest
import torch

from models.checkpoint import Checkpoint, CheckpointError, save
from models.classifier import CleanClassifier, train_classifier


def test_classifier_that_is_there_is_not_trained_again(tmp_path: Path) -> None:
    """What was saved is what is loaded; no data are needed for that."""
    kept = CleanClassifier().eval()
    save(Checkpoint(kept.state_dict(), {}), tmp_path / "classifier.safetensors")
    picture = torch.rand(3, 1, 28, 28)

    loaded = train_classifier(tmp_path / "no data", tmp_path / "classifier.safetensors", seed=1)

    torch.testing.assert_close(loaded(picture), kept(picture))
    assert not loaded.training


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    save(Checkpoint({"weight": torch.zeros(1)}, {}), tmp_path / "other.safetensors")

    with pytest.raises(CheckpointError, match=r"other\.safetensors does not fit"):
        train_classifier(tmp_path, tmp_path / "other.safetensors", seed=1)
