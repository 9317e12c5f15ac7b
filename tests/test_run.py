"""The whole line on real clips: nothing lost, nothing raw, everything stopped."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from engines.detector import Detector, DetectorOptions, load
from engines.letterbox import ImageView
from engines.types import Detections
from pipeline.config import Config, read
from pipeline.cover import Anonymizer
from pipeline.errors import SinkLost
from pipeline.leaks import LeakMeter, read_truth
from pipeline.run import Job, run
from pipeline.types import CoveredFrame, TrackedFrame
from tests.conftest import render
from tests.pack import DEMO, TRUTH

FAST = {"encode.preset": "ultrafast", "detector.size": (640, 384)}


class Everywhere(Detector):
    """Says that the whole picture is a face: what a sink then gets must hold nothing of the source."""

    def __init__(self) -> None:
        super().__init__(DetectorOptions())

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        return [Detections(np.array([[0, 0, i.width, i.height]], np.float32), np.ones(1, np.float32)) for i in images]


class Broken(Everywhere):
    """Fails at the tenth frame."""

    seen = 0

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        self.seen += 1
        if self.seen == 10:
            raise RuntimeError("the detector broke")
        return super().detect(images)


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="gray") for f in container.decode(video=0)]


def threads() -> set[str]:
    return {t.name for t in threading.enumerate()} & {"decoder", "encoder"}


def test_the_demo_clip_comes_out_covered_with_every_frame(tmp_path: Path) -> None:
    config = read(None, FAST)
    meter = LeakMeter(read_truth(TRUTH), config.cover)
    report = run(Job(str(DEMO), tmp_path / "out.mp4"), config, load("plainS"), meter, progress=False)
    leaks = meter.result()
    assert report.frames == len(pictures(tmp_path / "out.mp4")) == 148
    assert report.lost is None
    assert leaks.leak_rate < 0.02
    assert leaks.longest_exposed_run <= 4
    assert leaks.overblur < 2.5
    assert report.cpu_s > 0
    assert report.peak_rss_mb > 50
    assert not threads()


def test_covered_pixels_are_covered_in_the_file(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4")
    config = read(None, {"cover.hide": "solid", "cover.shape": "box"})
    run(Job(str(source), tmp_path / "out.mp4"), config, Everywhere(), progress=False)
    assert np.ptp(pictures(source)[5].astype(int)) > 100
    for picture in pictures(tmp_path / "out.mp4"):
        assert np.ptp(picture.astype(int)) <= 4  # one grey


def test_without_an_output_only_the_recorder_hears(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=12)
    heard: list[int] = []

    class Ear:
        def write(self, tracked: TrackedFrame, source: str) -> None:
            heard.append(tracked.frame.index)

    run(Job(str(source), None), Config(), Everywhere(), Ear(), progress=False)
    assert heard == list(range(12))
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("lag", [0, 1, 15, 100])
def test_any_look_ahead_delivers_every_frame_once(tmp_path: Path, lag: int) -> None:
    source = render(tmp_path / "in.mp4", frames=20)
    report = run(
        Job(str(source), tmp_path / "out.mp4"), read(None, {"tracker.lookahead": lag}), Everywhere(), progress=False
    )
    assert report.frames == len(pictures(tmp_path / "out.mp4")) == 20


def test_a_detector_that_breaks_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4")
    with pytest.raises(RuntimeError, match="the detector broke"):
        run(Job(str(source), tmp_path / "out.mp4"), Config(), Broken(), progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]
    assert not threads()


def test_a_cover_that_breaks_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = render(tmp_path / "in.mp4")

    def refuse(self: Anonymizer, tracked: TrackedFrame) -> CoveredFrame:
        raise RuntimeError("the cover broke")

    monkeypatch.setattr(Anonymizer, "cover", refuse)
    with pytest.raises(RuntimeError, match="the cover broke"):
        run(Job(str(source), tmp_path / "out.mp4"), Config(), Everywhere(), progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_sink_that_breaks_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.sink import FileSink

    source = render(tmp_path / "in.mp4", frames=60)
    write, count = FileSink.write, []

    def full(self: FileSink, covered: CoveredFrame) -> None:
        count.append(1)
        if len(count) == 5:
            raise SinkLost("the disk is full", "out.mp4")
        write(self, covered)

    monkeypatch.setattr(FileSink, "write", full)
    with pytest.raises(SinkLost, match="the disk is full"):
        run(Job(str(source), tmp_path / "out.mp4"), Config(), Everywhere(), progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]
    assert not threads()


def test_detecting_every_third_frame_still_covers_the_demo(tmp_path: Path) -> None:
    config = read(None, {**FAST, "detector.every": 3})
    meter = LeakMeter(read_truth(TRUTH), config.cover)
    run(Job(str(DEMO), None), config, load("plainS"), meter, progress=False)
    assert meter.result().leak_rate < 0.06
