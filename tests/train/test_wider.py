from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.train.data import Labelled
from facestream.train.evaluate import false_alarms, measure, misses
from facestream.train.test_scales import Scales
from facestream.train.wider import average_precision, evaluate, match, published_curve, read_validation

from tests.pack import make_pack

FACE = [0.0, 0.0, 10.0, 10.0]
FAR = [100.0, 100.0, 110.0, 110.0]
NO = np.zeros(1, bool)


def found(*rows: tuple[list[float], float]) -> Detections:
    return Detections(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4), np.array([r[1] for r in rows], np.float32)
    )


def truth(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_area_under_the_curve_by_hand() -> None:
    """Recall 0.5 at precision 1, then 1.0 at 0.5: 0.5 * 1 + 0.5 * 0.5."""
    assert average_precision(np.array([1.0, 0.5]), np.array([0.5, 1.0])) == pytest.approx(0.75)


def test_a_dip_in_precision_is_filled_from_the_right() -> None:
    assert average_precision(np.array([1.0, 0.2, 0.6]), np.array([0.2, 0.4, 1.0])) == pytest.approx(0.2 + 0.8 * 0.6)


def test_all_found_and_nothing_else_is_one() -> None:
    assert evaluate([found((FACE, 0.9), (FAR, 0.4))], [truth(FACE, FAR)], [np.zeros(2, bool)]).ap == pytest.approx(1)


def test_a_false_alarm_ranked_first_costs_half() -> None:
    assert evaluate([found((FAR, 0.9), (FACE, 0.5))], [truth(FACE)], [NO]).ap == pytest.approx(0.5)


def test_a_detection_on_an_ignored_face_counts_for_nothing() -> None:
    detections = found((FAR, 0.9), (FACE, 0.5))
    assert evaluate([detections], [truth(FACE, FAR)], [np.array([False, True])]).ap == pytest.approx(1)
    _, counts = match(detections, truth(FACE, FAR), np.array([False, True]))
    assert counts.tolist() == [False, True]


def test_a_second_detection_of_a_face_is_false() -> None:
    recalled, counts = match(found((FACE, 0.9), (FACE, 0.8)), truth(FACE), NO)
    assert recalled.tolist() == [1, 1]
    assert counts.tolist() == [True, True]


def test_a_miss_limits_recall() -> None:
    curve = evaluate([found((FACE, 0.9)), Detections.empty()], [truth(FACE), truth(FACE)], [NO, NO])
    assert curve.recall.max() == pytest.approx(0.5)
    assert curve.ap == pytest.approx(0.5)


def test_false_alarms_on_images_without_faces_count() -> None:
    empty = np.zeros(0, bool)
    assert evaluate([found((FAR, 0.9)), found((FACE, 0.5))], [truth(), truth(FACE)], [empty, NO]).ap == pytest.approx(
        0.5
    )


WIDER = Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "wider-eval"


@pytest.mark.data
@pytest.mark.parametrize(("difficulty", "ap"), [("easy", 0.919), ("medium", 0.907), ("hard", 0.814)])
def test_the_published_curves_of_ssh_give_its_published_ap(difficulty: str, ap: float) -> None:
    path = WIDER / f"wider_pr_info_SSH_{difficulty}_val.mat"
    if not path.is_file():
        pytest.skip(f"no published curves at {WIDER}")
    assert published_curve(path).ap == pytest.approx(ap, abs=0.001)


@pytest.mark.data
def test_the_official_truth_has_its_faces(tmp_path: Path) -> None:
    if not WIDER.is_dir():
        pytest.skip(f"no official truth at {WIDER}")
    (tmp_path / "wider_face_split").symlink_to(WIDER.resolve())
    sets = read_validation(tmp_path)
    assert [len(images) for images in sets.values()] == [3226] * 3
    # The counts that the evaluation code of WIDER FACE prints.
    assert [sum(int((~i.ignore).sum()) for i in images) for images in sets.values()] == [7211, 13319, 31958]
    assert sets["hard"][0].path.name.endswith(".jpg")


def test_a_folder_without_mat_files_is_read_as_one_set(tmp_path: Path) -> None:
    sets = read_validation(make_pack(tmp_path))
    assert list(sets) == ["all"]
    assert len(sets["all"]) == 4


class Truthful(Detector):
    """Says what it is told, once for each image."""

    def __init__(self, answers: list[Detections]) -> None:
        super().__init__(DetectorOptions())
        self.answers = answers

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        return [self.answers.pop(0)]


def test_missing_images_are_left_out_with_their_faces(tmp_path: Path) -> None:
    sets = read_validation(make_pack(tmp_path))
    sets["all"][1].path.unlink()
    rest = [sets["all"][i] for i in (0, 2, 3)]
    answers = [Detections(i.xyxy, np.full(len(i.xyxy), 0.9, np.float32)) for i in rest]
    answers[2] = Detections.empty()
    result, _, _ = measure(Truthful(answers), sets, Scales(), 0.5)
    lost = len(rest[2].xyxy)
    assert (result["images"], result["missing"]) == (3, 1)
    assert result["faces"] == sum(len(i.xyxy) for i in rest)
    assert result["ap"]["all"] == pytest.approx(1 - lost / result["faces"], abs=1e-4)
    assert result["miss_rate"]["all"] == pytest.approx(lost / result["faces"], abs=1e-4)


def test_false_alarms_touch_neither_faces_nor_ignored_ones() -> None:
    item = Labelled(Path("x"), np.array([FACE, FAR], np.float32), np.array([False, True]))
    beside = (FACE[0] + 200.0, FACE[1] + 200.0, FACE[2] + 200.0, FACE[3] + 200.0)
    detections = found((FACE, 0.9), (FAR, 0.8), (beside, 0.7), (beside, 0.1))
    assert false_alarms([detections, Detections.empty()], [item, item], 0.5) == 0.5


def test_a_zoomed_picture_has_smaller_faces_and_boxes_in_its_own_pixels() -> None:
    """`Eyes` sees the size of what it is shown and finds its left half."""

    class Eyes(Detector):
        def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.shown = images.shape[1:3]
            return np.array([[[0, 0, 32, 32]]], np.float32), np.ones((1, 1), np.float32)

    eyes = Eyes(DetectorOptions())
    half = Scales(zoom=0.5).detect(eyes, np.zeros((128, 192, 3), np.uint8))
    assert eyes.shown == (64, 96)
    assert half.xyxy.tolist() == [[0, 0, 64, 64]]
    item = Labelled(Path("x"), np.array([[0, 0, 40, 40]], np.float32), np.array([False]))
    assert misses([Detections.empty()], [item], 0.5, 0.5) == {"all": 1.0, "16-32": 1.0, "10-32": 1.0}
    assert misses([Detections.empty()], [item], 0.5, 1.0) == {"all": 1.0, "32-64": 1.0}


def test_the_pyramid_looks_at_the_papers_sizes_and_merges() -> None:
    shapes: list[tuple[int, ...]] = []

    class Watching(Truthful):
        def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
            shapes.append((*images[0].rgb.shape[:2], coarsest))
            return [found((FACE, 0.5 + 0.1 * len(shapes)))]

    merged = Scales(pyramid=True).detect(Watching([]), np.zeros((300, 400, 3), np.uint8))
    assert shapes == [(500, 667, True), (800, 1067, True), (1200, 1600, True), (1600, 2133, False)]  # section 4.3
    assert merged.scores.tolist() == pytest.approx([0.9])
    shapes.clear()
    Scales(pyramid=True).detect(Watching([]), np.zeros((300, 900, 3), np.uint8))  # fitted to 800x1200 first
    assert [s[:2] for s in shapes] == [(250, 750), (400, 1200), (600, 1800), (800, 2400)]
