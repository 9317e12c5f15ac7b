from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from engines.detector import Detector, DetectorOptions
from engines.letterbox import ImageView
from engines.types import Detections
from pipeline.config import read
from pipeline.cover import Anonymizer
from pipeline.line import Line
from pipeline.planes import planes
from pipeline.types import BoxState, Frame, TrackedFrame

TWO = np.array([[20, 20, 50, 60], [90, 30, 120, 70]], np.float32)


class Sees(Detector):
    """Two faces wherever there is light; none in the frames of its fault."""

    def __init__(self, fault: range = range(0)) -> None:
        super().__init__(DetectorOptions())
        self.fault, self.count = fault, 0

    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        self.count += 1
        if images[0].rgb.mean() < 20 or self.count - 1 in self.fault:
            return [Detections.none()]
        return [Detections(TWO, np.full(2, 0.9, np.float32))]


def picture(dark: bool) -> av.VideoFrame:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 8, (120, 160, 3)) if dark else rng.integers(60, 200, (120, 160, 3))
    return av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format="rgb24").reformat(format="yuv420p")


def through(policy: str, dark: range = range(0), fault: range = range(0), count: int = 150) -> list[TrackedFrame]:
    line = Line(Sees(fault), read(None, {"tracker.blind": policy, "tracker.lookahead": 0}))
    return [
        done
        for i in range(count)
        for done in line.push(Frame(i, i, Fraction(1, 30), picture(i in dark)))
    ]  # fmt: skip


@pytest.mark.parametrize("why", ["dark", "fault"])
def test_faces_stay_covered_for_as_long_as_nothing_can_be_seen(why: str) -> None:
    """Two seconds, where a face that is merely missed is covered for 0.7."""
    held = through("hold", **{why: range(60, 120)})
    assert all(len(t.boxes) == 2 for t in held)
    assert {b.state for t in held[62:118] for b in t.boxes} == {BoxState.COASTED}
    assert {b.id for b in held[140].boxes} == {b.id for b in held[10].boxes}  # and then they are the same again
    let_go = through("continue", **{why: range(60, 120)})
    assert not let_go[110].boxes


def test_the_whole_picture_can_be_covered_instead() -> None:
    out = through("cover-all", dark=range(60, 70), count=75)
    cover = Anonymizer(read(None, {"cover.hide": "solid", "cover.shape": "ellipse", "cover.scale": 1.0}).cover)
    for i in (59, 61, 69, 72):
        grey = (planes(cover.cover(out[i]).picture)[0].pixels == 128).mean()
        assert (grey == 1.0) == (i in range(60, 70))


def test_people_who_leave_one_by_one_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(Sees(), read(None, {"tracker.lookahead": 0}))

    def alone(images: Sequence[ImageView]) -> list[Detections]:
        line.eye.detector.count += 1  # type: ignore[attr-defined]
        seen = line.eye.detector.count  # type: ignore[attr-defined]
        n = 2 if seen < 60 else 1 if seen < 90 else 0
        return [Detections(TWO[:n], np.full(n, 0.9, np.float32))]

    monkeypatch.setattr(line.eye.detector, "detect", alone)
    out = [d for i in range(140) for d in line.push(Frame(i, i, Fraction(1, 30), picture(False)))]
    assert not out[130].boxes
