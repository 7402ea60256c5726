"""The model repository: folders `NAME/VERSION`, each an artifact with a manifest that lists its checksums."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from export.manifest import (
    MANIFEST_FILE,
    Array,
    Graph,
    Manifest,
    ManifestError,
    read,
    read_tensors,
)
from service.errors import ArtifactRejected, DeviceUnavailable, InferenceFailed
from service.runtime.base import Runtime, RuntimeModule, RuntimeOptions, compute

logger = logging.getLogger("glimpse.runtime")

GOLDEN_SLACK = {"float32": 1e-3, "uint8": 1.0, "int64": 0.0}
"""Largest difference from a golden output that is allowed, by dtype, because rounding differs between machines. It is
absolute, but for floats whose largest magnitude exceeds 1 it is relative to that magnitude."""


@dataclass(frozen=True, slots=True)
class LoadedGraph:
    """A graph in a runtime, with its initial state and its golden example."""

    runtime: Runtime
    initial: Mapping[str, Array]
    """State of a new sequence by name; each array has the state's shape without the batch axis."""
    golden: Mapping[str, Array]
    """Example inputs and states, and the outputs and next states expected for them, by name."""

    def verify(self) -> None:
        """Compute the golden example, which also warms up the runtime, and compare the results.

        Raises:
            InferenceFailed: the runtime fails, or an output differs by more than `GOLDEN_SLACK`.
        """
        try:
            answer = compute(self.runtime, self.golden)
        except Exception as error:  # a runtime may raise anything
            raise InferenceFailed(f"its golden example cannot be computed: {error}") from error
        for name, spec in self.runtime.signature.all_outputs.items():
            expected = self.golden[name]
            worst = float(np.abs(answer[name].astype(np.float64) - expected).max(initial=0))
            slack = GOLDEN_SLACK[spec.dtype]
            if spec.dtype == "float32":
                slack *= max(1.0, float(np.abs(expected).max(initial=0)))
            if not worst <= slack:  # not `worst > slack`, because a NaN must fail
                raise InferenceFailed(f"{name} differs from its golden output by {worst:g}, more than {slack:g}")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An artifact with verified checksums and loaded graphs."""

    manifest: Manifest
    graphs: Mapping[str, LoadedGraph]
    """Loaded graphs by name."""


def artifacts(repository: Path) -> list[Path]:
    """Return the repository's folders that hold a manifest, sorted by name and version; log those that lack one.

    Raises:
        ArtifactRejected: the repository does not exist, or holds no manifest.
    """
    folders = [path.parent for path in repository.glob(f"*/*/{MANIFEST_FILE}")]
    for folder in sorted(repository.glob("*/*/")):
        if folder.name.isdigit() and folder not in folders:
            logger.warning("%s has no %s and is not served", folder, MANIFEST_FILE)
    if not folders:
        raise ArtifactRejected(f"{repository} holds no model (looked for NAME/VERSION/{MANIFEST_FILE})")
    # Sorting by length, then by name, is numeric order. Folders that are not numbers are refused later.
    return sorted(folders, key=lambda folder: (folder.parent.name, len(folder.name), folder.name))


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest and check the files against it.

    Raises:
        ArtifactRejected: the manifest or a file is missing or wrong, or the folder's name does not match the manifest.
    """
    try:
        manifest = read(folder)
    except ManifestError as error:
        raise ArtifactRejected(str(error)) from error
    if (folder.parent.name, folder.name) != (manifest.name, str(manifest.version)):
        raise ArtifactRejected(
            f"{folder} holds {manifest.name}/{manifest.version}, according to its manifest; the names must match"
        )
    return manifest


def load(folder: Path, runtime: str, options: RuntimeOptions) -> LoadedModel:
    """Check an artifact and load its graphs.

    Args:
        folder: `NAME/VERSION` in a repository.
        runtime: name of the runtime's module in this package: `onnxruntime` or `torchscript`.
        options: where and how the graphs are computed.

    Raises:
        ArtifactRejected: a file is missing or wrong, or there is no graph for this runtime.
        DeviceUnavailable: the device is not available, or the runtime is not installed.
    """
    manifest = read_manifest(folder)
    module = _module(runtime)
    graphs = {}
    for name, graph in manifest.graphs.items():
        path = _graph_file(graph, runtime)
        if path is None:
            raise ArtifactRejected(f"{folder} has no {name} graph for {runtime}; export it with --torchscript for both")
        if path not in manifest.files:
            raise ArtifactRejected(f"{folder}: the manifest names {path} but has no checksum for it")
        loaded = module.load(str(folder / path), graph.signature, options)
        try:
            initial, golden = (read_tensors(folder, f"{kind}/{name}/") for kind in ("initial", "golden"))
        except ManifestError as error:
            raise ArtifactRejected(str(error)) from error
        for spec in graph.signature.state:
            _require(folder / f"initial/{name}/{spec.name}", initial.get(spec.name), spec.dtype, spec.row_shape)
        for tensor, spec in {**graph.signature.all_inputs, **graph.signature.all_outputs}.items():
            _require(folder / f"golden/{name}/{tensor}", golden.get(tensor), spec.dtype, spec.shape)
        graphs[name] = LoadedGraph(loaded, initial, golden)
    return LoadedModel(manifest, graphs)


def _require(where: Path, tensor: Array | None, dtype: str, shape: tuple[int | str, ...]) -> None:
    """Refuse a tensor that is missing or has another dtype or shape; letters in the shape match any size."""
    if tensor is None:
        raise ArtifactRejected(f"{where} is missing")
    fits = len(tensor.shape) == len(shape) and all(
        isinstance(asked, str) or asked == found for asked, found in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        raise ArtifactRejected(f"{where} is {tensor.dtype}{list(tensor.shape)}, not {dtype}{list(shape)}")


def device_of(runtime: str, asked: str) -> str:
    """Return the device that a runtime computes on; `auto` becomes `cuda` if there is a GPU, `cpu` otherwise.

    Args:
        runtime: `onnxruntime` or `torchscript`.
        asked: `cpu`, `cuda` or `auto`.

    Raises:
        DeviceUnavailable: the runtime is not installed.
    """
    return _module(runtime).best_device() if asked == "auto" else asked


def _graph_file(graph: Graph, runtime: str) -> str | None:
    return graph.torchscript if runtime == "torchscript" else graph.onnx


def _module(runtime: str) -> RuntimeModule:
    try:
        module: RuntimeModule = import_module(f"service.runtime.{runtime}")
    except ModuleNotFoundError as error:
        raise DeviceUnavailable(f"the runtime {runtime} is not installed: {error}") from error
    return module
