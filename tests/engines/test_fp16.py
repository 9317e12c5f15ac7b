"""The half-precision graph: its types, and agreement with the float32 graph."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.build import gate
from facestream.engines.build.fp16 import (
    LARGEST,
    ROOM,
    Fp16Detector,
    above,
    emulated,
    entry,
    heads_of,
    peak_of,
    probes,
    rounded,
    to_fp16,
)
from facestream.engines.build.gate import DRAWN_HEADROOM, PHOTO_HEADROOM, check_fp16, check_int8
from facestream.engines.build.parity import differences, patches, within_tolerance
from facestream.engines.errors import EngineMismatch
from facestream.engines.letterbox import pad, view
from facestream.engines.loader import WEIGHTS, load_detector, shipped
from facestream.engines.onnx_engine import open_session
from facestream.engines.options import DetectorOptions
from onnx import TensorProto, numpy_helper

from tests.alike import found_alike
from tests.pack import demo_frames

SHIPPED = WEIGHTS / "plainS.onnx"


def enlarged(tmp_path: Path, gain: float) -> Path:
    """The shipped net with its first layer's output, and all that follows from it, `gain` times as large, and the last
    layers' weights as much smaller: the same function with values beyond half precision."""
    model = onnx.load(SHIPPED)
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    last = {n.input[1] for n in convs if n.input[1].endswith((".scores.weight", ".boxes.weight"))}
    changes = {name: 1 / gain for name in last} | {convs[0].input[1]: gain}
    changes |= {n.input[2]: gain for n in convs if n.input[1] not in last}
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            values = (numpy_helper.to_array(tensor) * changes[tensor.name]).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "large.onnx")
    return tmp_path / "large.onnx"


def test_the_net_is_half_and_boxes_are_not() -> None:
    data, normalisation, peak = to_fp16(SHIPPED)
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    kinds: dict[str, set[int]] = {}
    for node in model.graph.node:
        kinds.setdefault(node.op_type, set()).add(types.get(node.output[0], 0))
    for kind in ("Conv", "Relu", "MaxPool", "Resize"):
        assert kinds[kind] == {TensorProto.FLOAT16}
    for kind in ("TopK", "Sigmoid", "Exp", "Clip"):
        assert kinds[kind] == {TensorProto.FLOAT}
    assert types["xyxy"] == types["scores"] == TensorProto.FLOAT
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert normalisation.zero == (0.0, 0.0, 0.0)
    assert normalisation.scale == 1
    assert 1 < peak < LARGEST / ROOM


def test_it_finds_what_the_shipped_net_finds() -> None:
    data, normalisation, _ = to_fp16(SHIPPED)
    options = DetectorOptions()
    pair = load_detector("plainS", options), Fp16Detector(data, normalisation, options)
    assert found_alike(pair, [view(rgb, (640, 384)) for rgb in demo_frames([30, 90])], 0.35, 0.97) > 3
    parity = check_fp16(SHIPPED, data, normalisation, None)
    assert parity["boxes_compared"] > 250


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_net_passes_the_gate(name: str) -> None:
    source = WEIGHTS / f"{name}.onnx"
    data, normalisation, _ = to_fp16(source)
    assert check_fp16(source, data, normalisation, None)["boxes_compared"] > 0


def test_values_too_large_for_half_precision_are_scaled_without_a_trace(tmp_path: Path) -> None:
    large = enlarged(tmp_path, 2.0**14)
    assert differences(load_detector("plainS"), load_detector(str(large)))["box_error_px"] < 0.01
    data, normalisation, peak = to_fp16(large)
    assert peak > LARGEST
    assert normalisation.scale < 1
    assert peak * normalisation.scale <= LARGEST / ROOM
    model = onnx.load_from_string(data)
    half = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert all(np.isfinite(values).all() for values in half)
    check_fp16(large, data, normalisation, None)


def sums_off(values: Array, half: Array) -> Array:
    """By how much the sum of each kernel is off, as a share of the sum of its absolute values."""
    kernels = values.reshape(-1, values[0, 0].size).astype(np.float64)
    return np.abs((half.reshape(kernels.shape) - kernels).sum(1)) / np.abs(kernels).sum(1)


