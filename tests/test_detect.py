from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import pytest

from engines.detector import Detector, DetectorOptions
from engines.letterbox import ImageView
from engines.types import Detections
from pipeline.config import read
from pipeline.detect import EAGER, SELDOM, Eye
from pipeline.types import Frame

PICTURE = av.VideoFrame(64, 32, "yuv420p")


class Nobody(Detector):
    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        return [Detections.none()]


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


def test_a_fixed_cadence_is_not_changed() -> None:
    assert looks(2, 6, motion=9.0) == [0, 2, 4]
