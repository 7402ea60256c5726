"""Checkpoints: tensors and their description in one safetensors file, written whole or not at all.

The description is JSON in the file's header, so that it cannot be separated from the tensors. No pickle.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.errors import ModelError


class CheckpointError(ModelError):
    """A checkpoint is missing, damaged, or of another model."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors with a JSON-serialisable description of them."""

    tensors: Mapping[str, Tensor]
    description: Mapping[str, Any]


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write `path` atomically: a reader sees the old file or the new one, never a part.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    try:
        save_file(tensors, temporary, metadata={"glimpse": json.dumps(dict(checkpoint.description))})
        temporary.chmod(0o644)  # safetensors makes it private, but another user may have to serve it
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace is the same call with a return value
    except SafetensorError as error:  # as which safetensors reports errors of the file system
        raise CheckpointError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint to CPU tensors.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, or was not written by `save`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["glimpse"])
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, description)  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a Glimpse checkpoint: {error}") from error


def starts(description: Mapping[str, Any]) -> list[str]:
    """Return where a run's first weights came from: nowhere if they were random, several places if they were a mean."""
    found = description.get("start") or []  # older checkpoints have a string
    return [found] if isinstance(found, str) else list(found)


def weights_file(path: Path) -> Path:
    """Return the checkpoint that a path means: itself if it is a file, a model's weights, or the best of a run.

    Raises:
        CheckpointError: the path is a folder of versions, of which one is to be named.
    """
    if path.is_file():
        return path
    shipped, best = path / "weights.safetensors", path / "best.safetensors"
    if shipped.exists():
        return shipped
    versions = [int(folder.name) for folder in path.glob("*") if folder.name.isdigit()]
    if versions and not best.exists():
        raise CheckpointError(f"{path} holds versions of a model; name one of them: {path / str(max(versions))}")
    return best


def load_weights(network: torch.nn.Module, checkpoint: Checkpoint, source: Path) -> None:
    """Copy a checkpoint's tensors into `network`.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; or these are not a network's tensors alone.
    """
    if any(name.startswith("optimizer.") for name in checkpoint.tensors):
        raise CheckpointError(f"{source} is a training state; give the run's folder, or its best.safetensors")
    try:
        network.load_state_dict(dict(checkpoint.tensors))
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not fit the network: {error}") from error


def mean_weights(checkpoints: Sequence[Checkpoint], source: str) -> Mapping[str, Tensor]:
    """Return the mean of each tensor over checkpoints of one network; counters are taken from the first.

    Runs that began with the same weights end in one basin of the loss, whose middle is often better than its sides:
    M. Wortsman et al., "Model soups", 2022, https://arxiv.org/abs/2203.05482, section 3.

    Raises:
        CheckpointError: they do not have the same tensors, of the same shapes.
    """

    def shapes(checkpoint: Checkpoint) -> Mapping[str, torch.Size]:
        return {name: tensor.shape for name, tensor in checkpoint.tensors.items()}

    first, *others = checkpoints
    if any(shapes(other) != shapes(first) for other in others):
        raise CheckpointError(f"{source} have no mean: their tensors differ")
    return {
        name: torch.stack([checkpoint.tensors[name] for checkpoint in checkpoints]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.tensors.items()
    }


def adopt_weights(network: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> Sequence[str]:
    """Copy the tensors whose name and shape fit into `network`, and return the names of those that it keeps.

    Raises:
        CheckpointError: no tensor fits.
    """
    own = network.state_dict()
    fitting = {name: t for name, t in tensors.items() if name in own and own[name].shape == t.shape}
    if not fitting:
        raise CheckpointError(f"{source} has no tensor that fits the network")
    network.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]