def test_weights_are_rounded_so_that_the_sum_of_a_kernel_stays() -> None:
    """Of kernels that compare neighbouring pixels, whose weights cancel."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (64, 4, 3, 3))
    values -= values.mean((2, 3), keepdims=True)
    values = (values * 10.0 ** rng.integers(-2, 3, (64, 4, 1, 1))).astype(np.float32)
    half = rounded(values)
    assert half.dtype == np.float16
    assert (np.abs(half - values) <= np.spacing(np.abs(values).astype(np.float16))).all(), "each to a neighbour"
    nearest = sums_off(values, values.astype(np.float16))
    assert sums_off(values, half).mean() < 0.25 * nearest.mean()
    assert (rounded(half.astype(np.float32)) == half).all(), "what half precision holds stays as it is"
    for other in (values[:, :, :1, :1], values[:, 0, 0, 0]):
        assert (rounded(other) == other.astype(np.float16)).all()


@pytest.mark.parametrize("name", shipped())
def test_the_kernels_of_shipped_nets_keep_their_sums(name: str) -> None:
    source = WEIGHTS / f"{name}.onnx"
    exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(source).graph.initializer}
    off: list[Array] = []
    nearest: list[Array] = []
    for tensor in onnx.load_from_string(to_fp16(source)[0]).graph.initializer:
        half = numpy_helper.to_array(tensor)
        if half.dtype == np.float16 and half.ndim == 4 and half[0, 0].size > 1:
            off.append(sums_off(exact[tensor.name], half))
            nearest.append(sums_off(exact[tensor.name], exact[tensor.name].astype(np.float16)))
    assert len(off) > 10
    assert np.concatenate(off).mean() < 0.3 * np.concatenate(nearest).mean()


def grown(source: Path, gain: float) -> tuple[bytes, Any]:
    """The half-precision graph of a shipped net with all values in its body `gain` times as large, and the weights of
    the last layers as much smaller: the same function as long as nothing exceeds half precision."""
    data, normalisation, _ = to_fp16(source)
    model = onnx.load_from_string(data)
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    last = {node.input[1] for node in heads_of(model)}
    changes = {name: 1 / gain for name in last} | {convs[0].input[1]: gain}
    changes |= {node.input[2]: gain for node in convs if node.input[1] not in last}
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            values = numpy_helper.to_array(tensor).astype(np.float32) * changes[tensor.name]
            with np.errstate(over="ignore"):
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    return model.SerializeToString(), normalisation


def peak(source: Path, pictures: list[Array]) -> float:
    """Largest value in the float32 net's body, the last layers excepted."""
    model = onnx.load(source)
    start, _ = entry(model, source)
    heads = heads_of(model)
    body = [node for node in above(model, heads, stop=start) if node not in heads]
    return peak_of(model, body, pictures)


@pytest.mark.parametrize("name", shipped())
def test_the_gate_refuses_a_net_whose_values_leave_no_headroom(name: str) -> None:
    """And no other. At 2^11 no value of the pictures drawn here exceeds half precision, but those of photographs do."""
    source = WEIGHTS / f"{name}.onnx"
    largest = peak(source, [*patches(), *probes()])
    assert 2.0**11 * largest < LARGEST
    power = math.floor(math.log2(LARGEST / DRAWN_HEADROOM / largest))
    for within in (power - 1, power):
        check_fp16(source, *grown(source, 2.0**within), None)
    for beyond in {power + 1, 11, 12}:
        with pytest.raises(
            EngineMismatch, match=r"beyond half precision: up to .* of 65504 on drawn patterns.*times as"
        ):
            check_fp16(source, *grown(source, 2.0**beyond), None)


def test_photographs_need_headroom_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "DRAWN_HEADROOM", 1.0)  # which would be asked for first
    photographs = [pad(view(rgb, (640, 384)).rgb)[None] for rgb in demo_frames([30, 90])]
    most = LARGEST / PHOTO_HEADROOM / peak(SHIPPED, photographs)
    check_fp16(SHIPPED, *grown(SHIPPED, 0.95 * most), photographs)
    with pytest.raises(EngineMismatch, match=r"beyond half precision: up to \d+ of 65504 on the photographs"):
        check_fp16(SHIPPED, *grown(SHIPPED, 1.05 * most), photographs)


def test_int8_graphs_need_headroom_too() -> None:
    data, normalisation = grown(SHIPPED, 2.0**12)
    with pytest.raises(EngineMismatch, match="beyond half precision"):
        check_int8(SHIPPED, data, normalisation, [pad(view(rgb, (640, 384)).rgb)[None] for rgb in demo_frames([30])])


def test_a_net_that_gives_no_numbers_is_refused_wherever_they_are() -> None:
    class Broken(Fp16Detector):
        def infer(self, images: Array) -> tuple[F32, F32]:
            xyxy, scores = super().infer(images)
            scores[0, -1] = np.nan  # the least of all scores
            return xyxy, scores

    data, normalisation, _ = to_fp16(SHIPPED)
    options = DetectorOptions()
    found = differences(load_detector("plainS"), Broken(data, normalisation, options))
    assert math.isinf(found["score_error"])
    assert math.isinf(found["box_error_px"])


