"""Checkpoints: whole or not at all, and never another model's."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from models import checkpoint as checkpoints
from models.checkpoint import (
    Checkpoint,
    CheckpointError,
    adopt_weights,
    load,
    load_weights,
    mean_weights,
    save,
    weights_file,
)


def linear(size: int = 3) -> nn.Linear:
    return nn.Linear(size, 2)


def test_checkpoint_that_was_saved_is_loaded_again(tmp_path: Path) -> None:
    """Every tensor to the last bit, of whatever type and layout, and the description as it was."""
    tensors = {
        "floats": torch.randn(3, 4).t(),
        "whole": torch.arange(5),
        "half": torch.randn(2).to(torch.bfloat16),
        "scalar": torch.tensor(7.5),
    }
    description = {"family": "draw", "config": {"side": 28, "names": ["a", "b"]}, "seed": None}

    save(Checkpoint(tensors, description), tmp_path / "new folder" / "last.safetensors")
    found = load(tmp_path / "new folder" / "last.safetensors")

    assert found.description == description
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


@pytest.mark.parametrize("step", ["save_file", "replace"])
def test_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A full disk in the middle of writing, or at the very end, costs the new checkpoint, not the last one."""
    path = tmp_path / "last.safetensors"
    save(Checkpoint({"x": torch.ones(3)}, {"update": 1}), path)

    def half_written(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    def not_replaced(*_: object) -> None:
        raise OSError("no space left on device")

    if step == "save_file":
        monkeypatch.setattr(checkpoints, "save_file", half_written)
    else:
        monkeypatch.setattr(os, "replace", not_replaced)

    with pytest.raises(OSError, match="no space left"):
        save(Checkpoint({"x": torch.zeros(3)}, {"update": 2}), path)
    assert load(path).description == {"update": 1}
    assert torch.equal(load(path).tensors["x"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_library_says_of_a_full_disk_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the path; nothing half-written is left."""

    def half_written(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", half_written)

    with pytest.raises(CheckpointError, match=r"last\.safetensors cannot be written: .*No space left"):
        save(Checkpoint({"x": torch.zeros(3)}, {}), tmp_path / "last.safetensors")
    assert not list(tmp_path.iterdir())


def test_checkpoint_can_be_read_by_whoever_serves_it(tmp_path: Path) -> None:
    """Who may be another user than the one who trained it, and may not write it."""
    save(Checkpoint({"x": torch.zeros(3)}, {}), tmp_path / "last.safetensors")

    assert (tmp_path / "last.safetensors").stat().st_mode & 0o777 == 0o644


def test_checkpoint_that_is_missing_is_refused(tmp_path: Path) -> None:
    """By its path."""
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*absent"):
        load(tmp_path / "absent")


def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """Other bytes, half a file, and tensors that somebody else saved."""
    path = tmp_path / "file"
    save(Checkpoint({"x": torch.ones(30)}, {}), path)
    whole = path.read_bytes()

    for data in (b"", b"words", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="is not a Glimpse checkpoint"):
            load(path)
    save_file({"x": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match="is not a Glimpse checkpoint"):
        load(path)


def test_weights_are_put_into_the_network_they_fit(tmp_path: Path) -> None:
    """And into no other."""
    trained, fresh = linear(), linear()
    checkpoint = Checkpoint(trained.state_dict(), {})

    load_weights(fresh, checkpoint, tmp_path)

    assert torch.equal(fresh.weight, trained.weight)
    for other in (linear(4), nn.Bilinear(1, 1, 1)):
        with pytest.raises(CheckpointError, match=r"(?s)does not fit the network: .*weight"):
            load_weights(other, checkpoint, tmp_path)


def test_what_fits_of_a_checkpoint_is_adopted_and_the_rest_is_named() -> None:
    """A network begins with the tensors that it shares with another, and keeps its own where it has none."""
    trained, first, second = nn.Sequential(linear(), linear(4)).state_dict(), linear(), linear(5)
    own = second.weight.clone()

    missing = adopt_weights(nn.Sequential(first, second), trained, "a run")

    assert missing == ["1.weight"]
    assert torch.equal(first.weight, trained["0.weight"])
    assert torch.equal(second.weight, own)
    assert torch.equal(second.bias, trained["1.bias"])
    with pytest.raises(CheckpointError, match="a run has no tensor that fits"):
        adopt_weights(nn.Bilinear(1, 1, 1), {}, "a run")


def test_mean_of_weights_is_that_of_each_number() -> None:
    """In their own type; a counter, which has no mean, is the first one's."""
    ones = {"weight": torch.tensor([1.0, -2.0]), "updates": torch.tensor(7)}
    others = {"updates": torch.tensor(10), "weight": torch.tensor([3.0, 5.0])}

    mean = mean_weights([Checkpoint(ones, {}), Checkpoint(others, {})], "a + b")

    assert torch.equal(mean["weight"], torch.tensor([2.0, 1.5]))
    assert mean["updates"] == 7
    assert torch.equal(mean_weights([Checkpoint(ones, {})], "a")["weight"], ones["weight"])


@pytest.mark.parametrize("other", [{"weight": torch.zeros(3)}, {"bias": torch.zeros(2)}, {}])
def test_weights_of_different_networks_have_no_mean(other: dict[str, torch.Tensor]) -> None:
    """Where they come from is said."""
    weights = {"weight": torch.zeros(2)}

    with pytest.raises(CheckpointError, match=r"a \+ b have no mean"):
        mean_weights([Checkpoint(weights, {}), Checkpoint(other, {})], "a + b")


def test_training_state_is_not_taken_for_a_networks_weights(tmp_path: Path) -> None:
    """In a line that says which file is meant, and not with the names of all its tensors."""
    state = {
        "network.weight": torch.zeros(2, 3),
        "average.weight": torch.zeros(2, 3),
        "optimizer.0.step": torch.ones(1),
    }

    with pytest.raises(CheckpointError, match=r"last is a training state; give the run's folder, or its best.safetens"):
        load_weights(linear(), Checkpoint(state, {}), tmp_path / "last")


def test_path_means_a_file_a_models_weights_or_the_best_of_a_run(tmp_path: Path) -> None:
    """A model's folder without a version means none of them; its latest version is suggested."""
    for name in ("run/best.safetensors", "draw/9/weights.safetensors", "draw/10/weights.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()

    assert weights_file(tmp_path / "run" / "best.safetensors") == tmp_path / "run" / "best.safetensors"
    assert weights_file(tmp_path / "run") == tmp_path / "run" / "best.safetensors"
    assert weights_file(tmp_path / "draw" / "9") == tmp_path / "draw" / "9" / "weights.safetensors"
    assert weights_file(tmp_path / "nothing") == tmp_path / "nothing" / "best.safetensors"
    with pytest.raises(CheckpointError, match=r"draw holds versions of a model; name one of them: .*draw/10$"):
        weights_file(tmp_path / "draw")
