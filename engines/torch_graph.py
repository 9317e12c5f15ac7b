"""A graph of build_engine.py, or what engines.build.fp16 makes of it, run node by node in torch.

For each shape of input what depends on shapes and constants alone is worked out beforehand, on the CPU; the rest is a
list of steps in which nothing comes from the host, so that a CUDA graph can hold them. Node types and their attributes
are ONNX's, opset 17 (https://onnx.ai/onnx/operators/).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from facestream.engines.errors import EngineMismatch
from facestream.engines.onnx_engine import INTERFACE, coarsest
from torch import Tensor, nn
from torch.nn import functional as F

Attributes = dict[str, Any]
PLANS = 16  # shapes that are remembered: a video has one, a folder of pictures many


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight, bias, a["strides"], _even(a["pads"]), a["dilations"], a["group"])


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    rest = a.get("dilations", 1), bool(a.get("ceil_mode", 0))
    return F.max_pool2d(x, a["kernel_shape"], a["strides"], _even(a.get("pads", [0] * 4)), *rest)


def _even(pads: list[int]) -> list[int]:
    """ONNX has top, left, bottom, right; torch's layers want the same on both sides."""
    if pads[:2] != pads[2:]:
        raise ValueError(f"pads {pads}")
    return pads[:2]


def _resize(a: Attributes, x: Tensor, roi: None, scales: list[float]) -> Tensor:
    how = a["mode"].decode(), a["coordinate_transformation_mode"].decode()
    if how == ("nearest", "asymmetric") and a["nearest_mode"] == b"floor":
        return F.interpolate(x, scale_factor=scales[2:], mode="nearest")
    if how == ("linear", "half_pixel"):
        return F.interpolate(x, scale_factor=scales[2:], mode="bilinear")
    raise ValueError(" ".join(how))


def _dequantize(a: Attributes, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    shape = [-1 if i == a.get("axis", 1) else 1 for i in range(x.ndim)]
    return (x.to(scale.dtype) - zero.to(scale.dtype).reshape(shape)) * scale.reshape(shape)


def _divide(a: Attributes, x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode=None if x.is_floating_point() else "trunc")


def _top_k(a: Attributes, x: Tensor, k: list[int]) -> tuple[Tensor, Tensor]:
    values, indices = torch.topk(x, k[0], a.get("axis", -1), bool(a.get("largest", 1)), bool(a.get("sorted", 1)))
    return values, indices


def _gather(a: Attributes, x: Tensor, index: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, index.reshape(-1)).reshape(shape)


def _slice(
    a: Attributes, x: Tensor, starts: list[int], ends: list[int], axes: list[int] | None = None,
    steps: list[int] | None = None,
) -> Tensor:  # fmt: skip
    cut = [slice(None)] * x.ndim
    for axis, *bounds in zip(axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=True):
        cut[axis] = slice(*bounds)
    return x[tuple(cut)]


def _unsqueeze(a: Attributes, x: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _reshape(a: Attributes, x: Tensor, shape: list[int]) -> Tensor:
    return x.reshape([x.shape[i] if side == 0 else side for i, side in enumerate(shape)])


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _clip(a: Attributes, x: Tensor, min_value: float | None = None, max_value: float | None = None) -> Tensor:
    return x.clamp(min_value, max_value)


def _full(a: Attributes, shape: list[int]) -> Tensor:
    value = a["value"]
    return torch.full(shape, value.item(), dtype=value.dtype)


def _expand(a: Attributes, x: Tensor, shape: list[int]) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape))