class Row(Detector):
    """Gives a row of boxes of 50 pixels, the first of them so far off, and so much less sure."""

    def __init__(self, moved: list[float], less: list[float]) -> None:
        super().__init__(DetectorOptions())
        at = 100.0 * np.arange(BOXES, dtype=np.float32)
        self.boxes = np.stack([at, at * 0, at + 50, at * 0 + 50], 1)
        self.boxes[: len(moved)] += np.array(moved, np.float32)[:, None]
        self.scores = np.full(BOXES, 0.9, np.float32)
        self.scores[: len(less)] -= np.array(less, np.float32)

    def infer(self, images: Array) -> tuple[F32, F32]:
        return np.tile(self.boxes, (len(images), 1, 1)), np.tile(self.scores, (len(images), 1))


BOXES = 200


@pytest.mark.parametrize(("moved", "less", "passes"), [
    ([0.4] * BOXES, [0.008] * BOXES, True),
    ([1.4, 1.4], [], True), ([], [0.028, 0.028], True),  # one in a hundred
    ([1.4] * 3, [], False), ([], [0.028] * 3, False), ([0.9, 0.9], [0.0, 0.0, 0.015], False),
    ([1.6], [], False), ([], [0.032], False),  # none by more than three tolerances
])  # fmt: skip
def test_few_boxes_may_be_beyond_the_tolerance_and_none_far(
    moved: list[float], less: list[float], passes: bool
) -> None:
    found = differences(Row([], []), Row(moved, less), [np.zeros((1, 64, 64, 3), np.uint8)])
    assert found["boxes_compared"] == BOXES
    assert within_tolerance(found) == passes


class Boxes(Detector):
    """Gives two boxes, a large and a small one, so far to the right of where they belong."""

    def __init__(self, large: float, small: float) -> None:
        super().__init__(DetectorOptions())
        self.moved = np.array([[large], [small]], np.float32)

    def infer(self, images: Array) -> tuple[F32, F32]:
        boxes = np.array([[0, 0, 200, 200], [300, 300, 302, 302]], np.float32) + self.moved
        return np.tile(boxes, (len(images), 1, 1)), np.tile(np.array([0.9, 0.8], np.float32), (len(images), 1))


@pytest.mark.parametrize(("large", "small", "passes"), [
    (1.5, 0.4, True),  # pixels of the one and share of the other are above the limits, but no box is above both
    (2.5, 0.0, False), (0.0, 0.6, False),
])  # fmt: skip
def test_each_box_has_a_tolerance_of_its_own(large: float, small: float, passes: bool) -> None:
    found = differences(Boxes(0, 0), Boxes(large, small))
    assert found["box_error_px"] > 0.5
    assert found["box_error_share"] > 0.01
    assert within_tolerance(found) == passes


def test_every_value_of_the_net_is_rounded_to_half_precision() -> None:
    """And no weaker: each of them is one that half precision holds."""
    data, normalisation, _ = to_fp16(SHIPPED)
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True).graph
    half = {value.name for value in inferred.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    model = onnx.load_from_string(emulated(data))
    kinds = ("Conv", "Relu", "LeakyRelu", "Add", "Concat", "Resize", "MaxPool")
    names = [name.removesuffix("_wide") for n in model.graph.node if n.op_type in kinds for name in n.output]
    names = [name for name in names if name in half]
    assert len(names) > 20
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    row = normalisation.row()
    pixels = patches()[0].transpose(0, 3, 1, 2)
    images = ((pixels - row[:3, None, None]) * row[3:6, None, None]).astype(np.float16)
    for name, values in zip(
        names, open_session(model.SerializeToString(), 1).run(names, {"images": images}), strict=True
    ):
        assert values.dtype == np.float32
        assert (values == values.astype(np.float16)).all(), name


def test_a_graph_that_differs_is_refused(tmp_path: Path) -> None:
    data, normalisation, _ = to_fp16(SHIPPED)
    model = onnx.load_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".scores.bias"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float16(0.3), tensor.name))
    with pytest.raises(EngineMismatch, match="half precision"):
        check_fp16(SHIPPED, model.SerializeToString(), normalisation, None)


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    model = onnx.load(SHIPPED)
    first = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("conv.weight"))
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) * np.float32(1e6), first.name))
    onnx.save(model, tmp_path / "huge.onnx")
    with pytest.raises(EngineMismatch, match="larger than half"):
        to_fp16(tmp_path / "huge.onnx")


def test_nets_that_cannot_be_scaled_are_named(tmp_path: Path) -> None:
    model = onnx.load(SHIPPED)
    first = next(node for node in model.graph.node if node.op_type == "Relu")
    first.op_type = "Tanh"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(EngineMismatch, match="Tanh"):
        to_fp16(tmp_path / "other.onnx")
