from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest

from engines.detector import Detector, DetectorOptions, PlanesDetector
from engines.letterbox import ImageView
from engines.types import Detections, HostPicture
from pipeline.config import read
from pipeline.detect import EAGER, SELDOM, Eye
from pipeline.types import Frame

PICTURE = av.VideoFrame(64, 32, "yuv420p")


class Nobody(Detector):
    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        self.shown = images[0].rgb.shape[:2]
        return [Detections.none()]


class OnCard(PlanesDetector):
    """As Nobody, for pictures as they are stored."""

    def __init__(self) -> None:
        super().__init__(DetectorOptions())
        self.fitted: list[tuple[int, int]] = []

    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect_planes(self, pictures: Sequence[HostPicture]) -> list[Detections]:
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
    eye = Eye(Nobody(DetectorOptions()), read(None, {"detector.every": every}).detector)
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
    eye = Eye(Nobody(DetectorOptions()), read(None, {"detector.every": every}).detector)
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


def shown(every: int | str, fine: int, count: int, cut: int = -1, again: int = -1) -> list[tuple[int, int]]:
    """The frames that are looked at, and the height in which: 32 in full size, 20 in two thirds of it."""
    detector = Nobody(DetectorOptions())
    settings = {"detector.every": every, "detector.fine": fine, "detector.size": (64, 32)}
    eye = Eye(detector, read(None, settings).detector)
    seen = []
    for i in range(count):
        eye.again = i == again
        if eye.look(Frame(i, i, Fraction(1, 30), PICTURE), i == cut) is not None:
            assert eye.fine == (detector.shown[0] == 32)
            seen.append((i, detector.shown[0]))
    return seen


def test_looks_between_those_in_full_size_are_coarse() -> None:
    assert shown(2, 4, 10) == [(0, 32), (2, 20), (4, 32), (6, 20), (8, 32)]
    assert shown("auto", 3, 5) == [(0, 32), (1, 20), (2, 20), (3, 32), (4, 20)]
    assert shown(2, 1, 5) == [(0, 32), (2, 32), (4, 32)]
    assert {height for every in (1, 3) for _, height in shown(every, 4, 10)} == {32}


def test_a_cut_and_a_second_opinion_are_looked_at_in_full_size() -> None:
    assert shown(2, 100, 12, cut=6) == [(0, 32), (2, 20), (4, 20), *((i, 32) for i in range(6, 6 + EAGER))]
    assert shown(2, 4, 10, again=3) == [(0, 32), (2, 20), (3, 32), (5, 20), (7, 32), (9, 20)]


def test_a_fine_look_that_failed_is_still_due() -> None:
    detector = Nobody(DetectorOptions())
    eye = Eye(detector, read(None, {"detector.size": (64, 32)}).detector)
    frames = [Frame(i, i, Fraction(1, 30), PICTURE) for i in range(8)]
    for frame in frames[:4]:
        eye.look(frame)

    def broken(images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        raise RuntimeError

    works, detector.detect = detector.detect, broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        eye.look(frames[4])
    detector.detect = works  # type: ignore[method-assign]
    assert eye.look(frames[6]) is not None
    assert detector.shown[0] == 32


@pytest.mark.parametrize("layout", ["yuv420p", "yuv444p"])  # planes that it takes, and such that are a view before
def test_a_card_looks_in_full_size_only_and_large_boxes_need_more_of_a_score(layout: str) -> None:
    detector = OnCard()
    picture = av.VideoFrame(128, 64, layout)
    for size, count in (((128, 64), 0), ((32, 32), 1)):  # 60 and 15 pixels of what the net is shown
        eye = Eye(detector, read(None, {"detector.size": size}).detector)
        found = [eye.look(Frame(i, i, Fraction(1, 30), picture)) for i in range(0, 8, 2)]
        assert [len(f) for f in found if f is not None] == [count] * 4
    assert detector.fitted == [(128, 64)] * 4 + [(32, 16)] * 4


def test_a_fixed_cadence_is_not_changed() -> None:
    assert looks(2, 6, motion=9.0) == [0, 2, 4]
