"""Graphs as ONNX.

Opset 18: the newest for which ONNX Runtime registers every operator used here, GridSample among them, on the CPU and on
CUDA. The exporter is PyTorch's tracing one, although PyTorch calls it legacy: its successor does not get through
DRAW's segment with a free number of steps, and unrolls loops.

A recurrent graph that is written as a step becomes the body of ONNX's `Scan`. Its loop state is the sequences' state,
and it scans the inputs and outputs of each step: one call then runs any number of steps.
"""

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import GraphProto, ModelProto, TensorProto, helper

from export.graphs import ExportGraph, Form, traced_inputs
from export.manifest import TensorSpec

OPSET = 18
IR_VERSION = 10
ELEMENT_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}


def export(graph: ExportGraph, path: Path) -> None:
    """Write a graph to `path`."""
    signature = graph.signature
    step = graph.form is Form.STEP
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every shape that it may become a constant
        torch.onnx.export(
            graph.module.eval(),
            traced_inputs(graph),
            str(path),
            input_names=list(signature.input_names),
            output_names=list(signature.output_names),
            dynamic_axes=_free_axes(graph),
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    if step:
        model = _scanned(model, graph)
    model.ir_version = min(model.ir_version, IR_VERSION)
    _set_shapes(model, graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _free_axes(graph: ExportGraph) -> dict[str, dict[int, str]]:
    def axes(spec: TensorSpec) -> dict[int, str]:
        shape = spec.shape[1:] if graph.form is Form.STEP and spec.is_per_step else spec.shape
        return {index: axis for index, axis in enumerate(shape) if isinstance(axis, str)}

    return {name: axes(spec) for name, spec in {**graph.signature.all_inputs, **graph.signature.all_outputs}.items()}


def _scanned(model: ModelProto, graph: ExportGraph) -> ModelProto:
    """Return a model of T steps, made from a model of one step."""
    signature = graph.signature
    per_step = [spec for spec in signature.inputs if spec.is_per_step]
    once = [spec for spec in signature.inputs if not spec.is_per_step]
    # Weights move out of the body, to be shared by all steps; inputs that are not per step are visible from the body.
    step: GraphProto = model.graph
    infos = {info.name: info for info in (*step.input, *step.output)}
    body = helper.make_graph(
        list(step.node),
        "step",
        [infos[spec.name] for spec in (*signature.state, *per_step)],
        [infos[f"next_{spec.name}"] for spec in signature.state] + [infos[spec.name] for spec in signature.outputs],
    )
    _rename(body, {spec.name: f"step_{spec.name}" for spec in (*signature.state, *per_step, *signature.outputs)})
    _rename(body, {f"next_{spec.name}": f"step_next_{spec.name}" for spec in signature.state})
    scan = helper.make_node(
        "Scan",
        [spec.name for spec in (*signature.state, *per_step)],
        [f"next_{spec.name}" for spec in signature.state] + [spec.name for spec in signature.outputs],
        body=body,
        num_scan_inputs=len(per_step),
    )
    outer = helper.make_graph(
        [scan],
        "segment",
        [_info(spec.name, spec) for spec in (*per_step, *once, *signature.state)],
        [_info(name, spec) for name, spec in signature.all_outputs.items()],
        list(step.initializer),
    )
    return helper.make_model(outer, opset_imports=list(model.opset_import), producer_name="glimpse")


def _rename(body: GraphProto, names: dict[str, str]) -> None:
    for info in (*body.input, *body.output):
        info.name = names.get(info.name, info.name)
    for node in body.node:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = names.get(name, name)


def _info(name: str, spec: TensorSpec) -> Any:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[spec.dtype], list(spec.shape))


def _set_shapes(model: ModelProto, graph: ExportGraph) -> None:
    """Name the free axes of all inputs and outputs; the tracer does so only for the inputs."""
    specs = {**graph.signature.all_inputs, **graph.signature.all_outputs}
    for infos in (model.graph.input, model.graph.output):
        ordered = [_info(info.name, specs[info.name]) for info in infos]
        del infos[:]
        infos.extend(ordered)
