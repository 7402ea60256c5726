"""From a checkpoint to an artifact: everything is in it, and it is there whole or not at all."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from export import manifest, package, parity, to_onnx, to_torchscript
from export.card import model_card
from export.graphs import ExportGraph, graphs_of
from export.manifest import MANIFEST_FILE, Manifest, read, read_tensors
from export.package import VersionExistsError, export, network_of
from models.checkpoint import CheckpointError, load, save
from service.runtime.repository import artifacts
from service.settings import SHIPPED_MODELS

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("stn-affine", {"model.onnx", "model.pt"}),
        ("draw", {"model.onnx", "model.pt", "reconstruct.onnx", "reconstruct.pt"}),
        ("ntm-copy", {"model.onnx", "model.pt"}),
    ],
)
def test_artifact_holds_graphs_tensors_weights_and_a_card(repository: Path, name: str, files: set[str]) -> None:
    """And the manifest has the checksum of every file but itself."""
    folder = repository / name / "1"

    found = read(folder)

    assert found.files.keys() == files | {"tensors.npz", "weights.safetensors", "README.md"}
    assert {path.name for path in folder.iterdir()} == found.files.keys() | {MANIFEST_FILE}
    assert (found.name, found.version, found.metrics) == (name, 1, {"score": 1.0})
    for graph in found.graphs.values():
        assert 0 < graph.worst_error <= graph.tolerance == parity.TOLERANCE["float32"]
        assert graph.largest_batch == 64
    assert found.producer.keys() >= {"torch", "onnx", "opset"}


def test_weights_in_the_artifact_are_those_of_the_checkpoint(repository: Path, checkpoints: Path) -> None:
    """The artifact can be trained further, or exported anew."""
    shipped = load(repository / "draw" / "1" / "weights.safetensors")
    trained = load(checkpoints / "draw.safetensors")

    assert shipped.tensors.keys() == trained.tensors.keys()
    for name, tensor in trained.tensors.items():
        assert torch.equal(shipped.tensors[name], tensor)
    assert not network_of(shipped, repository).training


def test_golden_example_is_what_the_network_answers(repository: Path, checkpoints: Path) -> None:
    """Inputs and outputs of every graph, from eager PyTorch."""
    path = checkpoints / "draw.safetensors"
    graphs = graphs_of(network_of(load(path), path))

    for name, graph in graphs.items():
        golden = read_tensors(repository / "draw" / "1", f"golden/{name}/")
        inputs = {key: torch.from_numpy(golden[key]) for key in graph.signature.input_names}
        for key, value in parity.reference(graph, inputs).items():
            np.testing.assert_allclose(golden[key].astype(float), value.astype(float), atol=1e-5)


@pytest.mark.parametrize("name", ["draw", "ntm-copy"])
def test_initial_state_is_what_the_network_begins_with(repository: Path, checkpoints: Path, name: str) -> None:
    """For every graph, by the names of its state."""
    path = checkpoints / f"{name}.safetensors"

    for graph_name, graph in graphs_of(network_of(load(path), path)).items():
        found = read_tensors(repository / name / "1", f"initial/{graph_name}/")
        assert found.keys() == graph.initial.keys()
        for key, row in graph.initial.items():
            np.testing.assert_array_equal(found[key], row.numpy())


def test_manifest_says_how_the_model_was_trained(checkpoints: Path, tmp_path: Path) -> None:
    """As its checkpoint does: the network's sizes, the metrics, and what else is recorded."""
    checkpoint = load(checkpoints / "ntm-copy.safetensors")
    recorded = {"update": 7, "seconds": 1.5, "seed": 3, "start": [], "schedule": {"updates": 9}, "note": "a note"}
    description = {**checkpoint.description, **recorded, "metrics": {"score": 2.5, "bit_errors": 0.25}}
    save(replace(checkpoint, description=description), tmp_path / "best.safetensors")

    found = read(export(tmp_path / "best.safetensors", tmp_path / "repository"))

    assert found.metrics == {"score": 2.5, "bit_errors": 0.25}
    assert found.config == checkpoint.description["config"]
    assert {**found.training, **recorded} == found.training
    assert (found.family, found.producer["opset"]) == ("ntm", str(to_onnx.OPSET))


