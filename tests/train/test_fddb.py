from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadInput
from facestream.engines.types import Detections
from facestream.train.fddb import Photo, overlaps, read_fddb, roc, summary, write_results

# As FDDB-fold-NN-ellipseList.txt has them: half axes, angle in radians, centre, and a 1 after two spaces.
BLOCK = """2002/08/11/big/img_{n}
2
40.0 30.0 1.5707963 60.0 70.0  1
12.500000 10.250000 -0.250000 150.000000 60.000000  1
"""


def sample(root: Path) -> Path:
    (root / "FDDB-folds").mkdir(parents=True)
    for fold in range(1, 11):
        (root / "FDDB-folds" / f"FDDB-fold-{fold:02}-ellipseList.txt").write_text(BLOCK.format(n=fold))
        path = root / "originalPics/2002/08/11/big" / f"img_{fold}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((120, 200, 3), 90, np.uint8))
    return root


def boxes(*rows: tuple[float, ...]) -> Detections:
    return Detections(np.array([r[:4] for r in rows], np.float32), np.array([r[4] for r in rows], np.float32))


def test_the_official_lists_are_read_fold_by_fold(tmp_path: Path) -> None:
    photos = read_fddb(sample(tmp_path))
    assert [p.fold for p in photos] == list(range(1, 11))
    assert photos[2].path == tmp_path / "originalPics/2002/08/11/big/img_3.jpg"
    assert photos[0].path.is_file()
    assert photos[0].ellipses[1].tolist() == [12.5, 10.25, -0.25, 150, 60]


@pytest.mark.parametrize("text", ["a\n2\n1 1 0 5 5  1\n", "a\n1\n1 1 0\n", "a\nmany\n", "a\n1\n-4 3 0 5 5  1\n"])
def test_a_bad_line_is_named(tmp_path: Path, text: str) -> None:
    (sample(tmp_path) / "FDDB-folds/FDDB-fold-04-ellipseList.txt").write_text(text)
    with pytest.raises(BadInput, match=r"fold-04-ellipseList\.txt:1"):
        read_fddb(tmp_path)


def test_a_folder_without_folds_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="originalPics"):
        read_fddb(tmp_path)
    (sample(tmp_path) / "FDDB-folds/FDDB-fold-07-ellipseList.txt").unlink()
    with pytest.raises(BadInput, match="10 folds"):
        read_fddb(tmp_path)


@pytest.mark.parametrize(
    "ellipse", [(40, 30, 0.0, 100, 100), (40, 30, math.pi / 2, 100, 100), (50, 20, 0.7, 103.5, 96.2)]
)
def test_the_overlap_with_an_ellipse_is_that_of_its_pixels(ellipse: tuple) -> None:
    a, b, angle, cx, cy = ellipse
    y, x = (np.mgrid[0:2000, 0:2000] + 0.5) / 10
    u = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
    v = -(x - cx) * math.sin(angle) + (y - cy) * math.cos(angle)
    inside = (u / a) ** 2 + (v / b) ** 2 <= 1
    xyxy = np.array([[60, 70, 140, 130], [90, 95, 180, 170], [0, 0, 20, 20]], np.float32)
    for box, iou in zip(xyxy, overlaps(xyxy, np.array([ellipse]))[:, 0], strict=True):
        within = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
        assert iou == pytest.approx((inside & within).sum() / (inside | within).sum(), abs=2e-3)


def test_the_box_around_an_upright_ellipse_overlaps_it_by_pi_over_four() -> None:
    ellipse = np.array([[40, 30, math.pi / 2, 100, 100]])
    assert overlaps(np.array([[70, 60, 130, 140]], np.float32), ellipse)[0, 0] == pytest.approx(math.pi / 4, abs=1e-3)


FACE = (70.0, 60.0, 130.0, 140.0)


def photo(*ellipses: tuple[float, ...], fold: int = 1) -> Photo:
    return Photo(Path("x.jpg"), fold, np.array(ellipses, np.float64).reshape(-1, 5))


UPRIGHT = (40, 30, math.pi / 2, 100, 100)


def test_discrete_and_continuous_roc_by_hand() -> None:
    """A false alarm at 0.9, a hit at 0.8, and a box of IoU under a half on the second face at 0.7."""
    low = (170.0, 60.0, 198.0, 140.0)
    second = (40, 30, math.pi / 2, 200, 100)
    weak = float(overlaps(np.array([low], np.float32), np.array([second]))[0, 0])
    assert 0.2 < weak < 0.5
    curve = roc([boxes((0, 0, 9, 9, 0.9), (*FACE, 0.8), (*low, 0.7))], [photo(UPRIGHT, second)])
    assert curve.false.tolist() == [1, 1, 2]
    assert curve.discrete.tolist() == [0, 0.5, 0.5]
    assert curve.continuous == pytest.approx([0, math.pi / 8, math.pi / 8 + weak / 2], abs=1e-3)
    assert curve.at(1) == (0.5, pytest.approx(math.pi / 8, abs=1e-3))
    assert curve.at(0) == (0.0, 0.0)


def test_of_two_boxes_on_a_face_one_is_false() -> None:
    curve = roc([boxes((*FACE, 0.9), (*FACE, 0.8))], [photo(UPRIGHT)])
    assert curve.false.tolist() == [0, 1]
    assert curve.discrete.tolist() == [1, 1]


def test_a_better_box_that_comes_later_takes_the_face_over() -> None:
    loose = (65.0, 55.0, 135.0, 145.0)
    curve = roc([boxes((*loose, 0.9), (*FACE, 0.8))], [photo(UPRIGHT)])
    assert curve.continuous[1] > curve.continuous[0]
    assert curve.false.tolist() == [0, 1]


def test_figures_of_all_folds_and_files_for_the_official_program(tmp_path: Path) -> None:
    photos = read_fddb(sample(tmp_path))
    found = [boxes((30, 30, 90, 110, 0.9)) if p.fold != 3 else Detections.empty() for p in photos]
    figures, _ = summary(found, photos)
    assert figures["faces"] == 20
    assert figures["discrete_continuous_at_false"]["2000"][0] == pytest.approx(9 / 20)
    assert figures["folds"]["3"] == [0, 0]
    assert figures["folds"]["1"][0] == 0.5
    write_results(found, photos, tmp_path / "out")
    assert (tmp_path / "out/fold-01-out.txt").read_text().splitlines() == [
        "2002/08/11/big/img_1", "1", "30.00 30.00 60.00 80.00 0.90000",
    ]  # fmt: skip
    assert (tmp_path / "out/fold-03-out.txt").read_text().splitlines() == ["2002/08/11/big/img_3", "0"]
