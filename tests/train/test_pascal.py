from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadInput
from facestream.engines.types import Detections
from facestream.train.pascal import read_faces, voc_curve


def cells(items: list) -> np.ndarray:
    out = np.empty((len(items), 1), object)
    for i, item in enumerate(items):
        out[i, 0] = item
    return out


def structs(*rows: tuple[str, list[list[float]]]) -> np.ndarray:
    """A Matlab struct array with imgname and objects, as both published files have it."""
    out = np.empty((len(rows), 1), [("imgname", object), ("objects", object)])
    for i, (name, boxes) in enumerate(rows):
        out[i, 0] = (name, np.asarray(boxes, np.float64))
    return out


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((50, 80, 3), np.uint8))


def test_pascal_faces_as_published(tmp_path: Path) -> None:
    rows = ("2007_000032.jpg", [[10, 10, 30, 40], [40, 5, 60, 25]]), ("2008_000008.jpg", [[1, 2, 21, 22, 0, 1]])
    savemat(tmp_path / "Annotations_Face_PASCALLayout_large_fixed.mat", {"Annotations": structs(*rows)})
    picture(tmp_path / "images" / "2007_000032.jpg")
    one, two = read_faces(tmp_path, "pascal")
    assert one.path == tmp_path / "images" / "2007_000032.jpg"
    assert one.xyxy.tolist() == [[10, 10, 30, 40], [40, 5, 60, 25]]
    assert one.ignore.tolist() == [False, False]
    assert two.ignore.tolist() == [True]  # the sixth column
    assert not two.path.exists()


def test_afw_as_its_authors_have_it(tmp_path: Path) -> None:
    """A cell array: name, cells of [[x1 y1] [x2 y2]], pose, points."""
    boxes = np.empty((1, 2), object)
    boxes[0, 0], boxes[0, 1] = np.array([[5.0, 6], [25, 26]]), np.array([[40.0, 10], [70, 45]])
    row = np.empty((1, 4), object)
    row[0, 0], row[0, 1], row[0, 2], row[0, 3] = "134212.jpg", boxes, np.zeros((1, 3)), np.zeros((6, 2))
    savemat(tmp_path / "anno.mat", {"anno": row})
    picture(tmp_path / "testimages" / "134212.jpg")
    (one,) = read_faces(tmp_path, "afw")
    assert one.xyxy.tolist() == [[5, 6, 25, 26], [40, 10, 70, 45]]
    assert one.path.is_file()
    rows = ("134212.jpg", [[5, 6, 25, 26, 0, 0], [1, 1, 4, 4, 0, 1]])
    savemat(tmp_path / "new_annotations_AFW.mat", {"Annotations": structs(rows)})
    (again,) = read_faces(tmp_path, "afw")  # the newer file, where both are
    assert again.ignore.tolist() == [False, True]


def test_what_is_missing_or_of_another_form_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="PASCALLayout"):
        read_faces(tmp_path, "pascal")
    savemat(tmp_path / "anno.mat", {"other": np.zeros(3)})
    with pytest.raises(BadInput, match=r"anno\.mat"):
        read_faces(tmp_path, "afw")


FACE, FAR = [0.0, 0, 10, 10], [100.0, 100, 110, 110]


def found(*rows: tuple[list[float], float]) -> Detections:
    return Detections(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4), np.array([r[1] for r in rows], np.float32)
    )


def test_vocs_average_precision_by_hand() -> None:
    """Right, wrong (a second box), right, over two images: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""
    detections = [found((FACE, 0.9), (FACE, 0.8)), found((FACE, 0.7))]
    truth = [np.array([FACE], np.float32)] * 2
    curve = voc_curve(detections, truth, [np.zeros(1, bool)] * 2)
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.recall.tolist() == pytest.approx([1 / 2, 1 / 2, 1])
    assert curve.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_detections_on_ignored_faces_count_for_nothing() -> None:
    truth, ignore = [np.array([FACE, FAR], np.float32)], [np.array([False, True])]
    assert voc_curve([found((FAR, 0.9), (FAR, 0.85), (FACE, 0.5))], truth, ignore).ap == pytest.approx(1)
    assert voc_curve([Detections.empty()], truth, ignore).ap == 0
