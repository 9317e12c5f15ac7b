from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from facestream.engines.base import Detector, DetectorOptions, YuvDetector
from facestream.engines.letterbox import ImageView
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.config import read
from facestream.pipeline.stages.detect import EAGER, SELDOM, DetectionStage
from facestream.pipeline.types import Frame

from tests.mark import Stripes, striped

PICTURE = av.VideoFrame(64, 32, "yuv420p")


class Nobody(Detector):
    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        self.shown = images[0].rgb.shape[:2]
        return [Detections.empty()]


class OnGpu(YuvDetector):
    """As Nobody, for pictures as they are stored."""

    def __init__(self) -> None:
        super().__init__(DetectorOptions())
        self.fitted: list[tuple[int, int]] = []

    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect_yuv(self, pictures: Sequence[HostFrame]) -> list[Detections]:
        self.fitted += [picture.fitted for picture in pictures]
        return self.one(pictures)

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        self.fitted += [(image.rgb.shape[1], image.rgb.shape[0]) for image in images]
        return self.one(images)

    def one(self, pictures: Sequence[Any]) -> list[Detections]:
        return [Detections(np.array([[0, 0, 60, 60]], np.float32), np.array([0.3], np.float32))] * len(pictures)


def looks(
    every: int | str, count: int, cuts: tuple[int, ...] = (), motion: float | None = None, lag: int = 15
) -> list[int]:
    """The frames that are looked at."""
    eye = DetectionStage(Nobody(DetectorOptions()), read(None, {"detector.every": every}).detector)
    seen = []
    for i in range(count):
        if eye.look(Frame(i, i, Fraction(1, 30), PICTURE), i in cuts) is not None:
            seen.append(i)
        if motion is not None:
            eye.pace(motion, lag)
    return seen


