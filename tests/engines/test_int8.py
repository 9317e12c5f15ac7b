"""The graph in eight bits: what is quantised, how finely, and that it still finds the faces. Plans of it are built in
test_tensorrt_build.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from facestream.engines.build import int8
from facestream.engines.build import tensorrt as tensorrt_build
from facestream.engines.build.fp16 import Fp16Detector, entry, heads_of
from facestream.engines.build.int8 import LEAST_SCALE, best_scale, quantise
from facestream.engines.build.parity import agreement
from facestream.engines.build.tensorrt import PlanOptions, check_int8, compile_plan
from facestream.engines.errors import BadConfig, EngineMismatch
from facestream.engines.letterbox import pad, view
from facestream.engines.loader import WEIGHTS, load_detector
from facestream.engines.options import DetectorOptions
from onnx import TensorProto, numpy_helper

from tests.alike import found_alike
from tests.pack import demo_frames

SHIPPED = WEIGHTS / "plainS.onnx"


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    return [pad(view(rgb, (640, 384)).rgb)[None] for rgb in demo_frames([20, 60, 110])]


@pytest.fixture(scope="module")
def made(pictures: list[Any]) -> tuple[bytes, Any, float]:
    return quantise(SHIPPED, pictures)


def test_all_convolutions_but_the_first_and_the_last_are_int8(made: tuple[bytes, Any, float]) -> None:
    source = onnx.load(SHIPPED)
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(made[0]), strict_mode=True)
    makers = {name: node for node in model.graph.node for name in node.output}
    tensors = {t.name: t for t in model.graph.initializer}
    heads = {node.name for node in heads_of(source)}
    first = {
        node.name for node in source.graph.node if node.op_type == "Conv" and node.input[0] == entry(source, SHIPPED)[0]
    }
    assert len(heads) == 6
    assert len(first) == 1
    seen = 0
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        sources = [makers.get(name) for name in node.input[:2]]
        quantised = [s is not None and s.op_type == "DequantizeLinear" for s in sources]
        assert quantised == [node.name not in heads | first] * 2, node.name
        if all(quantised):
            pair, weight = makers[sources[0].input[0]], tensors[sources[1].input[0]]
            assert pair.op_type == "QuantizeLinear"
            assert weight.data_type == TensorProto.INT8
            steps = numpy_helper.to_array(tensors[sources[1].input[1]])
            assert (steps.dtype, len(steps)) == (np.float16, weight.dims[0])
            most = np.abs(numpy_helper.to_array(weight).astype(int)).reshape(len(steps), -1).max(1)
            assert (most[steps > LEAST_SCALE] >= 126).all()
            assert not numpy_helper.to_array(tensors[pair.input[2]]).any(), "TensorRT takes no zero points"
            seen += 1
    assert seen > 40
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    assert {types[n.output[0]] for n in model.graph.node if n.op_type == "DequantizeLinear"} == {TensorProto.FLOAT16}


def test_it_finds_the_faces_that_the_shipped_net_finds(made: tuple[bytes, Any, float], pictures: list[Any]) -> None:
    data, normalisation, _ = made
    options = DetectorOptions()
    pair = load_detector("plainS", options), Fp16Detector(data, normalisation, options)
    assert found_alike(pair, [view(rgb, (640, 384)) for rgb in demo_frames([40, 90])], 0.5, 0.75) > 3
    assert check_int8(SHIPPED, data, normalisation, pictures)["faces_compared"] > 4


def test_a_badly_calibrated_net_is_refused(pictures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "best_scale", lambda values: best_scale(values) / 30)
    data, normalisation, _ = quantise(SHIPPED, pictures)
    with pytest.raises(EngineMismatch, match=r"int8 finds .*calibrate on more pictures"):
        check_int8(SHIPPED, data, normalisation, pictures)


def test_pictures_without_a_face_prove_nothing(made: tuple[bytes, Any, float]) -> None:
    data, normalisation, _ = made
    with pytest.raises(EngineMismatch, match="finds no face in these pictures, so nothing was compared"):
        check_int8(SHIPPED, data, normalisation, [np.full((1, 64, 64, 3), 127, np.uint8)])
    net = load_detector("plainS", DetectorOptions(threshold=0.3))
    assert agreement(net, net, [np.full((1, 64, 64, 3), 127, np.uint8)]) == {"faces_compared": 0, "agreement": 0.0}


def test_the_scale_cuts_outliers_and_keeps_what_is_common() -> None:
    even = np.linspace(0, 10, 1000, dtype=np.float32)
    assert best_scale(even) * 127 == pytest.approx(10, rel=0.05)
    spiked = np.append(np.abs(np.random.default_rng(0).normal(0, 1, 100_000)), 15).astype(np.float32)
    assert 4 < best_scale(spiked) * 127 < 12
    assert best_scale(np.zeros(5, np.float32)) > 0


def test_without_photographs_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build, "library", lambda backend: None)
    with pytest.raises(BadConfig, match="int8 needs photographs"):
        compile_plan("rtx", SHIPPED, tmp_path / "x.plan", PlanOptions(precision="int8"), None, "build it")
