"""Converts the float32 graph to half precision (fp16) with explicit types, as TensorRT 10 and 11 require.

The net runs in half precision; everything after its last convolutions (top-k, sigmoid, boxes) is float32, since half
coordinates above 1024 have a resolution of one pixel. Normalisation is done by the preprocessing kernel.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.errors import EngineMismatch
from facestream.engines.onnx_engine import open_session
from facestream.engines.options import DetectorOptions

LARGEST = 65504.0  # of half precision
ROOM = 8.0  # by which values may be larger than those of the probes
# Scaling the input and every bias scales all that these put out; so does any Concat, Add and Resize.
_EVEN = {"Conv", "Relu", "LeakyRelu", "MaxPool", "AveragePool", "Concat", "Add", "Resize", "Identity"}
_SHAPES = {"Constant", "Shape", "Gather", "Unsqueeze", "Slice", "Cast"}  # may compute a Resize's size


def to_fp16(path: Path, pictures: list[Array] | None = None) -> tuple[bytes, Normalisation, float]:
    """A graph of build_engine.py as (ONNX in half precision, what its input expects, largest value met in the net).

    It takes `images` half [N, 3, H, W], normalised, and returns `xyxy` float32 [N, K, 4], `scores` float32 [N, K].
    pictures: uint8 [N, H, W, 3] to measure the net's values with, besides the probes. Where those come near to what
    half precision holds, input and biases are scaled by a power of two and the last outputs scaled back, which
    changes nothing else. EngineMismatch for a graph that is not ours.
    """
    import onnx

    model = onnx.load(path)
    start, normalisation = entry(model, path)
    heads = heads_of(model)
    body = above(model, heads, stop=start)
    strange = sorted({node.op_type for node in body} - _EVEN - _SHAPES)
    if strange or not heads:
        what = ", ".join(strange) or "no convolution"
        raise EngineMismatch(f"not a net that is known in half precision: it holds {what}", str(path))
    peak = peak_of(model, body, [*probes(), *(pictures or [])])
    scale = 2.0 ** min(0, math.floor(math.log2(LARGEST / ROOM / max(peak, 1e-9))))
    _cast_body(model, body, start, heads, scale)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data, Normalisation(normalisation.zero, normalisation.std, scale), peak


def probes() -> list[Array]:
    """Images that cause extreme activations: flat ones, noise, stripes and patches of extreme colours."""
    rng = np.random.default_rng(0)
    flat = [np.full((1, 128, 160, 3), value, np.uint8) for value in (0, 255)]
    made = [*flat, rng.integers(0, 256, (1, 128, 160, 3), dtype=np.uint8)]
    for side in (2, 8, 32):
        colours = rng.choice(np.array([0, 255], np.uint8), (1, 128 // side, 160 // side, 3))
        made.append(colours.repeat(side, 1).repeat(side, 2))
    return made


def entry(model: Any, path: Path) -> tuple[str, Normalisation]:
    """The tensor that normalisation ends in."""
    from onnx import numpy_helper

    nodes = [node for node in model.graph.node if node.op_type == "Constant"]
    constants = {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in nodes}
    constants |= {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            gain = constants[node.input[1]]
            zero = constants[node.input[2]]
            rows = [tuple(float(v) for v in np.broadcast_to(row, 3)) for row in (zero, 1 / gain)]
            return node.output[0], Normalisation(rows[0], rows[1])  # type: ignore[arg-type]
    raise EngineMismatch("does not normalise its input", str(path), "build it with build_engine.py")


def _producers(model: Any) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output}


def heads_of(model: Any) -> list[Any]:
    """The last convolutions: those that no other stands behind."""
    makers = _producers(model)
    seen = set()
    found = []
    reached = [output.name for output in model.graph.output]
    while reached:
        node = makers.get(reached.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        if node.op_type == "Conv":
            found.append(node)
        else:
            reached += list(node.input)
    return found


def above(model: Any, heads: list[Any], stop: str) -> list[Any]:
    """The heads and every node that they depend on, up to the tensor `stop`."""
    makers = _producers(model)
    found = {}
    reached = [node.output[0] for node in heads]
    while reached:
        name = reached.pop()
        node = makers.get(name)
        if node is not None and name != stop and node.output[0] not in found:
            found[node.output[0]] = node
            reached += list(node.input)
    return [node for node in model.graph.node if node.output[0] in found]


def peak_of(model: Any, body: list[Any], pictures: list[Array]) -> float:
    """The largest value in the net, input included, that the pictures lead to."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = [node.output[0] for node in body if node.op_type in ("Conv", "Add")]
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(watched.SerializeToString(), 1)
    return max(float(np.abs(value).max()) for p in pictures for value in session.run(names, {"images": p}))


