"""Models loaded and run as in the service, without the service."""

from pathlib import Path

from service.errors import ArtifactRejected
from service.runtime.base import RuntimeOptions
from service.runtime.repository import LoadedModel, artifacts, load
from service.settings import Batching, Settings

BATCH = Batching().slots
"""Largest batch of the service with default settings."""


def newest(repository: Path, name: str) -> Path:
    """Return the folder of a model's latest version.

    Raises:
        ArtifactRejected: the repository does not hold the model.
    """
    versions = [folder for folder in artifacts(repository) if folder.parent.name == name]
    if not versions:
        raise ArtifactRejected(f"{repository} holds no {name}")
    return max(versions, key=lambda folder: int(folder.name))


def loaded(repository: Path, name: str, threads: int = 0) -> LoadedModel:
    """Load a model's latest version as the service does on a CPU; `threads` = 0 means the service's own number.

    Raises:
        ArtifactRejected: the repository does not hold the model, or it cannot be served.
    """
    return opened(newest(repository, name), threads)


def opened(folder: Path, threads: int = 0) -> LoadedModel:
    """Load the model in a folder `NAME/VERSION` as the service does on a CPU; `threads` as in `loaded`.

    Raises:
        ArtifactRejected: the model cannot be served.
    """
    return load(folder, "onnxruntime", RuntimeOptions("cpu", threads or Settings().graph_threads))
