"""The whole pipeline on real clips: no frame lost, none uncovered, all threads ended."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.pipeline.config import Config, read
from facestream.pipeline.errors import SinkLost
from facestream.pipeline.evaluate.leaks import LeakMeter, read_truth
from facestream.pipeline.ring import Ring
from facestream.pipeline.run import Job, run
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.chain import FacePipeline
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame

from tests.compare import looks, packets, times
from tests.conftest import render
from tests.pack import DEMO, TRUTH, demo_frames, demo_truth

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
    report = run(Job(str(DEMO), tmp_path / "out.mp4"), config, load_detector("plainS"), meter, progress=False)
    leaks = meter.result()
    assert report.frames == len(pictures(tmp_path / "out.mp4")) == 148
    assert report.lost is None
    assert leaks.leak_rate < 0.02
    assert leaks.longest_exposed_run <= 4
    assert leaks.overblur < 3
    assert report.cpu_s > 0
    assert report.peak_rss_mb > 50
    assert not threads()


@pytest.mark.parametrize(("lag", "ring"), [(0, 2), (5, 3)])
def test_frames_wait_for_exactly_the_lag_and_no_more_than_the_ring_are_held_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lag: int, ring: int
) -> None:
    """Counted: each frame that is pushed, and each that is decoded while the line is slow."""
    clip = render(tmp_path / "in.mp4", frames=30, audio=())  # sound would take places in the ring
    decoded, pushed, left, held = [0], [0], [0], [0]
    put, push = Ring.put, FacePipeline.push

    def counting_put(self: Ring[Any], item: Any) -> None:
        decoded[0] += isinstance(item, Frame)
        put(self, item)

    def counting_push(self: FacePipeline, frame: Frame) -> list[TrackedFrame]:
        pushed[0] += 1
        until = time.monotonic() + 0.5
        while decoded[0] < min(30, pushed[0] + ring + 1) and time.monotonic() < until:
            time.sleep(0.001)  # until the ring is full, and the decoder has one in its hands
        held[0] = max(held[0], decoded[0] - left[0])
        done = push(self, frame)
        assert len(done) == (pushed[0] > lag)
        left[0] += len(done)
        return done

    monkeypatch.setattr(Ring, "put", counting_put)
    monkeypatch.setattr(FacePipeline, "push", counting_push)
    config = read(None, {"tracker.lookahead": lag, "anonymize.queue": ring})
    report = run(Job(str(clip), None), config, Everywhere(), None, False)
    assert report.frames == pushed[0] == 30
    assert left[0] == 30 - lag
    # Those that wait, the ring, the one that is being looked at, and the one that the decoder cannot put yet.
    assert held[0] == lag + ring + 2


def test_covered_pixels_are_covered_in_the_file(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4")
    config = read(None, {"cover.hide": "solid", "cover.shape": "box"})
    run(Job(str(source), tmp_path / "out.mp4"), config, Everywhere(), progress=False)
    assert np.ptp(pictures(source)[5].astype(int)) > 100
    for picture in pictures(tmp_path / "out.mp4"):
        assert np.ptp(picture.astype(int)) <= 4  # one grey


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("sound.mp4", {}),
        ("ntsc.mp4", {"rate": Fraction(30000, 1001)}),
        ("turned.mp4", {"rotation": 90}),
        ("varying.mkv", {"times": [0, 33, 80, 100, 200, 233, 500, 1100], "time_base": Fraction(1, 1000), "rate": 15}),
        ("late.mp4", {"start": 45, "time_base": Fraction(1, 30)}),
    ],
)
def test_times_sound_and_rotation_come_through_the_whole_line(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    source, out = render(tmp_path / f"in-{name}", **how), tmp_path / name
    run(Job(str(source), out), Config(), Everywhere(), progress=False)
    assert times(out) == times(source)
    assert packets(out, "audio") == packets(source, "audio") != [[]]
    assert looks(out) == looks(source)
    with av.open(str(source)) as one, av.open(str(out)) as two:
        assert two.duration == pytest.approx(one.duration, abs=3000)  # microseconds


def test_faces_of_a_turned_video_are_found_and_covered_upright(tmp_path: Path) -> None:
    picked = list(range(60, 70))
    source, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 720, 1280, "yuv420p"
        stream.set_display_rotation(90)
        for rgb in demo_frames(picked):
            lying = np.ascontiguousarray(np.rot90(rgb, -1))  # players turn it back by 90 degrees counter-clockwise
            container.mux(stream.encode(av.VideoFrame.from_ndarray(lying, format="rgb24")))
        container.mux(stream.encode(None))
    truth = {i: {k: box for k, box in enumerate(demo_truth()[60 + i])} for i in range(10)}
    config = read(None, {"cover.hide": "solid"})
    meter = LeakMeter(truth, config.cover)
    run(Job(str(source), out), config, load_detector("plainS"), meter, progress=False)
    assert meter.result().leak_rate < 0.1
    x0, y0, x1, y1 = truth[5][0].astype(int)
    face = np.rot90(pictures(out)[5])[y0 + 10 : y1 - 10, x0 + 10 : x1 - 10]
    assert np.ptp(face.astype(int)) < 12


def test_without_an_output_only_the_recorder_hears(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=12)
    indices: list[int] = []

    class Ear:
        def write(self, tracked: TrackedFrame, source: str) -> None:
            indices.append(tracked.frame.index)

    run(Job(str(source), None), Config(), Everywhere(), Ear(), progress=False)
    assert indices == list(range(12))
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
    from facestream.pipeline.video.sink import FileSink

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
    run(Job(str(DEMO), None), config, load_detector("plainS"), meter, progress=False)
    assert meter.result().leak_rate < 0.06


def test_memory_stays_flat_over_many_frames(tmp_path: Path) -> None:
    """600 frames that were kept would be 200 MB."""
    source = render(tmp_path / "in.mp4", frames=900, size=(640, 360))
    seen: dict[int, int] = {}

    class Scale:
        def write(self, tracked: TrackedFrame, source: str) -> None:
            if tracked.frame.index in (300, 899):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                seen[tracked.frame.index] = pages * os.sysconf("SC_PAGE_SIZE")

    run(Job(str(source), tmp_path / "out.mp4"), read(None, FAST), Everywhere(), Scale(), progress=False)
    assert seen[899] - seen[300] < 40e6