def _cast_body(model: Any, body: list[Any], start: str, heads: list[Any], scale: float) -> None:
    """Rewrite the graph in place."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    inputs = {name for node in body if node.op_type in ("Conv", "Add") for name in node.input if name}
    biases = {node.input[2] for node in body if node.op_type == "Conv" and len(node.input) > 2}
    for tensor in graph.initializer:
        if tensor.name in inputs and tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor) * np.float32(scale if tensor.name in biases else 1)
            if np.abs(values).max(initial=0) > LARGEST:
                raise EngineMismatch(f"{tensor.name} is larger than half precision holds", "weights", "use float32")
            tensor.CopyFrom(numpy_helper.from_array(rounded(values), tensor.name))
    removed = [n for n in graph.node if start in n.output or (n.op_type == "Transpose" and "images" in n.input)]
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == start:
                node.input[i] = "images"
    nodes: list[Any] = []
    ends = {node.output[0] for node in heads}
    for node in graph.node:
        if node in removed:
            continue
        nodes.append(node)
        if node.output[0] in ends:
            name = node.output[0]
            node.output[0] = name + "_half"
            parts = [name] if scale == 1 else [name + "_scaled", name]
            nodes.append(helper.make_node("Cast", [name + "_half"], parts[:1], name + "_cast", to=TensorProto.FLOAT))
            if scale != 1:
                nodes.append(helper.make_node("Mul", [parts[0], "back"], [name], name + "_back"))
    if scale != 1:
        graph.initializer.append(numpy_helper.from_array(np.array(1 / scale, np.float32), "back"))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    new = helper.make_tensor_value_info("images", TensorProto.FLOAT16, ["N", 3, "H", "W"])
    graph.input[0].CopyFrom(new)


def rounded(values: Array) -> Array:
    """float32 weights of a convolution, [O, I, H, W] (or any other values), in half precision, so that the sum of each
    of its kernels, [H, W], stays as near as possible to what it was.

    Kernels early in a net compare neighbouring pixels: their weights are large and nearly cancel (in an earlier
    plainXS16 absolute values of 17.5 summed up to 0.09). With each weight rounded to the nearest value the sum was off
    by 3 %, and with it all that the net saw in smooth areas. So weights are rounded to their other neighbour, those
    first that lie nearest to the middle, as long as that brings the sum closer.
    """
    half = values.astype(np.float16)
    if values.ndim < 4 or not values[0, 0].size > 1:
        return half
    exact = values.reshape(-1, values[0, 0].size).astype(np.float64)
    nearest = half.reshape(exact.shape)
    towards = np.where(exact > nearest, np.float16(np.inf), np.float16(-np.inf))
    other = np.where(exact == nearest, nearest, np.nextafter(nearest, towards))
    step = other.astype(np.float64) - nearest
    missing = (exact - nearest).sum(1)
    kernels = np.arange(len(exact))
    for weight in np.argsort(np.abs(exact - other) - np.abs(exact - nearest), 1).T:
        change = step[kernels, weight]
        closer = np.abs(missing - change) < np.abs(missing)
        nearest[kernels, weight] = np.where(closer, other[kernels, weight], nearest[kernels, weight])
        missing -= np.where(closer, change, 0)
    return nearest.reshape(values.shape)


def emulated(graph: bytes) -> bytes:
    """A graph of `to_fp16`, or one of int8 made of it, that computes in float32 and rounds to half precision after
    every node: what a GPU does, whose sums within a node are float32 too. ONNX Runtime's CPU provider, given the graph
    as it is, would go through whole chains of nodes in float32, where nothing overflows.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph), strict_mode=True)
    net = model.graph
    typed = {v.name: v.type.tensor_type.elem_type for v in (*net.value_info, *net.output)}
    for tensor in net.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes = [helper.make_node("Cast", ["images"], ["images_wide"], to=TensorProto.FLOAT)]
    wide = ["images_wide"]
    for node in net.node:
        for i, name in enumerate(node.input):
            if name == "images":
                node.input[i] = "images_wide"
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        nodes.append(node)
        for i, name in enumerate(node.output):
            if typed.get(name) == TensorProto.FLOAT16:
                node.output[i] = name + "_wide"
                wide.append(node.output[i])
                nodes.append(helper.make_node("Cast", [name + "_wide"], [name + "_rounded"], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [name + "_rounded"], [name], to=TensorProto.FLOAT))
    for name in wide:
        nodes.append(helper.make_node("Abs", [name], [name + "_size"]))
        nodes.append(helper.make_node("ReduceMax", [name + "_size"], [name + "_largest"], keepdims=0))
    nodes.append(helper.make_node("Max", [name + "_largest" for name in wide], ["largest"]))
    made = list(nodes)
    del net.node[:], net.value_info[:]
    net.node.extend(made)
    net.output.append(helper.make_tensor_value_info("largest", TensorProto.FLOAT, []))
    data: bytes = model.SerializeToString()
    return data


class Fp16Detector(Detector):
    """A graph of `to_fp16` on ONNX Runtime's CPU, rounded as a GPU rounds it (`emulated`). For comparisons.

    largest: largest magnitude of any value in the net so far, before it was rounded to half precision.
    """

    def __init__(self, model: bytes, normalisation: Normalisation, options: DetectorOptions) -> None:
        super().__init__(options)
        # Not optimised: what is left out as superfluous might be a rounding.
        self.session = open_session(emulated(model), options.threads, optimise=False)
        self.normalisation = normalisation
        self.largest = 0.0

    def infer(self, images: Array) -> tuple[F32, F32]:
        row = self.normalisation.row()
        x = (images.transpose(0, 3, 1, 2).astype(np.float32) - row[:3, None, None]) * row[3:6, None, None]
        return self.run(x.astype(np.float16))

    def run(self, x: Array) -> tuple[F32, F32]:
        """Half [N, 3, H, W], normalised -> xyxy [N, K, 4], scores [N, K]."""
        xyxy, scores, largest = self.session.run(["xyxy", "scores", "largest"], {"images": x})
        self.largest = float(np.fmax(self.largest, largest))  # values that are no number are found in the outputs
        return xyxy, scores
