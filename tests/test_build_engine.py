from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compiling weights needs the train extra")

import build_engine  # noqa: E402
from engines.detector import DetectorOptions  # noqa: E402
from engines.errors import EngineMismatch  # noqa: E402
from engines.onnx_engine import OnnxDetector  # noqa: E402
from train.checkpoint import save_weights  # noqa: E402
from train.model import SPECS, SSH, Deploy, build  # noqa: E402


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
    for n, h, w in ((1, 32, 32), (3, 96, 160), (1, 544, 960)):
        xyxy, scores = detector.infer(np.zeros((n, h, w, 3), np.uint8))
        assert xyxy.shape == (n, 3000, 4)
        assert scores.shape == (n, 3000)
    assert list(tmp_path.iterdir()) == [out]


def test_a_graph_that_differs_is_refused(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    build_engine.export_onnx(weights, out)
    torch.manual_seed(4)
    other = SSH(replace(SPECS["plainXS16"]))
    with pytest.raises(EngineMismatch, match="differs from torch"):
        build_engine.compare(Deploy(other), out)


def test_missing_weights_and_folders_are_one_line(tmp_path: Path) -> None:
    for arguments in (
        [str(tmp_path / "no.safetensors")],
        ["x", "-o", str(tmp_path / "no" / "x.onnx")],
        ["--backend", "no"],
    ):
        done = subprocess.run(
            [sys.executable, "build_engine.py", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
