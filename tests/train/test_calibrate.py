from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.types import Detections  # noqa: E402
from facestream.train.calibrate import calibrate, evidence, logit, platt  # noqa: E402
from facestream.train.checkpoint import load_deploy, load_weights, save_weights  # noqa: E402
from facestream.train.data import Labelled  # noqa: E402
from facestream.train.model import SPECS, SSH  # noqa: E402


def picture(faces: list[list[float]], ignored: list[list[float]] = []) -> Labelled:  # noqa: B006
    xyxy = np.asarray(faces + ignored, np.float32).reshape(-1, 4)
    return Labelled(Path("x.jpg"), xyxy, np.array([False] * len(faces) + [True] * len(ignored)))


def test_a_face_counts_once_and_ignore_regions_not_at_all() -> None:
    item = picture([[0, 0, 10, 10]], [[50, 50, 60, 60]])
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [80, 80, 90, 90]]
    found = Detections(np.asarray(boxes, np.float32), np.array([0.9, 0.8, 0.7, 0.6], np.float32))
    scores, right = evidence([found], [item])
    assert right.tolist() == [True, False, False]
    assert np.allclose(scores, [0.9, 0.8, 0.6])


def test_scores_that_are_too_sure_are_found_out() -> None:
    """Labels drawn with probabilities whose logits are half of the scores', and 1 lower."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 40_000)
    right = rng.random(len(true)) < 1 / (1 + np.exp(-true))
    scores = (1 / (1 + np.exp(-(2 * true + 2)))).astype(np.float32)
    gain, shift = platt(scores, right)
    assert gain == pytest.approx(0.5, abs=0.03)
    assert shift == pytest.approx(-1.0, abs=0.06)


def test_the_default_threshold_is_the_raw_score_that_becomes_it() -> None:
    rng = np.random.default_rng(1)
    items = [picture([[0, 0, 10, 10]]) for _ in range(300)]
    box = np.array([[0, 0, 10, 10], [40, 40, 50, 50]], np.float32)
    found = [Detections(box, rng.beta((4, 2), (2, 4)).astype(np.float32)) for _ in items]  # faces score higher
    result = calibrate(found, items, 0.2)
    moved = result.gain * logit(np.asarray(result.threshold)) + result.shift
    assert moved == pytest.approx(float(logit(np.asarray(0.2))), abs=0.01)
    assert result.missed == pytest.approx(np.mean([d.scores[0] < result.threshold for d in found]), abs=1e-3)


def test_the_calibration_is_part_of_the_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SSH(replace(SPECS["plainS"], branches=False)).eval()
    save_weights(tmp_path / "plain.safetensors", model, {})
    words = {"gain": 0.5, "shift": 1.0, "threshold": 0.1, "missed": 0.2, "on": "here"}
    save_weights(tmp_path / "calibrated.safetensors", model, {"calibration": words})
    assert load_weights(tmp_path / "calibrated.safetensors")[1]["calibration"] == words
    pixels = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        (_, before), (_, after) = (load_deploy(tmp_path / f"{n}.safetensors")(pixels) for n in ("plain", "calibrated"))
    assert torch.allclose(after, torch.sigmoid(0.5 * torch.logit(before) + 1.0), atol=1e-4)
