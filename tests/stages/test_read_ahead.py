"""Frames of a file that are shown to the detector before their turn comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from facestream.engines.base import YuvDetector
from facestream.engines.boxes import F32, Array
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.config import Config, DetectorConfig
from facestream.pipeline.errors import SourceLost
from facestream.pipeline.run import Job, run
from facestream.pipeline.stages.detect import FullFrameDetector
from facestream.pipeline.stages.read_ahead import ReadAhead
from facestream.pipeline.types import Frame

from tests.conftest import render


class Levels(YuvDetector):
    """Finds one face, as far to the right as the frame is bright. Writes down what came when."""

    in_flight = GpuDetector.in_flight
    batch = 4

    def __init__(self) -> None:
        super().__init__(DetectorOptions(threshold=0.2))
        self.steps: list[Any] = []

    def infer(self, images: Array) -> tuple[F32, F32]:
        raise NotImplementedError

    def detect_yuv(self, frames: Sequence[HostFrame]) -> list[Detections]:
        self.steps.append(("alone", len(frames)))
        return self._found(frames)

    def submit(self, frames: Sequence[HostFrame]) -> Any:
        self.steps.append(("begin", len(frames)))
        return self._found(frames)

    def collect(self, pending: Any) -> list[Detections]:
        self.steps.append(("end", len(pending)))
        return list(pending)

    def _found(self, frames: Sequence[HostFrame]) -> list[Detections]:
        lefts = [float(frame.planes[0][0, 0]) for frame in frames]
        return [Detections(np.float32([[x, 0, x + 20, 20]]), np.float32([0.9])) for x in lefts]


def film(count: int) -> Iterator[Frame]:
    for i in range(count):
        picture = av.VideoFrame.from_ndarray(np.full((48, 64), 16 + i, np.uint8), format="gray").reformat(format="nv12")
        yield Frame(i, i, Fraction(1, 30), picture)


def brightness(frame: Frame) -> float:
    return float(np.frombuffer(frame.picture.planes[0], np.uint8)[0])


@pytest.mark.parametrize("count", [1, 7, 8, 40])
def test_every_frame_gets_what_was_found_in_it(count: int) -> None:
    config = DetectorConfig(size=(64, 48), every=2)
    inner = Levels()
    ahead = ReadAhead.of(inner, config)
    assert ahead is not None
    stage = FullFrameDetector(ahead, config)
    seen = 0
    for frame in ahead.items(film(count)):
        assert frame.index == seen
        seen += 1
        if frame.index % 2 == 0 or frame.index == 11:  # one that was not foreseen, as after a cut
            (box,) = stage.detect(frame, True).xyxy
            assert box[0] == pytest.approx(brightness(frame))
    assert seen == count
    alone = [n for kind, n in inner.steps if kind == "alone"]
    assert alone == ([1] if count > 11 else [])
    begun = [n for kind, n in inner.steps if kind == "begin"]
    assert sum(begun) == (count + 1) // 2
    assert max(begun) <= inner.batch


def test_the_next_batch_has_begun_before_one_is_waited_for() -> None:
    config = DetectorConfig(size=(64, 48), every=1)
    inner = Levels()
    ahead = ReadAhead.of(inner, config)
    assert ahead is not None
    stage = FullFrameDetector(ahead, config)
    for frame in ahead.items(film(16)):
        stage.detect(frame, True)
    assert inner.steps[:4] == [("begin", 4), ("begin", 4), ("begin", 4), ("end", 4)] or inner.steps[:3] == [
        ("begin", 4), ("begin", 4), ("end", 4)
    ]  # fmt: skip


def test_a_job_on_a_file_submits_batches_before_their_turn(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=17, audio=())
    inner = Levels()
    report = run(Job(str(clip), None), Config(detector=DetectorConfig(every=1)), inner, progress=False)
    assert report.frames == 17
    assert inner.steps[:3] == [("begin", 4), ("begin", 4), ("end", 4)]


def test_what_came_before_a_source_was_lost_is_let_through_first() -> None:
    def broken() -> Iterator[Any]:
        yield from film(5)
        yield "a packet"
        raise SourceLost("gone", "file")

    ahead = ReadAhead.of(Levels(), DetectorConfig(size=(64, 48)))
    assert ahead is not None
    got: list[Any] = []
    items = ahead.items(broken())
    for _ in range(6):
        got.append(next(items))  # noqa: PERF401
    with pytest.raises(SourceLost):
        next(items)
    assert [item.index if isinstance(item, Frame) else item for item in got] == [0, 1, 2, 3, 4, "a packet"]


def test_detectors_that_gain_nothing_are_left_alone() -> None:
    inner = Levels()
    inner.in_flight = 1
    assert ReadAhead.of(inner, DetectorConfig()) is None
