"""Models as the service runs them, without the service."""

from pathlib import Path

from service.errors import ArtifactRejected
from service.runtime.base import RuntimeOptions
from service.runtime.repository import LoadedModel, artifacts, load
from service.settings import Batching, Settings

BATCH = Batching().slots
"""The service's largest batch, unless it is told otherwise."""


def newest(repository: Path, name: str) -> Path:
    """The folder of a model's latest version."""
    versions = [folder for folder in artifacts(repository) if folder.parent.name == name]
    if not versions:
        raise ArtifactRejected(f"{repository} holds no {name}")
    return max(versions, key=lambda folder: int(folder.name))


def loaded(repository: Path, name: str, threads: int = 0) -> LoadedModel:
    """A model's latest version, as the service runs it on a CPU; with its threads, unless others are given."""
    return opened(newest(repository, name), threads)


def opened(folder: Path, threads: int = 0) -> LoadedModel:
    """The model in a folder `NAME/VERSION`; likewise."""
    return load(folder, "onnxruntime", RuntimeOptions("cpu", threads or Settings().graph_threads))