def test_every_third_frame() -> None:
    assert looks(3, 10) == [0, 3, 6, 9]
    assert looks(1, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize(("every", "looked"), [(2, [0, 2, 3, 4, 5, 7]), (4, [0, 4])])
def test_a_frame_that_comes_late_is_looked_at_unless_few_are_to_be(every: int, looked: list[int]) -> None:
    eye = DetectionStage(Nobody(DetectorOptions()), read(None, {"detector.every": every}).detector)
    times = [0, 1, 2, 4, 6, 8, 9, 10]  # thirtieths of a second
    frames = [Frame(i, t, Fraction(1, 30), PICTURE) for i, t in enumerate(times)]
    assert [f.index for f in frames if eye.look(f) is not None] == looked


def test_after_a_cut_every_frame_for_a_while() -> None:
    assert looks(4, 16, cuts=(6,)) == [0, 4, *range(6, 6 + EAGER), 14]


@pytest.mark.parametrize(
    ("motion", "lag", "step"),
    [(0.0, 15, SELDOM), (0.05, 15, SELDOM), (0.12, 15, 2), (0.5, 15, 1), (0.0, 0, 1), (0.0, 1, 2)],
)
def test_auto_looks_more_seldom_the_calmer_the_faces_and_never_beyond_the_look_ahead(
    motion: float, lag: int, step: int
) -> None:
    seen = looks("auto", 12, motion=motion, lag=lag)
    assert {b - a for a, b in pairwise(seen)} == {step}


SIZE = (640, 320)
FACE = np.array([[200.0, 100, 232, 132]])
CROWD = np.array([[x, y, x + 40, y + 40] for x in range(0, 640, 80) for y in range(0, 320, 80)], float)


def shown(
    count: int, places: np.ndarray = FACE, cut: int = -1, again: int = -1, ends: int = -1, search: int = -1,
    lag: int = 15, step: Fraction = Fraction(1, 30), any_size: bool = True, pace: float = 0.0,
    **more: object,
) -> str:  # fmt: skip
    """What each frame is looked at: F all of it in full size, C coarsely, S a sheet, - not at all."""
    detector = Stripes()
    detector.any_size = any_size
    eye = DetectionStage(
        detector, read(None, {"detector.size": SIZE} | {f"detector.{k}": v for k, v in more.items()}).detector, lag
    )
    picture, seen = striped(None, SIZE), ""
    for i in range(count):
        eye.again = i == again
        eye.search |= i == search
        if pace:
            eye.pace(pace, lag)
        before = len(detector.shown)
        found = eye.look(Frame(i, i, step, picture), i == cut, lambda: places, i == ends)
        if len(detector.shown) == before:
            seen += "-"
            assert found is None or (not eye.fine and not eye.whole and not len(found))
            continue
        width, height, sheet = detector.shown[-1]
        kind = "S" if sheet else "F" if (width, height) == SIZE else "C"
        assert kind != "C" or (width, height) == (426, 212)
        assert (eye.fine, eye.whole) == (kind != "C", kind != "S")
        assert eye.known == i or kind == "S"
        seen += kind
    return seen


def test_known_faces_are_looked_at_on_a_sheet_between_looks_at_the_whole_picture() -> None:
    assert shown(18) == "F-S-C-S-F-S-C-S-F-"
    assert shown(6, full_frame_interval=3, every="auto") == "FSCFSC"
    assert shown(6, full_frame_interval=1) == "F-F-F-"
    assert shown(8, every=1) == "F" * 8
    assert shown(8, every=3) == "F--F--F-"


def test_where_a_sheet_would_be_larger_the_whole_picture_is_looked_at_coarsely() -> None:
    assert shown(10, CROWD) == "F-C-C-C-F-"


def test_a_detector_to_which_new_sizes_cost_much_is_shown_no_sheets() -> None:
    assert shown(10, any_size=False) == "F-C-C-C-F-"
    assert shown(10, np.zeros((0, 4)), any_size=False) == "F---C---F-"


def test_a_huge_face_is_looked_at_in_the_whole_picture() -> None:
    assert shown(10, np.array([[10.0, 10, 265, 200]])) == "F-S-C-S-F-"
    assert shown(10, np.array([[10.0, 10, 267, 200]])) == "F-C-C-C-F-"


def test_where_nobody_is_known_only_whole_pictures_are_looked_at() -> None:
    assert shown(10, np.zeros((0, 4))) == "F---C---F-"


def test_a_cut_and_an_end_are_looked_at_as_a_whole_and_a_second_opinion_comes_from_a_sheet() -> None:
    assert shown(14, cut=5) == "F-S-C" + "F" * EAGER + "-S-C"
    assert shown(10, again=3) == "F-SS-C-S-F"  # due at 8, which is not looked at
    assert shown(10, ends=3) == "F-SF-S-C-S"
    assert shown(10, search=3) == "F-S-F-S-C-"  # the next turn is at 4
    assert shown(10, ends=3, every=1) == "F" * 10
    assert shown(10, ends=5, every=3) == "F--F--F--F"


def test_whole_looks_are_at_most_half_of_the_wait_apart() -> None:
    assert shown(9, lag=5) == "F-C-F-C-F"
    assert shown(7, lag=1) == "F-F-F-F"


def test_frames_that_come_slowly_are_all_looked_at_and_as_a_whole_where_somebody_moves_or_is_missing() -> None:
    slowly = Fraction(1, 10)
    assert shown(10, step=slowly, pace=0.11) == "FCCCFCCCFC"
    assert shown(10, step=slowly, pace=0.09) == "FSSSFSSSFS"
    assert shown(10, step=slowly, again=2) == "FSCSFSSSFS"
    assert shown(10, np.zeros((0, 4)), step=slowly) == "F---F---F-"
    assert shown(10, pace=0.11) == "F-S-C-S-F-"


def test_a_whole_look_that_failed_is_still_due() -> None:
    detector = Stripes()
    eye = DetectionStage(detector, read(None, {"detector.size": SIZE}).detector)
    picture = striped(None, SIZE)
    frames = [Frame(i, i, Fraction(1, 30), picture) for i in range(12)]
    for frame in frames[:8]:
        eye.look(frame, places=lambda: FACE)

    def broken(images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        raise RuntimeError

    works, detector.detect = detector.detect, broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        eye.look(frames[8], places=lambda: FACE)
    detector.detect = works  # type: ignore[method-assign]
    assert eye.look(frames[10], places=lambda: FACE) is not None
    assert detector.shown[-1] == (*SIZE, False)


def test_what_a_sheet_shows_is_found_in_the_pictures_pixels() -> None:
    """In a picture twice as large as what the detector sees."""
    detector = Stripes()
    eye = DetectionStage(detector, read(None, {"detector.size": SIZE}).detector)
    box = (600, 300, 700, 420)
    picture = striped(box, (1280, 640))
    whole, _, there = (
        eye.look(Frame(i, i, Fraction(1, 30), picture), places=lambda: np.array([box]) + 9) for i in range(3)
    )
    assert detector.shown[-1][2]
    assert whole is not None
    assert there is not None
    for found in (whole, there):
        assert len(found) == 1
        assert np.abs(found.xyxy[0] - box).max() < 9


@pytest.mark.parametrize("layout", ["yuv420p", "yuv444p"])  # planes that it takes, and such that are a view before
def test_a_card_looks_in_full_size_only_and_large_boxes_need_more_of_a_score(layout: str) -> None:
    detector = OnGpu()
    picture = av.VideoFrame(128, 64, layout)
    for size, count in (((128, 64), 0), ((32, 32), 1)):  # 60 and 15 pixels of what the net is shown
        eye = DetectionStage(detector, read(None, {"detector.size": size}).detector)
        found = [eye.look(Frame(i, i, Fraction(1, 30), picture)) for i in range(0, 8, 2)]
        assert [len(f) for f in found if f is not None] == [count] * 4
    assert detector.fitted == [(128, 64)] * 4 + [(32, 16)] * 4


def test_a_fixed_cadence_is_not_changed() -> None:
    assert looks(2, 6, motion=9.0) == [0, 2, 4]
