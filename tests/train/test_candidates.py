from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from facestream.engines.boxes import iou_xyxy
from facestream.train.candidates import (
    APART,
    BESIDE,
    FACE,
    LABEL,
    MOST_FACES,
    MOST_OTHERS,
    SAVED,
    beside,
    chosen,
    command,
    label_boxes,
    labels_path,
)  # fmt: skip
from facestream.train.data import Labelled

from tests.pack import DEMO

ITEM = Labelled(
    Path("x.jpg"), np.float32([[100, 100, 140, 140], [300, 100, 500, 300]]), np.array([False, True]), "list", 1
)  # fmt: skip


@pytest.mark.parametrize(
    ("box", "label"),
    [
        ((100, 100, 140, 140), 1),
        ((100, 100, 140, 170), 1),  # IoU 0.57
        ((100, 100, 140, 200), -1),  # 0.4
        ((100, 100, 140, 300), 0),  # 0.2
        ((10, 10, 60, 60), 0),
        ((310, 110, 330, 130), -1),  # in an ignore region
        ((290, 100, 310, 130), -1),  # half in one
        ((280, 100, 302, 130), 0),
    ],
)
def test_a_box_is_a_face_none_or_cannot_be_told(box: tuple[float, ...], label: int) -> None:
    assert label_boxes(np.float32([box]), ITEM).tolist() == [label]
    assert label_boxes(np.float32([box]) / 2, ITEM, 0.5).tolist() == [label]


def test_without_labels_nothing_is_a_face() -> None:
    none = Labelled(Path("x.jpg"), np.zeros((0, 4), np.float32), np.zeros(0, bool), "list", 1)
    assert label_boxes(np.float32([[0, 0, 9, 9]]), none).tolist() == [0]
    assert label_boxes(np.zeros((0, 4), np.float32), ITEM).tolist() == []


def test_boxes_beside_faces_hardly_ever_are_on_them() -> None:
    rng = np.random.default_rng(0)
    face = np.float32([[100, 100, 140, 140]])
    boxes = np.concatenate([beside(face, rng) for _ in range(200)])
    assert len(boxes) == 200 * BESIDE
    iou = iou_xyxy(boxes, face)[:, 0]
    assert (iou < APART).mean() > 0.6
    assert (iou >= FACE).mean() < 0.1
    near = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - 120).max(1)
    assert near.max() < 1.2 * 40


def test_some_faces_the_best_others_and_some_of_the_rest_are_kept() -> None:
    labels = np.array([1] * 100 + [0] * 200 + [-1] * 50, np.int8)
    scores = np.linspace(1, 0, 350, dtype=np.float32)
    sizes = np.where(np.arange(350) % 2, 100, 10).astype(np.float32)
    which = chosen(labels, scores, sizes, np.random.default_rng(0))
    assert (labels[which] == 1).sum() == MOST_FACES
    assert (labels[which] == 0).sum() == MOST_OTHERS
    assert not (labels[which] == -1).any()
    assert set(range(100, 100 + MOST_OTHERS // 2)) <= set(which.tolist())
    assert which.max() > 150
    assert (sizes[which[labels[which] == 1]] == 100).mean() > 0.75


def test_the_command_writes_labelled_crops(tmp_path: Path) -> None:
    """Of the bundled clip's first frame, whose faces are labelled by what plainS finds in it."""
    from facestream.engines.letterbox import view
    from facestream.engines.loader import load_detector

    ok, frame = cv2.VideoCapture(str(DEMO)).read()
    assert ok
    folder = tmp_path / "WIDER_train" / "images" / "0--demo"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), frame)
    (found,) = load_detector("plainS").detect([view(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))])
    found = found.filter_by_score(0.5)
    assert len(found)
    rows = [" ".join(f"{v:.0f}" for v in (a, b, c - a, d - b)) + " 0 0 0 0 0 0" for a, b, c, d in found.xyxy]
    split = tmp_path / "wider_face_split"
    split.mkdir()
    (split / "wider_face_train_bbx_gt.txt").write_text("\n".join(["0--demo/a.png", str(len(rows)), *rows]) + "\n")
    out = tmp_path / "crops.npy"
    result = CliRunner().invoke(command, ["--data", str(tmp_path), "--count", "40", "-o", str(out)])
    assert result.exit_code == 0, result.output
    crops = np.load(out)
    labels = np.load(labels_path(out))
    assert crops.shape == (40, SAVED, SAVED, 3)
    assert labels.dtype == LABEL
    assert 0 < labels["face"].sum() < 40
    assert crops.reshape(40, -1).std(1).min() > 1
    assert CliRunner().invoke(command, ["--data", str(tmp_path), "-o", str(tmp_path / "crops.bin")]).exit_code != 0