def test_export_without_torchscript_has_none(checkpoints: Path, tmp_path: Path) -> None:
    """One format unless more are asked for."""
    folder = export(checkpoints / "ntm-copy.safetensors", tmp_path, version=2)

    assert folder == tmp_path / "ntm-copy" / "2"
    graph = read(folder).graphs["step"]
    assert (graph.onnx, graph.torchscript) == ("model.onnx", None)
    assert not (folder / "model.pt").exists()


def test_version_that_is_not_named_is_the_next_one(checkpoints: Path, tmp_path: Path) -> None:
    """What is served already is not replaced."""
    source = checkpoints / "ntm-copy.safetensors"
    export(source, tmp_path, version=9)

    folders = [export(source, tmp_path) for _ in range(2)]

    assert folders == [tmp_path / "ntm-copy" / "10", tmp_path / "ntm-copy" / "11"]
    assert [manifest.read(folder).version for folder in folders] == [10, 11]


def test_folder_without_a_manifest_is_replaced(checkpoints: Path, tmp_path: Path) -> None:
    """It is no version that anybody could be served; nothing of it is left."""
    stale = tmp_path / "ntm-copy" / "1" / "stale.onnx"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")

    export(checkpoints / "ntm-copy.safetensors", tmp_path, version=1)

    assert not stale.exists()


def test_version_that_is_there_is_not_replaced_unasked(older: tuple[Path, Manifest], checkpoints: Path) -> None:
    """A client that asks for a version by its number would get another model."""
    folder, described = older

    with pytest.raises(VersionExistsError, match="1 is there already; name another version, or give --replace"):
        export(checkpoints / "ntm-copy.safetensors", folder.parents[1], version=1)

    assert (folder / "older").exists()
    assert read(folder) == described


@pytest.fixture
def older(checkpoints: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    """An artifact that is to be replaced, and its manifest."""
    folder = export(checkpoints / "ntm-copy.safetensors", tmp_path, version=1)
    (folder / "older").touch()
    return folder, read(folder)


@pytest.mark.parametrize("stage", ["_export_graph", "model_card"])
def test_interrupted_export_leaves_the_older_artifact_whole(
    checkpoints: Path, older: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Wherever it stops, and there is nothing beside it."""
    folder, described = older

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(package, stage, interrupted)

    with pytest.raises(KeyboardInterrupt):
        export(checkpoints / "ntm-copy.safetensors", folder.parents[1], version=1, replace=True)
    assert (folder / "older").exists()
    assert read(folder) == described
    assert [path.name for path in folder.parents[1].iterdir() if path.is_dir()] == ["ntm-copy"]


def test_service_sees_the_older_artifact_until_the_export_is_done(
    checkpoints: Path, older: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the new one is complete, its manifest being the last thing that is written."""
    folder, _ = older
    write, seen = manifest.write, []

    def watched(described: Manifest, where: Path) -> None:
        write(described, where)
        seen.append((artifacts(folder.parents[1]), (folder / "older").exists(), read(where) == described))

    monkeypatch.setattr(manifest, "write", watched)

    export(checkpoints / "ntm-copy.safetensors", folder.parents[1], version=1, replace=True)

    assert seen == [([folder], True, True)]
    assert artifacts(folder.parents[1]) == [folder]
    assert not (folder / "older").exists()


@pytest.mark.parametrize(("exporter", "file"), [(to_onnx, r"model\.onnx"), (to_torchscript, r"model\.pt")])
def test_graph_without_parity_is_refused_and_the_older_artifact_is_whole(
    checkpoints: Path, older: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, exporter: ModuleType, file: str
) -> None:
    """An exporter that writes another network's graph does not get past the proof."""
    folder, described = older
    true_export = exporter.export

    def spoilt(graph: ExportGraph, path: Path) -> None:
        with torch.no_grad():
            for parameter in graph.module.parameters():
                parameter.mul_(1.5)
        true_export(graph, path)
        with torch.no_grad():
            for parameter in graph.module.parameters():
                parameter.div_(1.5)

    monkeypatch.setattr(exporter, "export", spoilt)

    with pytest.raises(parity.ParityError, match=file + r" at batch 1, 1 steps: \w+\[.*\] is .* off by"):
        export(checkpoints / "ntm-copy.safetensors", folder.parents[1], version=1, replace=True, torchscript=True)
    assert read(folder) == described


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"family": "gan"}, "of the family 'gan'; known are stn, draw, ntm"),
        ({"config": {"hidden_size": 17}}, "does not fit"),
    ],
)
def test_checkpoint_that_cannot_be_exported_is_refused(
    checkpoints: Path, tmp_path: Path, change: Mapping[str, Any], match: str
) -> None:
    """Of an unknown family, or at odds with its own configuration."""
    checkpoint = load(checkpoints / "draw.safetensors")
    save(replace(checkpoint, description={**checkpoint.description, **change}), tmp_path / "other.safetensors")

    with pytest.raises(CheckpointError, match=match):
        export(tmp_path / "other.safetensors", tmp_path / "repository", version=1)
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("name", ["stn-affine", "draw", "ntm-copy"])
def test_card_says_what_a_person_wants_to_know(repository: Path, name: str) -> None:
    """What it is, how it was trained, what it measures, where it ends, and whose it is."""
    card = (repository / name / "1" / "README.md").read_text()

    assert card == model_card(manifest.read(repository / name / "1"))
    assert card.startswith(f"# {name}, version 1\n")
    for part in ("arxiv.org", "glimpse train", "| score | 1 |", "## Limits", "Apache-2.0"):
        assert part in card


