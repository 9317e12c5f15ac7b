"""Quantises the half-precision graph's convolutions to int8, with explicit Quantize/Dequantize pairs.

TensorRT 11 has no calibrators: quantised tensors and their scales must be in the graph. Inputs of a convolution have
one scale each, calibrated on photographs; weights have one per output channel. The first convolution, which reads the
image, and the last ones, which give scores and offsets, stay in half precision: they cost little, and errors there cost
most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.engines.build.fp16 import above, entry, heads_of, to_fp16
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.onnx_engine import open_session

OPSET = 19  # the first whose pairs take half precision
SAMPLES = 2000  # values of a tensor that are kept of each picture
LEAST_SCALE = 2.0**-14  # the smallest that half precision holds with all its digits


def quantise(path: Path, pictures: list[Array]) -> tuple[bytes, Normalisation, float]:
    """As `fp16.to_fp16`, of which this is made, with convolutions in int8.

    pictures: uint8 [N, H, W, 3] of the kind that the net will see. EngineMismatch as `to_fp16`.
    """
    import onnx

    data, normalisation, peak = to_fp16(path, pictures)
    source = onnx.load(path)
    model = onnx.load_from_string(data)
    start = entry(source, path)[0]
    heads = heads_of(source)
    last = {node.name for node in heads}
    body = [
        n for n in above(source, heads, start) if n.op_type == "Conv" and n.name not in last and n.input[0] != start
    ]
    scales = _scales(source, sorted({node.input[0] for node in body}), pictures)
    names = {node.name for node in body}
    chosen = [node for node in model.graph.node if node.name in names]
    _insert(model, chosen, {name: scale * normalisation.scale for name, scale in scales.items()})
    model.opset_import[0].version = OPSET
    model.ir_version = max(model.ir_version, 9)
    onnx.checker.check_model(model, full_check=True)
    out: bytes = model.SerializeToString()
    return out, normalisation, peak


def _scales(model: Any, names: list[str], pictures: list[Array]) -> dict[str, float]:
    """For each tensor the step between two of its 255 values."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(watched.SerializeToString(), 1)
    rng = np.random.default_rng(0)
    kept: dict[str, list[F32]] = {name: [] for name in names}
    for picture in pictures:
        for name, value in zip(names, session.run(names, {"images": picture}), strict=True):
            size = np.abs(value).ravel()
            kept[name].append(np.append(rng.choice(size, min(SAMPLES, len(size)), replace=False), size.max()))
    return {name: max(best_scale(np.concatenate(values)), LEAST_SCALE) for name, values in kept.items()}


def best_scale(values: F32) -> float:
    """The step with which 127 of them follow these values with the least square error: the largest may be cut."""
    maximum = float(values.max())
    if maximum == 0:
        return LEAST_SCALE
    steps = [maximum * share / 127 for share in np.linspace(0.2, 1, 41)]
    errors = [float(((np.clip(np.rint(values / s), 0, 127) * s - values) ** 2).mean()) for s in steps]
    return float(steps[int(np.argmin(errors))])


def _insert(model: Any, convs: list[Any], scales: dict[str, float]) -> None:
    """Pairs before the inputs of the convolutions, and their weights as int8."""
    from onnx import helper, numpy_helper

    graph = model.graph
    before = {}
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    def keep(name: str, values: Array) -> str:
        graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    for conv in convs:
        name = conv.input[0]
        weight = conv.input[1]
        if name not in before:
            step = keep(name + "_step", np.array(scales[name], np.float16))
            zero = keep(name + "_zero", np.array(0, np.int8))
            pair = [
                helper.make_node("QuantizeLinear", [name, step, zero], [name + "_int8"], name + "_quantize"),
                helper.make_node(
                    "DequantizeLinear", [name + "_int8", step, zero], [name + "_back"], name + "_unquantize"
                ),
            ]
            before[name] = pair
        conv.input[0] = name + "_back"
        if weight in tensors:
            values = numpy_helper.to_array(tensors.pop(weight)).astype(np.float32)
            maximum = np.abs(values).reshape(len(values), -1).max(1)
            steps = np.maximum(maximum / 127, LEAST_SCALE).astype(np.float16)
            whole = np.rint(values / steps.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1)))
            inputs = [
                keep(weight + "_int8", np.clip(whole, -127, 127).astype(np.int8)),
                keep(weight + "_step", steps),
                keep(weight + "_zero", np.zeros(len(steps), np.int8)),
            ]
            before[weight] = [
                helper.make_node("DequantizeLinear", inputs, [weight + "_back"], weight + "_unquantize", axis=0)
            ]
        conv.input[1] = weight + "_back"
    made = {name for node in graph.node for name in node.output}
    ordered = [node for name, pair in before.items() if name not in made for node in pair]
    for node in graph.node:
        ordered.append(node)
        ordered += [pair for name in node.output for pair in before.get(name, [])]
    quantised = {conv.input[1].removesuffix("_back") for conv in convs}
    rest = [tensor for tensor in graph.initializer if tensor.name not in quantised]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(ordered)
    graph.initializer.extend(rest)
