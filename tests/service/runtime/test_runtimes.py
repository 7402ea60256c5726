"""Both runtimes compute the same outputs as eager PyTorch, for any batch and segment."""

import ctypes
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from export import parity
from export.graphs import ExportGraph, graphs_of, inputs_for
from export.manifest import Array, Signature, TensorSpec
from export.package import network_of
from models.checkpoint import load as load_checkpoint
from service.errors import ArtifactRejected, DeviceUnavailable
from service.runtime.base import RuntimeOptions, allocate_outputs, compute
from service.runtime.onnxruntime import OnnxRuntime
from service.runtime.repository import LoadedModel, device_of, load

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

RUNTIMES = ("onnxruntime", "torchscript")
GRAPHS = [
    ("stn-affine", "rectify"),
    ("stn-projective", "rectify"),
    ("stn-tps", "rectify"),
    ("draw", "generate"),
    ("draw", "reconstruct"),
    ("ntm-copy", "step"),
    ("ntm-dynamic-ngrams", "step"),
]
CPU = RuntimeOptions("cpu", 1)
TOLERANCE = {"float32": 2e-4, "uint8": 1}


def loaded(repository: Path, name: str, runtime: str) -> LoadedModel:
    return load(repository / name / "1", runtime, CPU)


def exported(checkpoints: Path, name: str, graph: str) -> ExportGraph:
    path = checkpoints / f"{name}.safetensors"
    return graphs_of(network_of(load_checkpoint(path), path))[graph]


def inputs_of(graph: ExportGraph, steps: int, rows: int) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in inputs_for(graph, steps, rows, seed=1).items()}


def close(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(
        found.astype(np.float64), expected.astype(np.float64), atol=TOLERANCE[str(found.dtype)], rtol=2e-4
    )


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("name", "graph"), GRAPHS)
def test_runtime_answers_what_eager_pytorch_does(
    repository: Path, checkpoints: Path, name: str, graph: str, runtime: str, rows: int
) -> None:
    """Outputs and next states equal those of eager PyTorch, name by name."""
    source = exported(checkpoints, name, graph)
    inputs = inputs_of(source, 6, rows)

    answer = compute(loaded(repository, name, runtime).graphs[graph].runtime, inputs)

    expected = parity.reference(source, {key: torch.from_numpy(value) for key, value in inputs.items()})
    assert answer.keys() == expected.keys()
    for key, value in expected.items():
        close(answer[key], value)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("name", "graph"), [entry for entry in GRAPHS if not entry[0].startswith("stn")])
