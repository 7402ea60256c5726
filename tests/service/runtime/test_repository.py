"""The model repository: which artifacts are found, loaded and refused."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.manifest import MANIFEST_FILE, Array, describe
from service.errors import ArtifactRejected, DeviceUnavailable, InferenceFailed
from service.runtime.base import RuntimeOptions
from service.runtime.repository import artifacts, load, read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

CPU = RuntimeOptions("cpu", 1)
NAMES = [
    "draw", "ntm-associative-recall", "ntm-copy", "ntm-dynamic-ngrams", "ntm-priority-sort", "ntm-repeat-copy",
    "stn-affine", "stn-projective", "stn-tps",
]  # fmt: skip


@pytest.fixture
def artifact(repository: Path, tmp_path: Path) -> Path:
    """Return a copy of an artifact that a test may damage."""
    return Path(shutil.copytree(repository / "ntm-copy" / "1", tmp_path / "ntm-copy" / "1"))


def edit(artifact: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change only the manifest."""
    path = artifact / MANIFEST_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def update_checksum(artifact: Path, file: str) -> None:
    """Write a file's new checksum to the manifest, as an attacker would."""
    described = describe(artifact / file).model_dump()
    edit(artifact, lambda document: document["files"].__setitem__(file, described))


# --- what is found ---


def test_artifacts_are_found_by_their_manifests(tmp_path: Path) -> None:
    """Artifacts are sorted by name and version number; 10 comes after 2."""
    for folder in ("reader/1", "draw/10", "draw/2", "draw/1"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / MANIFEST_FILE).touch()

    assert artifacts(tmp_path) == [tmp_path / folder for folder in ("draw/1", "draw/2", "draw/10", "reader/1")]


