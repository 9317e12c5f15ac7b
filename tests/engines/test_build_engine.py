from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="compiling weights needs the train extra")
torch = pytest.importorskip("torch", reason="compiling weights needs the train extra")

from facestream.engines.build.openvino import compare_files, compile_openvino  # noqa: E402
from facestream.engines.errors import EngineMismatch  # noqa: E402
from facestream.engines.letterbox import pad, view  # noqa: E402
from facestream.engines.loader import WEIGHTS, load_detector, shipped  # noqa: E402
from facestream.engines.onnx_engine import OnnxDetector  # noqa: E402
from facestream.engines.options import DetectorOptions  # noqa: E402
from facestream.train.checkpoint import save_weights  # noqa: E402
from facestream.train.data import read_image  # noqa: E402
from facestream.train.model import SPECS, SSH, Deploy, build  # noqa: E402

from facestream import build_engine  # noqa: E402
from tests.alike import found_alike  # noqa: E402
from tests.pack import demo_frames, make_pack  # noqa: E402


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    model = build("plainXS16")
    with torch.no_grad():
        for module in model.modules_:
            torch.nn.init.normal_(module.scores.weight, std=0.2)
            torch.nn.init.normal_(module.boxes.weight, std=0.1)
    save_weights(path, model, {"step": 1})
    return path


def test_the_command_writes_a_checked_graph_for_any_size(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    done = subprocess.run(
        [sys.executable, "build_engine.py", str(weights), "-o", str(out)], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["boxes_compared"] > 100
    assert result["box_error_px"] < 0.05
    detector = OnnxDetector(out, DetectorOptions())
    for n, h, w, k in ((1, 32, 32, 16 + 4 + 1), (3, 96, 160, 240 + 60 + 15), (1, 544, 960, 2000 + 700 + 300)):
        xyxy, scores = detector.infer(np.zeros((n, h, w, 3), np.uint8))
        assert xyxy.shape == (n, k, 4)
        assert scores.shape == (n, k)
    assert list(tmp_path.iterdir()) == [out]


def test_a_graph_that_differs_is_refused(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    build_engine.export_onnx(weights, out)
    torch.manual_seed(4)
    other = SSH(replace(SPECS["plainXS16"]))
    with pytest.raises(EngineMismatch, match="differs from torch"):
        build_engine.compare(Deploy(other), out)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo clip's pictures, as a folder to calibrate on."""
    return make_pack(tmp_path_factory.mktemp("pack")) / "WIDER_train"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_finds_the_same_faces(precision: str, photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the openvino extra")
    out = tmp_path / "net.xml"
    command = [sys.executable, "build_engine.py", str(WEIGHTS / "plainS.onnx"), "--backend", "openvino"]
    command += ["--precision", precision, "--calibrate", str(photographs), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["agreement"] >= 0.9
    assert (result.get("boxes_compared", 0) > 0) == (precision != "int8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.bin", "net.xml"]
    pair = tuple(load_detector(name, DetectorOptions(threshold=0.3)) for name in ("plainS", str(out)))
    assert [detector.any_size for detector in pair] == [True, False]
    assert (out.read_text().count('type="FakeQuantize"') > 15) == (precision == "int8")
    views = [view(read_image(path), (640, 384)) for path in sorted(photographs.rglob("*.png"))[:4]]
    assert found_alike(pair, views, 0.5, 0.8) > 4


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize(("precision", "pixels"), [("fp32", 0.01), ("fp16", 0.5)])
def test_openvino_computes_in_float32(name: str, precision: str, pixels: float, tmp_path: Path) -> None:
    """On random patches, where a CPU that computed in bfloat16, as OpenVINO has those with AMX do, would be far off."""
    pytest.importorskip("openvino", reason="needs the openvino extra")
    found: dict[str, Any] = compile_openvino(WEIGHTS / f"{name}.onnx", tmp_path / "net.xml", precision, None)
    assert found["boxes_compared"] > 100
    assert found["box_error_px"] < pixels


def test_a_quantised_net_that_finds_less_is_refused(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the openvino extra")
    torch.manual_seed(5)
    save_weights(tmp_path / "other.safetensors", build("plainXS16"), {})
    build_engine.export_openvino(tmp_path / "other.safetensors", tmp_path / "other.xml", "fp32", None)
    pictures = build_engine.calibration(photographs)
    with pytest.raises(EngineMismatch, match="of the faces"):
        compare_files(WEIGHTS / "plainS.onnx", tmp_path / "other.xml", pictures)


def test_a_net_in_half_precision_is_held_to_every_box(tmp_path: Path) -> None:
    """Photographs or not: nine faces in ten are the measure of int8 alone."""
    openvino = pytest.importorskip("openvino", reason="needs the openvino extra")
    moved = onnx.load(WEIGHTS / "plainS.onnx")
    for tensor in moved.graph.initializer:
        if tensor.name.endswith(".boxes.bias"):
            values = onnx.numpy_helper.to_array(tensor) + np.float32(0.2)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(moved, tmp_path / "moved.onnx")
    openvino.save_model(openvino.Core().read_model(str(tmp_path / "moved.onnx")), str(tmp_path / "moved.xml"))
    pictures = [pad(view(rgb, (640, 384)).rgb)[None] for rgb in demo_frames([30, 90])]
    files = WEIGHTS / "plainS.onnx", tmp_path / "moved.xml", pictures
    assert compare_files(*files)["agreement"] > 0.9
    with pytest.raises(EngineMismatch, match="differs from the graph"):
        compare_files(*files, exact=True)


def test_missing_weights_and_folders_are_one_line(tmp_path: Path) -> None:
    for arguments in (
        [str(tmp_path / "no.safetensors")],
        ["x", "-o", str(tmp_path / "no" / "x.onnx")],
        ["--backend", "no"],
        ["x", "--precision", "int8", "-o", str(tmp_path / "x.onnx")],
        [str(WEIGHTS / "plainS.onnx"), "--backend", "openvino", "--precision", "int8", "-o", str(tmp_path / "x.xml")],
        [str(WEIGHTS / "plainS.onnx"), "--backend", "openvino", "-o", str(tmp_path / "x.onnx")],
    ):
        done = subprocess.run(
            [sys.executable, "build_engine.py", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
