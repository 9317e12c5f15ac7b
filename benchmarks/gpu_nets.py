"""The nets that benchmarks/gpu_check.py times: torch's, and plans; and how much work they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from facestream.engines.build.fp16 import to_fp16
from facestream.engines.build.sidecar import Profile, Sidecar
from facestream.engines.build.tensorrt import PlanOptions, compile_plan
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.cuda.pipeline import Net
from facestream.engines.errors import BadInput
from facestream.engines.loader import WEIGHTS
from facestream.engines.tensorrt_library import library, logger

Make = Callable[[int, int, int], tuple[Net, Normalisation]]  # width, height, batch
Work = Callable[[int, int], tuple[float, float]]  # width, height -> GFLOP and GB moved for one picture


class Skipped(Exception):
    """A part cannot run on this machine, and why."""


def graph_work(graph: Path, width: int, height: int) -> tuple[float, float]:
    """Arithmetic (10^9 multiplications and additions) and memory traffic (GB, half precision, every layer's input and
    output once) of a graph's convolutions for one picture."""
    import onnx

    model = onnx.load(graph)
    for value, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, height, width, 3), strict=True):
        value.dim_value = size
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    weights = {t.name: list(t.dims) for t in model.graph.initializer}
    flop = traffic = 0.0
    for node in model.graph.node:
        if node.op_type == "Conv":
            out, kernel = shapes[node.output[0]], weights[node.input[1]]
            flop += 2.0 * np.prod(out) * np.prod(kernel[1:])
            traffic += 2.0 * (np.prod(out) + np.prod(shapes[node.input[0]]) + np.prod(kernel))
    return flop / 1e9, traffic / 1e9


def torch_net(model: str, folder: Path) -> tuple[Make, Work]:
    """The model's graph in torch, as `facestream --backend torch` runs it."""
    import torch

    if not torch.cuda.is_available():
        raise Skipped("this torch has no CUDA")
    from facestream.engines.torch_engine import TorchNet
    from facestream.engines.torch_graph import GraphModule

    graph = graph_of(model, folder)
    data, normalisation, _ = to_fp16(graph)
    module = GraphModule(data, str(graph))
    return lambda width, height, batch: (TorchNet(module), normalisation), lambda w, h: graph_work(graph, w, h)


def plan_net(backend: str) -> Callable[[str, Path], tuple[Make, Work]]:
    def nets(model: str, folder: Path) -> tuple[Make, Work]:
        library(backend)
        graph = graph_of(model, folder)
        return lambda *shape: load_plan(backend, graph, folder, *shape), lambda w, h: graph_work(graph, w, h)

    return nets


def graph_of(model: str, folder: Path) -> Path:
    """The shipped one, else one with random weights, which change no times, exported unless an earlier part has."""
    graph = WEIGHTS / f"{model}.onnx"
    if not graph.is_file():
        graph = folder / f"{model}.onnx"
        if not graph.is_file():
            export_random(model, graph)
    return graph


def export_random(model: str, graph: Path) -> None:
    import torch
    from facestream.train.checkpoint import save_weights
    from facestream.train.model import build

    from facestream import build_engine

    torch.manual_seed(0)
    save_weights(graph.with_suffix(".safetensors"), build(model), {"random": True})
    build_engine.export_onnx(graph.with_suffix(".safetensors"), graph)


def load_plan(
    backend: str, graph: Path, folder: Path, width: int, height: int, batch: int
) -> tuple[Net, Normalisation]:
    """A plan for one shape, built unless an earlier part has."""
    from facestream.engines.tensorrt_engine import PlanNet

    trt, plan = library(backend), folder / f"{graph.stem}-{backend}-{width}x{height}x{batch}.plan"
    if not plan.is_file():
        shape = (batch, height, width)
        options = PlanOptions((Profile(shape, shape, shape),), progress=False)
        compile_plan(backend, graph, plan, options, None, "gpu_check")
    sidecar = Sidecar.read(plan)
    if backend == "tensorrt":
        from facestream.engines.cuda.nms_plugin import make as plugin

        plugin(trt)
    runtime = trt.Runtime(logger(trt))
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise BadInput("the plan does not load on this GPU", str(plan))
    net = PlanNet(trt, engine, sidecar.profiles, sidecar.nms_iou is not None)
    net.runtime = runtime  # type: ignore[attr-defined]  # must outlive the engine
    return net, sidecar.normalisation
