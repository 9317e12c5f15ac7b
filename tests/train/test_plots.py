from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.types import Detections
from facestream.train.data import read_split
from facestream.train.fddb import Roc
from facestream.train.plots import (
    colour_of,
    hardest_misses,
    precision_recall,
    qualitative,
    receiver_operating,
    training_curve,
)
from facestream.train.wider import Curve, evaluate

from tests.pack import make_pack


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


def test_scores_are_coloured_as_in_the_papers_figure_8() -> None:
    assert colour_of(1.0) == (0, 255, 0)
    assert colour_of(0.5) == (0, 0, 255)
    assert colour_of(0.75) == (0, 128, 127) or colour_of(0.75) == (0, 128, 128)


def test_a_sheet_shows_detections_in_the_colour_of_their_score(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path, 2), "val")
    box = np.array([[100, 100, 300, 300]], np.float32)
    found = [Detections(box, np.array([1.0], np.float32)), Detections(box, np.array([0.3], np.float32))]
    qualitative([i.path for i in images], found, tmp_path / "sheet.png", tiles=2, side=320)
    rgb = cv2.imread(str(tmp_path / "sheet.png"))[:, :, ::-1]
    assert rgb.shape == (320, 1280, 3)
    assert (rgb[50:150, 50] == (0, 255, 0)).all()  # half size: the box's left edge, green for a sure face
    assert not (rgb[50:150, 370] == (0, 255, 0)).all(1).any()  # below 0.5 nothing is drawn


def test_roc_and_other_peoples_curves_are_drawn(tmp_path: Path) -> None:
    line = np.linspace(0, 1, 50)
    receiver_operating(Roc(2000 * line, line**0.3, 0.7 * line**0.3), tmp_path / "roc.png")
    assert cv2.imread(str(tmp_path / "roc.png")).std() > 5
    ours, theirs = (Curve(1 - line**power, line, 0.5) for power in (2, 4))
    precision_recall({"all": ours}, tmp_path / "a.png")
    precision_recall({"all": ours}, tmp_path / "b.png", {"SSH hard": theirs})
    a, b = (cv2.imread(str(tmp_path / name)) for name in ("a.png", "b.png"))
    assert (a != b).mean() > 0.001