def test_two_segments_are_as_good_as_one(
    repository: Path, checkpoints: Path, name: str, graph: str, runtime: str
) -> None:
    """The state that is passed from one segment to the next is complete."""
    served = loaded(repository, name, runtime).graphs[graph].runtime
    inputs = inputs_of(exported(checkpoints, name, graph), 7, 3)
    per_step = [spec.name for spec in served.signature.inputs if spec.is_per_step]

    whole = compute(served, inputs)
    first = compute(served, inputs | {key: inputs[key][:3] for key in per_step})
    state = {spec.name: first[f"next_{spec.name}"] for spec in served.signature.state}
    second = compute(served, inputs | state | {key: inputs[key][3:] for key in per_step})

    for spec in served.signature.outputs:
        close(np.concatenate([first[spec.name], second[spec.name]]), whole[spec.name])
    for spec in served.signature.state:
        close(second[f"next_{spec.name}"], whole[f"next_{spec.name}"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bound_buffers_are_read_anew_at_every_call(repository: Path, checkpoints: Path, runtime: str) -> None:
    """A bound call reads the buffers' current contents each time, and fills the same outputs."""
    served = loaded(repository, "ntm-copy", runtime).graphs["step"].runtime
    inputs = inputs_of(exported(checkpoints, "ntm-copy", "step"), 4, 2)
    buffers = {key: value.copy() for key, value in inputs.items()}
    outputs = allocate_outputs(served.signature, 2, 4)
    call = served.bind(buffers, outputs)

    call()
    first = outputs["probabilities"].copy()
    buffers["inputs"][:] = 1 - inputs["inputs"]
    call()

    close(first, compute(served, inputs)["probabilities"])
    close(outputs["probabilities"], compute(served, buffers)["probabilities"])
    assert np.abs(outputs["probabilities"] - first).max() > 1e-3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_rows_of_larger_buffers_can_be_bound(repository: Path, checkpoints: Path, runtime: str) -> None:
    """A prefix of the arrays is computed in place, and the rows behind it do not change."""
    served = loaded(repository, "ntm-copy", runtime).graphs["step"].runtime
    inputs = inputs_of(exported(checkpoints, "ntm-copy", "step"), 1, 8)
    whole = compute(served, inputs)
    outputs = {key: np.full_like(value, 7) for key, value in whole.items()}
    per_step = {"inputs", *(spec.name for spec in served.signature.outputs)}

    def first_rows(arrays: dict[str, Array]) -> dict[str, Array]:
        return {key: value[:, :3] if key in per_step else value[:3] for key, value in arrays.items()}

    served.bind(first_rows(inputs), first_rows(outputs))()

    close(outputs["next_memory"][:3], whole["next_memory"][:3])
    assert (outputs["next_memory"][3:] == 7).all()
    assert (outputs["probabilities"][:, 3:] == 7).all()


@pytest.mark.parametrize(("runtime", "provider"), [("onnxruntime", "CPUExecutionProvider"), ("torchscript", "cpu")])
def test_runtime_says_what_computes(repository: Path, runtime: str, provider: str) -> None:
    """The provider is named as the runtime names it."""
    assert loaded(repository, "draw", runtime).graphs["generate"].runtime.provider == provider


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_cuda_that_is_not_there_is_refused(repository: Path, runtime: str) -> None:
    """There is no silent fallback to the CPU."""
    import onnxruntime

    if torch.cuda.is_available() or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine could have CUDA")

    with pytest.raises(DeviceUnavailable, match="device cuda was asked for, but this"):
        load(repository / "draw" / "1", runtime, RuntimeOptions("cuda", 1))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_file_that_is_no_graph_is_refused(repository: Path, tmp_path: Path, runtime: str) -> None:
    """The runtime's exceptions become `ArtifactRejected`, with the file's name."""
    from importlib import import_module

    signature = loaded(repository, "draw", runtime).graphs["generate"].runtime.signature
    path = tmp_path / "model.graph"
    path.write_bytes(b"seven, drawn in words")

    with pytest.raises(ArtifactRejected, match=r"model\.graph is not a graph that"):
        import_module(f"service.runtime.{runtime}").load(str(path), signature, CPU)


@pytest.mark.parametrize(("name", "graph"), [entry for entry in GRAPHS if not entry[0].startswith("stn")])
def test_row_is_the_same_to_the_last_bit_whatever_the_rows_beside_it(
    repository: Path, checkpoints: Path, name: str, graph: str
) -> None:
    """From `least_rows` rows on, outputs are equal to the last bit; a state would carry rounding differences on."""
    runtime = loaded(repository, name, "onnxruntime").graphs[graph].runtime
    assert runtime.signature.least_rows == (1 if graph == "generate" else 2)
    inputs = inputs_of(exported(checkpoints, name, graph), 6, 9)
    per_step = [spec.name for spec in runtime.signature.inputs if spec.is_per_step]

    crowd = compute(runtime, inputs)
    pair = compute(runtime, {key: value[:, 4:6] if key in per_step else value[4:6] for key, value in inputs.items()})

    is_per_step = {spec.name: spec.is_per_step for spec in runtime.signature.outputs}
    for key, value in crowd.items():
        np.testing.assert_array_equal(value[:, 4:6] if is_per_step.get(key, False) else value[4:6], pair[key])


@pytest.mark.parametrize(("name", "graph"), [entry for entry in GRAPHS if not entry[0].startswith("stn")])
def test_row_is_the_same_to_the_last_bit_wherever_a_segment_ends(
    repository: Path, checkpoints: Path, name: str, graph: str
) -> None:
    """Segments are as long as the other sequences of the batch allow, so a row's result must not depend on that."""
    runtime = loaded(repository, name, "onnxruntime").graphs[graph].runtime
    inputs = inputs_of(exported(checkpoints, name, graph), 9, runtime.signature.least_rows)
    per_step = [spec.name for spec in runtime.signature.inputs if spec.is_per_step]

    def run(*ends: int) -> dict[str, Array]:
        state = {spec.name: inputs[spec.name] for spec in runtime.signature.state}
        found: dict[str, list[Array]] = {spec.name: [] for spec in runtime.signature.outputs}
        for begin, end in itertools.pairwise((0, *ends)):
            answer = compute(runtime, inputs | state | {key: inputs[key][begin:end] for key in per_step})
            state = {spec.name: answer[f"next_{spec.name}"] for spec in runtime.signature.state}
            for key, parts in found.items():
                parts.append(answer[key])
        return state | {key: np.concatenate(parts) for key, parts in found.items()}

    whole = run(9)
    for ends in ((4, 9), (1, 3, 6, 9), range(1, 10)):
        for key, value in run(*ends).items():
            np.testing.assert_array_equal(value, whole[key])


class CopyingBinding:
    """A binding like ONNX Runtime's on a GPU: the graph sees the inputs as they were when they were bound."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.written: dict[str, int] = {}

    def bind_input(self, name: str, _device: str, _id: int, _type: object, _shape: object, address: int) -> None:
        self.seen[name] = ctypes.c_int64.from_address(address).value

    def bind_output(self, name: str, _device: str, _id: int, _type: object, _shape: object, address: int) -> None:
        self.written[name] = address


class DoublingSession:
    """A session on a GPU that returns twice its input."""

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def io_binding(self) -> CopyingBinding:
        return CopyingBinding()

    def run_with_iobinding(self, binding: CopyingBinding) -> None:
        ctypes.c_int64.from_address(binding.written["twice"]).value = 2 * binding.seen["once"]


def test_every_call_sees_what_is_in_its_buffers_on_a_gpu_too() -> None:
    """A call copies the inputs to the device again, because they only travel when they are bound."""
    number = TensorSpec(name="once", dtype="int64", shape=("B",))
    signature = Signature(inputs=(number,), outputs=(TensorSpec(name="twice", dtype="int64", shape=("B",)),))
    given, answered = np.array([3]), np.array([0])
    call = OnnxRuntime(DoublingSession(), signature).bind({"once": given}, {"twice": answered})

    call()
    assert answered.tolist() == [6]
    given[0] = 5
    call()
    assert answered.tolist() == [10]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_device_is_the_one_asked_for_or_the_best(runtime: str) -> None:
    """`auto` only selects a device that is available."""
    assert device_of(runtime, "cuda") == "cuda"
    assert device_of(runtime, "cpu") == "cpu"
    if not torch.cuda.is_available():
        assert device_of(runtime, "auto") == "cpu"


def test_runtime_that_is_not_installed_is_named() -> None:
    """A service image has only one of the two runtimes."""
    with pytest.raises(DeviceUnavailable, match="the runtime absent is not installed"):
        device_of("absent", "auto")