def test_card_of_a_mean_names_all_that_it_is_the_mean_of(repository: Path) -> None:
    """They are starts of its command."""
    found = manifest.read(repository / "stn-affine" / "1")
    training = {"seed": 3, "start": ["runs/a", "runs/b of mine"], "schedule": {"updates": 0}, "update": 0}

    card = model_card(found.model_copy(update={"training": training}))

    assert "`glimpse train stn affine --updates 0 --seed 3 --start runs/a --start 'runs/b of mine'`" in card
    assert "Kept: the weights that it began with, which are the mean of several." in card


def test_card_has_the_whole_command(repository: Path) -> None:
    """With whatever of it is not the trainer's own; and says where its start is not there any more."""
    found = manifest.read(repository / "ntm-copy" / "1")
    schedule = {"updates": 9, "learning_rate": 0.0002, "cooldown": 0.5}
    training = {**found.training, "seed": 3, "start": ["models/ntm-copy/1"], "schedule": schedule, "update": 8}
    config = {**found.config, "controller": "feed-forward"}

    card = model_card(found.model_copy(update={"training": training, "config": config}))

    assert (
        "`glimpse train ntm copy --updates 9 --learning-rate 0.0002 --cooldown 0.5 --seed 3 --controller feed-forward "
        "--start models/ntm-copy/1`"
    ) in card
    assert "weights that were in its own place before" in card
    assert "in its own place" not in (repository / "ntm-copy" / "1" / "README.md").read_text()


@pytest.mark.parametrize(("name", "precision"), [("draw", " --precision float32"), ("ntm-copy", "")])
def test_card_names_a_precision_that_is_not_the_trainers_own(repository: Path, name: str, precision: str) -> None:
    """Only some families have a choice."""
    found = manifest.read(repository / name / "1")
    training = {**found.training, "seed": 3, "start": [], "schedule": {"updates": 9, "bfloat16": False}, "update": 8}

    card = model_card(found.model_copy(update={"training": training}))

    assert f" --updates 9{precision} --seed 3`" in card


@pytest.mark.parametrize("folder", sorted(SHIPPED_MODELS.glob("*/*")), ids=lambda folder: folder.parent.name)
def test_shipped_card_is_what_a_card_says_today(folder: Path) -> None:
    """Exporting the model's folder writes it again, where this fails."""
    assert (folder / "README.md").read_text() == model_card(manifest.read(folder))
