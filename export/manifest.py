"""The artifact: a folder `NAME/VERSION` with graphs, tensors and a manifest with their checksums.

This is the one module that the exporter and the service share; it needs neither PyTorch nor ONNX.

A graph is a function of tensors. The leading axes of a tensor's shape say how often it occurs:

- `("B", ...)`: once for each sequence.
- `("T", "B", ...)`: once for each step of each sequence. A graph with such inputs is *recurrent*, and runs a segment of
  T steps over B sequences in one call.

A recurrent graph carries `state`: for every state tensor `x` the graph has an input `x` and an output `next_x`. The
initial state is in the artifact's tensors, as `initial/GRAPH/x`, a single row without the batch axis.

The tensors file also holds a golden example of every graph (`golden/GRAPH/NAME`, inputs and outputs): what
the network computed in eager PyTorch at the export, and what a server must reproduce before it is ready.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MANIFEST_FILE = "manifest.json"
TENSORS_FILE = "tensors.npz"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "README.md"

DType = Literal["float32", "int64", "uint8"]
Array = np.ndarray[Any, np.dtype[Any]]


class ManifestError(Exception):
    """A manifest is missing or malformed, or a file has another checksum than in it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Record):
    """Name, type and shape of a tensor; the axes B (sequences) and T (steps) are free."""

    name: str
    dtype: DType
    shape: tuple[int | Literal["B", "T"], ...]

    @property
    def is_per_step(self) -> bool:
        """Whether there is a value for every step."""
        return self.shape[0] == "T"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape without the free axes."""
        return tuple(axis for axis in self.shape if isinstance(axis, int))


class Signature(_Record):
    """Inputs, outputs and state of a graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[TensorSpec, ...] = ()
    least_rows: int = Field(1, ge=1)
    """Smallest batch with which the result for a row does not depend on the number of rows."""

    @property
    def is_recurrent(self) -> bool:
        """Whether the graph runs steps."""
        return any(spec.is_per_step for spec in self.inputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs of the graph in order, including the state."""
        return tuple(self.all_inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of all outputs of the graph in order, including the next state."""
        return tuple(self.all_outputs)

    @property
    def all_inputs(self) -> Mapping[str, TensorSpec]:
        """All inputs of the graph by name, including the state."""
        return {spec.name: spec for spec in (*self.inputs, *self.state)}

    @property
    def all_outputs(self) -> Mapping[str, TensorSpec]:
        """All outputs of the graph by name, including the next state."""
        following = {f"next_{spec.name}": spec for spec in self.state}
        return {**{spec.name: spec for spec in self.outputs}, **following}


class Graph(_Record):
    """One graph of an artifact, in one or more formats."""

    signature: Signature
    onnx: str | None = None
    """Name of the ONNX file."""
    torchscript: str | None = None
    """Name of the TorchScript file."""
    tolerance: float
    """Tolerated difference from eager PyTorch at export; relative to the largest value if that is above 1."""
    worst_error: float
    """Largest difference between floats found at export, measured in the same way."""
    largest_batch: int = Field(ge=1)
    """Largest batch for which this was checked."""


class File(_Record):
    """Checksum and size of a file."""

    sha256: str
    bytes: int


class Manifest(_Record):
    """Everything known about an artifact without opening its other files."""

    format: Literal[1] = 1
    name: str
    version: int = Field(ge=1)
    family: Literal["stn", "draw", "ntm"]
    config: dict[str, Any]
    """Fields of the network's `Config`."""
    graphs: dict[str, Graph]
    metrics: dict[str, float]
    training: dict[str, Any]
    producer: dict[str, str]
    """Versions of the packages that made the artifact."""
    files: dict[str, File]


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path: Path) -> File:
    """Return the manifest's entry for a file as it is now."""
    return File(sha256=sha256(path), bytes=path.stat().st_size)


def write(manifest: Manifest, folder: Path) -> None:
    """Write the manifest. It comes last: a folder without one is no artifact yet."""
    document = json.dumps(manifest.model_dump(), indent=2)
    (folder / MANIFEST_FILE).write_text(document + "\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
    """Read a folder's manifest and check every file that it names.

    Raises:
        ManifestError: the manifest is missing or malformed, or a file is missing, unreadable, or has another checksum.
    """
    try:
        return _read(folder)
    except OSError as error:
        raise ManifestError(f"{folder} cannot be read: {error}") from error


def _read(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ManifestError(f"{folder} holds no {MANIFEST_FILE}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ManifestError(f"{path} is malformed at {where or 'its root'}: {first['msg']}") from error
    if TENSORS_FILE not in manifest.files:
        raise ManifestError(f"{path} has no checksum for {TENSORS_FILE}")
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise ManifestError(f"{file} is missing")
        if (found := sha256(file)) != expected.sha256:
            raise ManifestError(f"{file} has sha256 {found}, but the manifest says {expected.sha256}")
    return manifest


def read_tensors(folder: Path, prefix: str) -> Mapping[str, Array]:
    """Return the artifact's tensors whose names begin with `prefix`, by the rest of their names.

    Raises:
        ManifestError: the file cannot be read, is no archive of arrays, or holds pickled objects.
    """
    path = folder / TENSORS_FILE
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as tensors:
            return {name.removeprefix(prefix): tensors[name] for name in tensors.files if name.startswith(prefix)}
    # Not an archive at all, a single array, objects, a damaged archive.
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error
