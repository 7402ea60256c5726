"""The graphs of every model, with the networks that they come from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from export.graphs import ExportGraph, graphs_of
from export.package import network_of
from models.checkpoint import load


@pytest.fixture(scope="session")
def graph(checkpoints: Path) -> Callable[[str, str], ExportGraph]:
    """A graph by the names of its model and itself."""

    def find(model: str, name: str) -> ExportGraph:
        path = checkpoints / f"{model}.safetensors"
        return graphs_of(network_of(load(path), path))[name]

    return find