def test_folder_without_a_manifest_is_no_artifact(artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The remains of an interrupted export, or of a copy, are not served, and are logged."""
    shutil.copytree(artifact, artifact.parent / "2")
    (artifact.parent / "2" / MANIFEST_FILE).unlink()

    assert artifacts(artifact.parent.parent) == [artifact]
    (record,) = caplog.records
    assert record.getMessage() == f"{artifact.parent / '2'} has no {MANIFEST_FILE} and is not served"


@pytest.mark.parametrize("folder", ["", "absent"])
def test_repository_without_artifacts_is_refused(tmp_path: Path, folder: str) -> None:
    """The repository is empty or does not exist."""
    with pytest.raises(ArtifactRejected, match="holds no model"):
        artifacts(tmp_path / folder)


# --- what is loaded ---


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript"])
@pytest.mark.parametrize("name", NAMES)
def test_every_graph_answers_its_golden_example(repository: Path, name: str, runtime: str) -> None:
    """Every shipped artifact loads and passes its golden example in both runtimes."""
    model = load(repository / name / "1", runtime, CPU)

    assert model.graphs.keys() == model.manifest.graphs.keys()
    for graph in model.graphs.values():
        graph.verify()
        assert graph.initial.keys() == {spec.name for spec in graph.runtime.signature.state}


@pytest.mark.parametrize("wrong", [0.5, np.nan])
def test_answer_that_is_not_the_golden_one_is_refused(repository: Path, wrong: float) -> None:
    """The message names the output; a NaN fails as well."""
    graph = load(repository / "ntm-copy" / "1", "onnxruntime", CPU).graphs["step"]
    golden = dict(graph.golden)
    golden["reads"] = golden["reads"] + np.float32(wrong)

    with pytest.raises(InferenceFailed, match="reads differs from its golden output by"):
        replace(graph, golden=golden).verify()


@pytest.mark.parametrize(
    ("name", "graph", "output"), [("draw", "generate", "pictures"), ("stn-affine", "rectify", "rectified")]
)
def test_picture_that_is_not_the_golden_one_is_refused(repository: Path, name: str, graph: str, output: str) -> None:
    """A difference of two grey levels fails; one passes as rounding, however bright the picture."""
    loaded = load(repository / name / "1", "onnxruntime", CPU).graphs[graph]
    pictures = loaded.golden[output].astype(int)

    for wrong, is_refused in ((1, False), (2, True)):
        golden = {**loaded.golden, output: np.where(pictures > 99, pictures - wrong, pictures + wrong).astype(np.uint8)}
        with (
            pytest.raises(InferenceFailed, match=f"{output} differs .* by 2, more than 1")
            if is_refused
            else nullcontext()
        ):
            replace(loaded, golden=golden).verify()


# --- what is refused ---


@pytest.mark.parametrize("file", ["model.onnx", "model.pt", "tensors.npz", "weights.safetensors", "README.md"])
def test_file_that_was_changed_is_refused(artifact: Path, file: str) -> None:
    """A single flipped bit in any file of the artifact is detected."""
    data = bytearray((artifact / file).read_bytes())
    data[len(data) // 2] ^= 1
    (artifact / file).write_bytes(data)

    with pytest.raises(ArtifactRejected, match=f"{file} has sha256 .*, but the manifest says"):
        load(artifact, "onnxruntime", CPU)


@pytest.mark.parametrize("content", ["junk", "array", "objects", "cut"])
def test_tensors_that_cannot_be_read_are_refused(artifact: Path, content: str) -> None:
    """They are refused even if their checksum is correct; pickled data are not read."""
    path = artifact / "tensors.npz"
    match content:
        case "junk":
            path.write_bytes(b"junk")
        case "array":
            with path.open("wb") as file:
                np.save(file, np.zeros(3))
        case "objects":
            with np.load(path) as tensors:
                np.savez(path, **{name: np.array([{}], object) for name in tensors.files})  # type: ignore[arg-type]
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
    update_checksum(artifact, "tensors.npz")

    with pytest.raises(ArtifactRejected, match=r"tensors\.npz cannot be read"):
        load(artifact, "onnxruntime", CPU)


def test_file_that_is_missing_is_refused(artifact: Path) -> None:
    """The message names the missing file."""
    (artifact / "tensors.npz").unlink()

    with pytest.raises(ArtifactRejected, match=r"tensors\.npz is missing"):
        load(artifact, "onnxruntime", CPU)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("initial/step/memory", None, "initial/step/memory is missing"),
        ("initial/step/memory", lambda memory: memory[1:], r"is float32\[\d+, \d+\], not float32\[\d+, \d+\]"),
        ("golden/step/reads", None, "golden/step/reads is missing"),
        ("golden/step/next_memory", lambda memory: memory[0], "golden/step/next_memory is float32"),
        ("golden/step/inputs", lambda inputs: inputs.astype(np.float64), "golden/step/inputs is float64"),
    ],
)
def test_tensor_that_is_missing_or_misshapen_is_refused(
    artifact: Path, name: str, change: Callable[[Array], Array] | None, says: str
) -> None:
    """It is refused even if its file's checksum is correct."""
    with np.load(artifact / "tensors.npz") as file:
        tensors = dict(file)
    spoilt = tensors.pop(name)
    if change is not None:
        tensors[name] = change(spoilt)
    np.savez(artifact / "tensors.npz", **tensors)
    update_checksum(artifact, "tensors.npz")

    with pytest.raises(ArtifactRejected, match=says):
        load(artifact, "onnxruntime", CPU)


def test_graph_that_fails_on_its_golden_example_is_refused(repository: Path) -> None:
    """The message includes the runtime's."""
    graph = load(repository / "ntm-copy" / "1", "onnxruntime", CPU).graphs["step"]
    golden = {**graph.golden, "inputs": graph.golden["inputs"][:, :, 1:]}

    with pytest.raises(InferenceFailed, match=r"its golden example cannot be computed: .+"):
        replace(graph, golden=golden).verify()


def test_graph_of_another_model_is_refused_by_its_signature(repository: Path, artifact: Path) -> None:
    """A graph swapped together with its checksum takes other tensors than the manifest says."""
    shutil.copy(repository / "draw" / "1" / "model.onnx", artifact / "model.onnx")
    update_checksum(artifact, "model.onnx")

    with pytest.raises(ArtifactRejected, match="its manifest says"):
        load(artifact, "onnxruntime", CPU)


def test_script_of_another_model_is_refused_by_its_signature(repository: Path, artifact: Path) -> None:
    """TorchScript graphs are checked by their number of inputs."""
    shutil.copy(repository / "stn-affine" / "1" / "model.pt", artifact / "model.pt")
    update_checksum(artifact, "model.pt")

    with pytest.raises(ArtifactRejected, match="takes 1 tensors; its manifest says 6"):
        load(artifact, "torchscript", CPU)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda signature: signature["inputs"][0].update(dtype="uint8"), "its manifest says"),
        (lambda signature: signature["outputs"][0].update(name="answers"), "its manifest says"),
        (lambda signature: signature["state"].pop(), "its manifest says"),
        (lambda signature: signature["inputs"][0].update(shape=["T", "B"]), "input inputs has 3 axes"),
    ],
)
def test_manifest_whose_signature_is_not_the_graphs_is_refused(
    artifact: Path, change: Callable[[dict[str, Any]], None], match: str
) -> None:
    """Names, dtypes and numbers of axes are checked."""
    edit(artifact, lambda document: change(document["graphs"]["step"]["signature"]))

    with pytest.raises(ArtifactRejected, match=match):
        load(artifact, "onnxruntime", CPU)


