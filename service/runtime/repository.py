"""The model repository: folders `NAME/VERSION`, each an artifact that its manifest vouches for."""

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
"""How far a server's answer may lie from the golden one, by type: arithmetic differs between machines by rounding. Of
floats beyond 1, relative to the largest."""


@dataclass(frozen=True, slots=True)
class LoadedGraph:
    """A graph in a runtime, with where its sequences start and what it must answer."""

    runtime: Runtime
    initial: Mapping[str, Array]
    golden: Mapping[str, Array]

    def verify(self) -> None:
        """Compute the golden example, which also warms the runtime up.

        Raises:
            InferenceFailed: the runtime fails on it, or its answer is not the golden one.
        """
        try:
            answer = compute(self.runtime, self.golden)
        except Exception as error:  # whatever a runtime raises
            raise InferenceFailed(f"its golden example cannot be computed: {error}") from error
        for name, spec in self.runtime.signature.answers.items():
            expected = self.golden[name]
            worst = float(np.abs(answer[name].astype(np.float64) - expected).max(initial=0))
            slack = GOLDEN_SLACK[spec.dtype]
            if spec.dtype == "float32":
                slack *= max(1.0, float(np.abs(expected).max(initial=0)))
            if not worst <= slack:  # rather than `>`: a NaN must fail
                raise InferenceFailed(f"{name} differs from its golden output by {worst:g}, more than {slack:g}")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An artifact whose files were checked and whose graphs are loaded."""

    manifest: Manifest
    graphs: Mapping[str, LoadedGraph]


def artifacts(repository: Path) -> list[Path]:
    """Return the folders of a repository that hold a manifest, by name and version. Others are logged.

    Raises:
        ArtifactRejected: there is no such folder, or there is nothing in it.
    """
    folders = [path.parent for path in repository.glob(f"*/*/{MANIFEST_FILE}")]
    for folder in sorted(repository.glob("*/*/")):
        if folder.name.isdigit() and folder not in folders:
            logger.warning("%s has no %s, and is not served", folder, MANIFEST_FILE)
    if not folders:
        raise ArtifactRejected(f"{repository} holds no model (looked for NAME/VERSION/{MANIFEST_FILE})")
    # A version is a number; what is no version is refused later, by its manifest.
    return sorted(folders, key=lambda folder: (folder.parent.name, len(folder.name), folder.name))


def read_manifest(folder: Path) -> Manifest:
    """A folder's manifest, after its files were checked against it.

    Raises:
        ArtifactRejected: the manifest or a file is missing or wrong, or the folder has another name.
    """
    try:
        manifest = read(folder)
    except ManifestError as error:
        raise ArtifactRejected(str(error)) from error
    if (folder.parent.name, folder.name) != (manifest.name, str(manifest.version)):
        raise ArtifactRejected(
            f"{folder} holds {manifest.name}/{manifest.version} by its manifest; the folder must have the same name"
        )
    return manifest


def load(folder: Path, runtime: str, options: RuntimeOptions) -> LoadedModel:
    """Check an artifact and load its graphs.

    Args:
        folder: `NAME/VERSION` in a repository.
        runtime: name of the module beside this one that loads graphs: `onnxruntime` or `torchscript`.
        options: where and how the graphs are computed.

    Raises:
        ArtifactRejected: a file is missing or wrong, or there is no graph for this runtime.
        DeviceUnavailable: the device is not there, or the runtime is not installed.
    """
    manifest = read_manifest(folder)
    module = _module(runtime)
    graphs = {}
    for name, graph in manifest.graphs.items():
        path = _graph_file(graph, runtime)
        if path is None:
            raise ArtifactRejected(f"{folder} has no {name} graph for {runtime}; export it with --torchscript for both")
        if path not in manifest.files:
            raise ArtifactRejected(f"{folder}: the manifest names {path} but does not vouch for it")
        loaded = module.load(str(folder / path), graph.signature, options)
        try:
            initial, golden = (read_tensors(folder, f"{kind}/{name}/") for kind in ("initial", "golden"))
        except ManifestError as error:
            raise ArtifactRejected(str(error)) from error
        for spec in graph.signature.state:
            _require(folder / f"initial/{name}/{spec.name}", initial.get(spec.name), spec.dtype, spec.row_shape)
        for tensor, spec in {**graph.signature.takes, **graph.signature.answers}.items():
            _require(folder / f"golden/{name}/{tensor}", golden.get(tensor), spec.dtype, spec.shape)
        graphs[name] = LoadedGraph(loaded, initial, golden)
    return LoadedModel(manifest, graphs)


def _require(where: Path, tensor: Array | None, dtype: str, shape: tuple[int | str, ...]) -> None:
    """Refuse a tensor that is missing, or is none of this type and shape; letters in the shape are any size."""
    if tensor is None:
        raise ArtifactRejected(f"{where} is missing")
    fits = len(tensor.shape) == len(shape) and all(
        isinstance(asked, str) or asked == found for asked, found in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        raise ArtifactRejected(f"{where} is {tensor.dtype}{list(tensor.shape)}, not {dtype}{list(shape)}")


def device_of(runtime: str, asked: str) -> str:
    """The device that a runtime computes on, if `asked` for `cpu`, `cuda`, or `auto`: the best that is here.

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
