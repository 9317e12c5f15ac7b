from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.pipeline.config import read
from facestream.pipeline.jobs.two_pass import run_twice
from facestream.pipeline.run import Job, run
from facestream.pipeline.stages.settings import DEFAULTS
from facestream.pipeline.types import BoxState, TrackedFrame

from tests.conftest import render

EACH = {"detector.every": 1}


class Seldom(Detector):
    """Finds the same place in chosen frames only; counts the frames it sees."""

    def __init__(self, frames: set[int]) -> None:
        super().__init__(DetectorOptions())
        self.frames, self.seen = frames, 0

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        self.seen += 1
        if self.seen - 1 not in self.frames:
            return [Detections.empty()]
        return [Detections(np.array([[100, 60, 130, 90]], np.float32), np.array([0.9], np.float32))]


class Notes:
    def __init__(self) -> None:
        self.frames: list[TrackedFrame] = []

    def write(self, tracked: TrackedFrame, source: str) -> None:
        self.frames.append(tracked)


def states(path: Path, how: object, seen: set[int]) -> list[BoxState | None]:
    notes = Notes()
    how(Job(str(path), None), read(None, EACH), Seldom(seen), notes, False)  # type: ignore[operator]
    assert [t.frame.index for t in notes.frames] == list(range(len(notes.frames)))
    assert all(len(t.boxes) <= 1 for t in notes.frames)
    return [t.boxes[0].state if t.boxes else None for t in notes.frames]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return render(tmp_path / "clip.mp4", frames=150, size=(160, 120))


def test_a_gap_of_more_than_a_second_is_bridged(clip: Path) -> None:
    seen = {*range(60), *range(100, 110)}
    assert None in states(clip, run, seen)[60:100]
    twice = states(clip, run_twice, seen)
    assert set(twice[60:100]) == {BoxState.BACKFILLED}
    assert twice[:60] == [BoxState.OBSERVED] * 60


def test_what_does_not_come_back_is_not_covered_for_ever(clip: Path) -> None:
    """Its looks are followed for half a second (the background stays the same there), then 0.7 s are guessed."""
    twice = states(clip, run_twice, set(range(5)))
    assert set(twice[5:39]) == {BoxState.COASTED}
    assert set(twice[44:]) == {None}


def test_the_file_is_covered_as_the_records_say(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=12)
    config = read(
        None, {"cover.hide": "solid", "cover.shape": "box", "cover.scale": 1.0, "encode.preset": "ultrafast"} | EACH
    )
    report = run_twice(Job(str(clip), tmp_path / "out.mp4"), config, Seldom({10, 11}), None, False)
    assert report.frames == 12

    def pictures(path: Path) -> np.ndarray:
        with av.open(str(path)) as container:
            return np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)]).astype(float)

    change = np.abs(pictures(tmp_path / "out.mp4") - pictures(clip))
    assert (change[:, 65:85, 105:125].mean((1, 2)) > 15).all()  # from the first frame on
    assert change[:, :, :80].mean() < 4


def test_the_window_is_longer_than_the_bridge() -> None:
    settings = DEFAULTS.two_pass
    assert settings.lookahead >= settings.bridge_s * 60  # also at 60 frames/s
