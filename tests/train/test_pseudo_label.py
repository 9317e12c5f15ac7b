from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig, BadInput
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.train.data import read_split
from facestream.train.pseudo_label import TRUST, EResFD, LabelRule, Labels, fuse, label_folder, load_teacher

from tests.pack import demo_frames
from tests.train.test_bootstrap import Says

FOUR = [TRUST[name] for name in ("centerface", "yunet", "retinaface", "eresfd")]


def best_scores(*rows: tuple[list[float], float]) -> Detections:
    boxes, scores = [row[0] for row in rows], [row[1] for row in rows]
    return Detections(np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32))


def labels(*found: Detections) -> Labels:
    return fuse([*found, *[best_scores()] * (4 - len(found))], FOUR, LabelRule())


BOX = [10.0, 10.0, 40.0, 50.0]


def test_two_teachers_make_a_face_with_the_mean_of_their_boxes() -> None:
    out = labels(best_scores((BOX, 0.4)), best_scores(([10.0, 10.0, 44.0, 50.0], 0.6)))
    assert out.ignore.tolist() == [False]
    assert out.xyxy[0].tolist() == pytest.approx([10, 10, 40 * 0.4 + 44 * 0.6, 50])
    assert out.scores[0].tolist() == pytest.approx([0.4, 0.6, 0, 0])


@pytest.mark.parametrize(
    ("centerface", "yunet", "kind"),
    [
        (0.75, 0.35, "face"),  # very confident, and another saw something
        (0.75, None, "ignore"),  # very confident, alone
        (0.4, None, "ignore"),
        (0.25, 0.35, "ignore"),  # both weakly
        (0.25, None, "nothing"),
        (0.1, 0.2, "nothing"),
    ],
)
def test_what_one_or_two_say(centerface: float, yunet: float | None, kind: str) -> None:
    out = labels(best_scores((BOX, centerface)), best_scores() if yunet is None else best_scores((BOX, yunet)))
    assert out.ignore.tolist() == {"face": [False], "ignore": [True], "nothing": []}[kind]


def test_tiny_and_odd_faces_are_ignored_and_doubts_about_a_face_go() -> None:
    tiny, long = [0.0, 0.0, 7.0, 9.0], [100.0, 100.0, 110.0, 150.0]
    near = [18.0, 20.0, 40.0, 55.0]  # another opinion of BOX, too far off to be one with it
    first = best_scores((BOX, 0.9), (tiny, 0.9), (long, 0.9), (near, 0.4))
    second = best_scores((BOX, 0.9), (tiny, 0.9), (long, 0.9))
    out = labels(first, second)
    assert {tuple(np.round(b).tolist()): i for b, i in zip(out.xyxy, out.ignore.tolist(), strict=True)} == {
        tuple(BOX): False, tuple(tiny): True, tuple(long): True
    }  # fmt: skip


def test_a_folder_becomes_a_training_set(tmp_path: Path) -> None:
    pictures = tmp_path / "in" / "party"
    pictures.mkdir(parents=True)
    for i, rgb in enumerate(demo_frames([0, 9])):
        cv2.imwrite(str(pictures / f"{i}.png"), np.ascontiguousarray(rgb[..., ::-1]))
    teachers = {"centerface": Says([BOX]), "yunet": Says([BOX, [100, 100, 130, 140]])}
    rule = LabelRule(scales=())  # the detectors here say the same at any size
    assert label_folder(tmp_path / "in", tmp_path / "out", teachers, rule) == (2, 2)
    items = read_split(tmp_path / "out", "train")
    assert [i.path.name for i in items] == ["0.png", "1.png"]
    assert all(i.path.is_file() for i in items)
    assert items[0].xyxy.tolist() == [[10, 10, 40, 50], [100, 100, 130, 140]]
    assert items[0].ignore.tolist() == [False, True]
    origin = (tmp_path / "out" / "extra" / "label_origin_train.tsv").read_text().splitlines()
    assert origin[0].split("\t") == ["picture", "reason", "centerface", "yunet"]
    assert len(origin) == 5
    assert cv2.imread(str(tmp_path / "out" / "sheet.jpg")) is not None


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="needs its weights"):
        load_teacher("eresfd", {}, DetectorOptions())
    with pytest.raises(BadConfig, match="unknown teacher"):
        load_teacher("scrfd", {}, DetectorOptions())
    with pytest.raises(BadInput, match="no pictures"):
        label_folder(tmp_path, tmp_path / "out", {}, LabelRule())


def test_eresfds_anchors() -> None:
    """At stride 8 an anchor is 32 px wide and 40 high, in the middle of its cell."""
    anchors = EResFD._anchors(2, 3, 8)
    assert anchors[4].tolist() == [12, 12, 32, 40]
