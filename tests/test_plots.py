from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from engines.types import Detections
from tests.pack import make_pack
from train.data import read_split
from train.plots import hardest_misses, precision_recall, training_curve
from train.wider import evaluate


def test_a_training_curve_shows_what_the_log_says(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [{"step": 20 * i, "loss": 3.0 / i, "classes": 2.0 / i, "boxes": 1.0 / i} for i in range(1, 30)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training_curve(log, tmp_path / "curve.png")
    picture = cv2.imread(str(tmp_path / "curve.png"))
    assert picture.shape[:2] == (540, 960)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20  # lines in colours, not an empty frame


def test_curves_and_misses_are_drawn(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path), "val")
    found = [Detections(i.xyxy[1:], np.full(len(i.xyxy) - 1, 0.9, np.float32)) for i in images]
    precision_recall(
        {"all": evaluate(found, [i.xyxy for i in images], [i.ignore for i in images])}, tmp_path / "pr.png"
    )
    hardest_misses(images, found, 0.5, tmp_path / "misses.jpg", tiles=8, side=64)
    assert cv2.imread(str(tmp_path / "pr.png")).std() > 5
    sheet = cv2.imread(str(tmp_path / "misses.jpg"))
    assert sheet.shape == (64, 512, 3)
    missed = len(images)  # the first face of each
    assert sheet[:, : 64 * missed].std() > 20
    assert sheet[:, 64 * missed :].std() < 3  # the rest of the sheet is empty
