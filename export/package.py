"""From a checkpoint to an artifact: export, prove and describe it, and only then move it to where it is served from."""

import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from export import manifest, parity, to_onnx, to_torchscript
from export.card import model_card
from export.graphs import ExportGraph, graphs_of, inputs_for
from export.manifest import Array, Graph, Manifest
from export.staging import staged
from models.checkpoint import Checkpoint, CheckpointError, load, load_weights, save
from models.draw.network import Config as DrawConfig
from models.draw.network import Draw
from models.errors import ModelError
from models.ntm.network import Config as NtmConfig
from models.ntm.network import NeuralTuringMachine
from models.stn.network import Config as StnConfig
from models.stn.network import StnNetwork

GOLDEN_STEPS, GOLDEN_ROWS = 8, 2


class VersionExistsError(ModelError):
    """The version of a model exists already, and replacing it was not asked for."""


BUILDERS: Mapping[str, Callable[..., nn.Module]] = {
    "stn": lambda **config: StnNetwork(StnConfig(**config)),
    "draw": lambda **config: Draw(DrawConfig(**config)),
    "ntm": lambda **config: NeuralTuringMachine(NtmConfig(**config)),
}
"""Functions that build a network from its configuration, by family."""


def network_of(checkpoint: Checkpoint, source: Path) -> nn.Module:
    """Return the network of a checkpoint, with its weights.

    Raises:
        CheckpointError: the family is unknown, or the weights do not fit the configuration.
    """
    family = str(checkpoint.description.get("family"))
    if family not in BUILDERS:
        raise CheckpointError(f"{source} is of the family {family!r}; known are {', '.join(BUILDERS)}")
    network = BUILDERS[family](**checkpoint.description["config"])
    load_weights(network, checkpoint, source)
    return network.eval()


def export(
    source: Path,
    repository: Path,
    *,
    version: int | None = None,
    torchscript: bool = False,
    replace: bool = False,
) -> Path:
    """Export the checkpoint `source` to `repository/NAME/VERSION` and return that folder.

    Args:
        source: the checkpoint's file.
        repository: the model repository.
        version: the version to make; the latest + 1 when None.
        torchscript: also export TorchScript, for the runtime of that name.
        replace: replace `version` if it exists. Clients that ask for it by number then get another model.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        VersionExistsError: `version` exists, and is not to be replaced.
        ParityError: a graph does not compute what the network does; an artifact that exists is left as it was.
    """
    checkpoint = load(source)
    network = network_of(checkpoint, source)
    versions = repository / str(checkpoint.description["name"])
    version = version or 1 + max((int(path.name) for path in versions.glob("*") if path.name.isdigit()), default=0)
    folder = versions / str(version)
    if not replace and (folder / manifest.MANIFEST_FILE).exists():
        raise VersionExistsError(f"{folder} is there already; name another version, or give --replace")
    with staged(folder) as unfinished:
        _build(unfinished, checkpoint, network, version, torchscript=torchscript)
    return folder


def _build(folder: Path, checkpoint: Checkpoint, network: nn.Module, version: int, *, torchscript: bool) -> None:
    """Write the files of an artifact to a folder."""
    description = checkpoint.description
    graphs: dict[str, Graph] = {}
    tensors: dict[str, Array] = {}
    for name, graph in graphs_of(network).items():
        # The first graph is the main one.
        stem = "model" if not graphs else name
        graphs[name] = _export_graph(graph, folder, stem, torchscript=torchscript)
        tensors |= {f"initial/{name}/{key}": row.numpy() for key, row in graph.initial.items()}
        golden = inputs_for(graph, GOLDEN_STEPS, GOLDEN_ROWS, seed=0)
        tensors |= {f"golden/{name}/{key}": value.numpy() for key, value in golden.items()}
        tensors |= {f"golden/{name}/{key}": value for key, value in parity.reference(graph, golden).items()}
    np.savez_compressed(folder / manifest.TENSORS_FILE, **tensors)  # type: ignore[arg-type]
    save(checkpoint, folder / manifest.WEIGHTS_FILE)
    described = Manifest(
        name=description["name"],
        version=version,
        family=description["family"],
        config=description["config"],
        graphs=graphs,
        metrics=description["metrics"],
        training={
            key: description[key]
            for key in ("task", "update", "seconds", "seed", "start", "schedule", "note")
            if description.get(key) is not None
        },
        producer={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "opset": str(to_onnx.OPSET),
        },
        files={},
    )
    (folder / manifest.CARD_FILE).write_text(model_card(described), encoding="utf-8")
    files = {path.name: manifest.describe(path) for path in sorted(folder.iterdir())}
    manifest.write(described.model_copy(update={"files": files}), folder)


def _export_graph(graph: ExportGraph, folder: Path, stem: str, *, torchscript: bool) -> Graph:
    onnx_file, script_file = f"{stem}.onnx", f"{stem}.pt" if torchscript else None
    to_onnx.export(graph, folder / onnx_file)
    worst = parity.prove(graph, _onnx_runner(folder / onnx_file, graph), onnx_file)
    if script_file:
        to_torchscript.export(graph, folder / script_file)
        worst = max(worst, parity.prove(graph, _script_runner(folder / script_file, graph), script_file))
    return Graph(
        signature=graph.signature,
        onnx=onnx_file,
        torchscript=script_file,
        tolerance=parity.TOLERANCE["float32"],
        worst_error=worst,
        largest_batch=max(parity.BATCHES),
    )


def _onnx_runner(path: Path, graph: ExportGraph) -> parity.Runner:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, torch.Tensor]) -> Mapping[str, Array]:
        names = graph.signature.output_names
        feeds = {name: inputs[name].numpy() for name in graph.signature.input_names}
        return dict(zip(names, session.run(list(names), feeds), strict=True))

    return run


def _script_runner(path: Path, graph: ExportGraph) -> parity.Runner:
    module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(inputs: Mapping[str, torch.Tensor]) -> Mapping[str, Array]:
        with torch.inference_mode():
            results = module(*(inputs[name] for name in graph.signature.input_names))
        return {name: tensor.numpy() for name, tensor in zip(graph.signature.output_names, results, strict=True)}

    return run