# By node type: how many of its inputs, from the first on, are tensors to compute with (None: all). The others say what
# to do and must be known beforehand: lists of numbers, or a number.
OPS: dict[str, tuple[Callable[..., Any], int | None]] = {
    "Add": (lambda a, x, y: x + y, None),
    "Cast": (lambda a, x: x.to(a["to"]), None),
    "Clip": (_clip, 1),
    "Concat": (lambda a, *x: torch.cat(x, a["axis"]), None),
    "ConstantOfShape": (_full, 0),
    "Conv": (_conv, None),
    "DequantizeLinear": (_dequantize, None),
    "Div": (_divide, None),
    "Equal": (lambda a, x, y: x == y, None),
    "Exp": (lambda a, x: x.exp(), None),
    "Expand": (_expand, 1),
    "Flatten": (_flatten, None),
    "Gather": (_gather, None),
    "GatherElements": (lambda a, x, index: x.gather(a.get("axis", 0), index), None),
    "Identity": (lambda a, x: x, None),
    "LeakyRelu": (lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)), None),
    "MaxPool": (_max_pool, None),
    "Min": (lambda a, *x: reduce(torch.minimum, x), None),
    "Mul": (lambda a, x, y: x * y, None),
    "Relu": (lambda a, x: x.relu(), None),
    "Reshape": (_reshape, 1),
    "Resize": (_resize, 1),
    "Sigmoid": (lambda a, x: x.sigmoid(), None),
    "Slice": (_slice, 1),
    "Sub": (lambda a, x, y: x - y, None),
    "TopK": (_top_k, 1),
    "Transpose": (lambda a, x: x.permute(a["perm"]), None),
    "Unsqueeze": (_unsqueeze, 1),
    "Where": (lambda a, x, y, z: torch.where(x, y, z), None),
}


@dataclass(frozen=True, slots=True)
class Node:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Step:
    """A node with what is known of it. data: names of tensors, on the device, "" for none. arguments: what to do.
    last: names that no later step needs."""

    node: Node
    data: tuple[str, ...]
    arguments: tuple[Any, ...]
    last: tuple[str, ...]

    def run(self, values: dict[str, Tensor]) -> None:
        found = OPS[self.node.kind][0](
            self.node.attributes, *(values[name] if name else None for name in self.data), *self.arguments
        )
        values.update(zip(self.node.outputs, found if isinstance(found, tuple) else (found,), strict=False))
        for name in self.last:
            values.pop(name, None)