def test_graph_that_was_not_exported_for_a_runtime_is_refused(artifact: Path) -> None:
    """The message says how to export one."""
    edit(artifact, lambda document: document["graphs"]["step"].update(torchscript=None))

    load(artifact, "onnxruntime", CPU)
    with pytest.raises(ArtifactRejected, match="has no step graph for torchscript; export it"):
        load(artifact, "torchscript", CPU)


def test_graph_without_a_checksum_is_refused(artifact: Path) -> None:
    """A file without a checksum is not opened, wherever it is."""
    edit(artifact, lambda document: document["graphs"]["step"].update(onnx="../../elsewhere.onnx"))

    with pytest.raises(ArtifactRejected, match="has no checksum for it"):
        load(artifact, "onnxruntime", CPU)


def test_tensors_without_a_checksum_are_refused(artifact: Path) -> None:
    """Initial states and golden examples need a checksum, as graphs do."""
    edit(artifact, lambda document: document["files"].pop("tensors.npz"))
    (artifact / "tensors.npz").write_bytes(b"swapped")

    with pytest.raises(ArtifactRejected, match=r"tensors\.npz"):
        load(artifact, "onnxruntime", CPU)


@pytest.mark.parametrize("folder", ["ntm-copy/2", "ntm-copies/1"])
def test_folder_of_another_name_is_refused(artifact: Path, tmp_path: Path, folder: str) -> None:
    """A renamed folder would be served under a wrong name."""
    renamed = shutil.copytree(artifact, tmp_path / "other" / folder)

    with pytest.raises(ArtifactRejected, match="holds ntm-copy/1, according to its manifest"):
        read_manifest(Path(renamed))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "malformed at its root"),
        ("{}", "malformed at name"),
        ('{"name": "a", "version": 0}', "malformed at version"),
    ],
)
def test_malformed_manifest_is_refused(artifact: Path, text: str, match: str) -> None:
    """The message names the malformed field."""
    (artifact / MANIFEST_FILE).write_text(text)

    with pytest.raises(ArtifactRejected, match=match):
        read_manifest(artifact)


def test_runtime_that_is_not_installed_is_refused(repository: Path) -> None:
    """The message names the runtime."""
    with pytest.raises(DeviceUnavailable, match="the runtime tensorrt is not installed"):
        load(repository / "draw" / "1", "tensorrt", CPU)
