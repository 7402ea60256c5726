"""The manifest: what is written is read again, and nothing else is."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.manifest import (
    MANIFEST_FILE,
    TENSORS_FILE,
    Graph,
    Manifest,
    ManifestError,
    Signature,
    TensorSpec,
    describe,
    read,
    read_tensors,
    write,
)

SIGNATURE = Signature(
    inputs=(TensorSpec(name="noise", dtype="float32", shape=("T", "B", 100)),),
    outputs=(TensorSpec(name="pictures", dtype="uint8", shape=("T", "B", 28, 28)),),
    state=(TensorSpec(name="canvas", dtype="float32", shape=("B", 28, 28)),),
)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A whole artifact whose graph is a word."""
    (tmp_path / "model.onnx").write_bytes(b"graph")
    tensors: dict[str, Any] = {"initial/generate/canvas": np.ones((28, 28)), "golden/generate/noise": np.zeros(3)}
    np.savez(tmp_path / TENSORS_FILE, **tensors)
    write(manifest_of(tmp_path), tmp_path)
    return tmp_path


def manifest_of(folder: Path) -> Manifest:
    graph = Graph(signature=SIGNATURE, onnx="model.onnx", tolerance=2e-4, worst_error=1e-6, largest_batch=64)
    return Manifest(
        name="draw",
        version=3,
        family="draw",
        config={"side": 28},
        graphs={"generate": graph},
        metrics={"score": 80.5},
        training={"seed": 1},
        producer={"python": "3.11"},
        files={name: describe(folder / name) for name in ("model.onnx", TENSORS_FILE)},
    )


def spoilt(artifact: Path, *keys: Any, value: object) -> None:
    path = artifact / MANIFEST_FILE
    document = json.loads(path.read_text())
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(document))


def test_manifest_that_was_written_is_read_again(artifact: Path) -> None:
    """Equal in every field, shapes with their free axes among them; and there is nothing left beside it."""
    assert read(artifact) == manifest_of(artifact)
    assert {path.name for path in artifact.iterdir()} == {"model.onnx", TENSORS_FILE, MANIFEST_FILE}


def test_signature_knows_what_is_recurrent() -> None:
    """By its inputs; and in which order a graph takes and answers tensors."""
    still = SIGNATURE.model_copy(
        update={"inputs": (TensorSpec(name="picture", dtype="uint8", shape=("B", 64, 64)),), "state": ()}
    )

    assert SIGNATURE.is_recurrent
    assert not still.is_recurrent
    assert SIGNATURE.input_names == ("noise", "canvas")
    assert SIGNATURE.output_names == ("pictures", "next_canvas")
    assert SIGNATURE.outputs[0].row_shape == (28, 28)


def test_tensors_are_read_by_prefix(artifact: Path) -> None:
    """Only those that begin with it, under the rest of their names."""
    assert read_tensors(artifact, "initial/generate/").keys() == {"canvas"}
    assert read_tensors(artifact, "golden/generate/").keys() == {"noise"}


@pytest.mark.parametrize("name", ["model.onnx", TENSORS_FILE])
def test_file_with_another_checksum_is_refused(artifact: Path, name: str) -> None:
    """By its name, with both checksums."""
    (artifact / name).write_bytes((artifact / name).read_bytes() + b"!")

    with pytest.raises(ManifestError, match=rf"{name} has sha256 [0-9a-f]{{64}}, but the manifest says [0-9a-f]{{64}}"):
        read(artifact)


def test_file_that_is_missing_is_refused(artifact: Path) -> None:
    """By its name."""
    (artifact / "model.onnx").unlink()

    with pytest.raises(ManifestError, match=r"model\.onnx is missing"):
        read(artifact)


@pytest.mark.parametrize("name", [MANIFEST_FILE, "model.onnx"])
def test_file_that_cannot_be_read_is_refused(artifact: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Because of its permissions, or of a sick disk."""
    opened = Path.open

    def failing(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", failing)

    with pytest.raises(ManifestError, match=rf"cannot be read: .*Permission denied.*{name}"):
        read(artifact)


def test_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    """It is no artifact yet."""
    with pytest.raises(ManifestError, match=r"holds no manifest\.json"):
        read(tmp_path)


def test_manifest_that_leaves_the_tensors_out_is_refused(artifact: Path) -> None:
    """Every artifact has tensors, and what is read has a checksum."""
    described = describe(artifact / "model.onnx").model_dump()
    spoilt(artifact, "files", value={"model.onnx": described})

    with pytest.raises(ManifestError, match=r"has no checksum for tensors\.npz"):
        read(artifact)


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (("format",), 2, "malformed at format"),
        (("version",), 0, "malformed at version"),
        (("family",), "gan", "malformed at family"),
        (("surprise",), 1, "malformed at surprise"),
        (("metrics", "score"), "low", "malformed at metrics.score"),
        (("files", "model.onnx"), {"sha256": "0"}, "malformed at files.model.onnx.bytes"),
        (("graphs", "generate", "largest_batch"), 0, "malformed at graphs.generate.largest_batch"),
        (
            ("graphs", "generate", "signature", "inputs", 0, "dtype"),
            "float16",
            "malformed at graphs.generate.signature.inputs.0.dtype",
        ),
        (
            ("graphs", "generate", "signature", "inputs", 0, "shape"),
            ["T", "N", 3],
            "malformed at graphs.generate.signature.inputs.0.shape.1",
        ),
    ],
)
def test_malformed_manifest_is_refused_with_the_place(
    artifact: Path, place: tuple[object, ...], value: object, match: str
) -> None:
    """Other formats, types, axes, missing and surplus fields."""
    spoilt(artifact, *place, value=value)

    with pytest.raises(ManifestError, match=match):
        read(artifact)


def test_manifest_that_is_no_json_is_refused(artifact: Path) -> None:
    """As one that was cut off would be, if it were not written whole."""
    path = artifact / MANIFEST_FILE
    path.write_text(path.read_text()[:-20])

    with pytest.raises(ManifestError, match="malformed at its root"):
        read(artifact)


@pytest.mark.usefixtures("foreground")
def test_manifest_is_replaced_whole(artifact: Path) -> None:
    """Everybody may read it, as they may read the files beside it."""
    write(manifest_of(artifact).model_copy(update={"version": 4}), artifact)

    assert read(artifact).version == 4
    assert (artifact / MANIFEST_FILE).stat().st_mode & 0o777 == 0o644