class GraphModule(nn.Module):
    """images: uint8 [N, H, W, 3] or, for a graph of engines.build.fp16, half [N, 3, H, W], normalised; any N, H and W
    that are multiples of 32 -> xyxy float32 [N, K, 4], scores float32 [N, K].

    EngineMismatch for a file that is not such a graph. ModuleNotFoundError without the package `onnx`.
    """

    def __init__(self, model: bytes, where: str) -> None:
        super().__init__()
        self.where = where
        graph = _parsed(model, where)
        self.nodes, constants = _read(graph, where)
        about = next((p.value for p in graph.metadata_props if p.key == "facestream"), "{}")
        self.coarsest_anchors, self.coarsest_boxes = coarsest(about)
        weights = {name for node in self.nodes if node.kind == "Conv" for name in node.inputs[1:] if name in constants}
        self.known = {name: value for name, value in constants.items() if name not in weights}
        self.weights = {name: f"weight{i}" for i, name in enumerate(sorted(weights))}  # a buffer's name has no dots
        for name, own in self.weights.items():
            self.register_buffer(own, constants[name], persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._plans: dict[tuple[Any, ...], tuple[list[Step], dict[str, Tensor]]] = {}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        steps, values = self.plan(images)
        values = values | {name: self.get_buffer(own) for name, own in self.weights.items()}
        if images.is_floating_point():
            images = images.contiguous(memory_format=torch.channels_last)
        values["images"] = images
        for step in steps:
            step.run(values)
        return values["xyxy"], values["scores"]

    def plan(self, images: Tensor) -> tuple[list[Step], dict[str, Tensor]]:
        """What is left to do for inputs of this shape, and the tensors for that which are known, on its device.

        The steps are gone through once on torch's device without memory, which tells their shapes."""
        key = (images.shape, images.dtype, images.device)
        if key not in self._plans:
            try:
                made = self._made(images)
            except (ValueError, TypeError, KeyError, RuntimeError) as e:
                reason = (str(e).splitlines() or [type(e).__name__])[0][:160]
                do = "build it with build_engine.py"
                raise EngineMismatch(f"torch cannot run it: {reason}", self.where, do) from None
            while len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = made
        return self._plans[key]

    def _made(self, images: Tensor) -> tuple[list[Step], dict[str, Tensor]]:
        known = dict(self.known)
        steps = list[Step]()
        shadows: dict[str, Tensor] = {"images": torch.empty_like(images, device="meta")}
        shadows |= {name: self.get_buffer(own).to("meta") for name, own in self.weights.items()}
        for node in self.nodes:
            if node.kind == "Shape":
                value = shadows[node.inputs[0]] if node.inputs[0] in shadows else known[node.inputs[0]]
                known[node.outputs[0]] = torch.tensor(value.shape)
                continue
            ahead = all(name in known for name in node.inputs if name)
            count = OPS[node.kind][1]
            data = node.inputs[:count]
            arguments = tuple(known[name].tolist() if name else None for name in node.inputs[len(data) :])
            step = Step(node, data, arguments, ())
            values = known if ahead else shadows
            if not ahead:
                steps.append(step)
                shadows.update((name, known[name].to("meta")) for name in data if name in known)
            step.run(values)
        used = {name for step in steps for name in step.data if name in known}
        return _with_ends(steps), {name: known[name].to(images.device) for name in used}


def _with_ends(steps: list[Step]) -> list[Step]:
    """Each step says which values it is the last to need, so that their memory is free for the next."""
    last = {name: i for i, step in enumerate(steps) for name in step.data}
    kept = set(INTERFACE[1])
    ends: list[list[str]] = [[] for _ in steps]
    for name, i in last.items():
        if name and name not in kept:
            ends[i].append(name)
    return [Step(s.node, s.data, s.arguments, tuple(end)) for s, end in zip(steps, ends, strict=True)]


def _parsed(model: bytes, where: str) -> Any:
    import onnx

    try:
        return onnx.load_from_string(model)
    except Exception as e:  # protobuf's own exceptions have no common base but Exception
        raise EngineMismatch(f"no ONNX file ({type(e).__name__})", where, "rebuild it with build_engine.py") from None


def _read(model: Any, where: str) -> tuple[list[Node], dict[str, Tensor]]:
    """The nodes that compute something, in order, and the constants by name."""
    from onnx import numpy_helper

    names = [i.name for i in model.graph.input], [o.name for o in model.graph.output]
    if names != INTERFACE:
        do = "build it with build_engine.py"
        raise EngineMismatch(f"not a detector of this project: {names[0]} -> {names[1]}", where, do)
    constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    nodes = []
    strange = set()
    for raw in model.graph.node:
        attributes = _attributes(raw)
        if raw.op_type == "Constant" and "value" in attributes:
            constants[raw.output[0]] = attributes["value"]
        elif raw.op_type in OPS or raw.op_type == "Shape":
            nodes.append(Node(raw.op_type, tuple(raw.input), tuple(raw.output), attributes))
        else:
            strange.add(raw.op_type)
    if strange:
        do = "torch runs float32 graphs of build_engine.py"
        raise EngineMismatch(f"holds {', '.join(sorted(strange))}", where, do)
    return nodes, constants


def _attributes(node: Any) -> Attributes:
    """A node's attributes; tensors and types as torch's own."""
    from onnx import helper, numpy_helper

    found: Attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if "value" in found and hasattr(found["value"], "data_type"):
        found["value"] = torch.from_numpy(np.array(numpy_helper.to_array(found["value"])))
    if node.op_type == "Cast":
        found["to"] = torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(found["to"]))).dtype
    return found


def read(path: Path) -> GraphModule:
    """The module of an .onnx file, in float32."""
    return GraphModule(path.read_bytes(), str(path))
