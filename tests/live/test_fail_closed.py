"""Fail closed: whatever the detector does, no frame leaves without a detection."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import av
import numpy as np
import pytest
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.pipeline.config import Config, read
from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient, InferenceFailed
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.fail_closed import FailClosedPipeline
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import BoxKind, Frame, TrackedFrame
from facestream.pipeline.video.picture import duplicate

from tests.conftest import picture
from tests.mark import mark
from tests.servers import until

SECRET = slice(40, 60)  # rows and columns of a mark that must never be seen


class Moody(Detector):
    """Finds the mark, unless told to raise or to hang."""

    def __init__(self) -> None:
        super().__init__(DetectorOptions())
        self.mood = ""
        self.awake = threading.Event()
        self.seen = 0
        self.sizes: list[int] = []

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        self.seen += 1
        self.sizes.append(len(images))
        if self.mood == "raise":
            raise RuntimeError("out of order")
        if self.mood == "hang":
            self.awake.wait(20)
        return [mark(image) for image in images]


def frame(index: int, size: tuple[int, int] = (160, 120)) -> Frame:
    """A grey picture with a mark of stripes."""
    gray = np.full((size[1], size[0], 3), 120, np.uint8)
    gray[SECRET, SECRET] = np.where(np.arange(20) % 2, 255, 0)[None, :, None]
    shown = av.VideoFrame.from_ndarray(gray, format="rgb24").reformat(format="yuv420p")
    shown.pts, shown.time_base = index * 3000, TICK
    return Frame(index, index * 3000, TICK, shown)


def raw(tracked: TrackedFrame) -> bool:
    """Whether the mark can be seen once the frame is covered as it is told to."""
    gray = Anonymizer(Config().cover).cover(tracked).picture.to_ndarray(format="gray")
    return bool(np.ptp(gray[SECRET, SECRET].astype(int)) > 60)


def fully_covered(tracked: TrackedFrame) -> bool:
    return any(box.xyxy[0] < 0 and box.xyxy[2] > 160 for box in tracked.boxes)


@pytest.fixture
def moody() -> Moody:
    return Moody()


def fail_closed(moody: Moody, deadline_s: float = 5.0, **settings: object) -> FailClosedPipeline:
    shared_detector = BatchingDetector(moody)
    shared_detector.start()
    flags = {"tracker.lookahead": 3, **{key.replace("__", "."): value for key, value in settings.items()}}
    return FailClosedPipeline(DetectorClient(shared_detector, deadline_s), read(None, {"detector.every": 1} | flags), 4)


def test_all_is_well(moody: Moody) -> None:
    line = fail_closed(moody)
    out = [t for n in range(20) for t in line.push(frame(n))] + line.flush()
    assert [t.frame.index for t in out] == list(range(20))
    assert not any(raw(t) or fully_covered(t) for t in out)
    assert line.counts.detector_runs == 20
    assert line.counts.fully_covered == line.counts.detector_failures == line.counts.withheld == 0


@pytest.mark.parametrize("lookahead", [0, 3])
def test_a_threshold_that_was_lowered_holds_from_the_next_frame_on(moody: Moody, lookahead: int) -> None:
    def unsure(images: Sequence[ImageView]) -> list[Detections]:
        found = Detections(np.array([[38, 38, 62, 62]], np.float32), np.array([0.15], np.float32))
        return [found.filter_by_score(moody.options.threshold) for _ in images]

    moody.detect = unsure  # type: ignore[method-assign]
    line = fail_closed(moody, tracker__lookahead=lookahead)
    before = [t for n in range(10) for t in line.push(frame(n))] + line.flush()
    line._detector.threshold = 0.1
    after = [t for n in range(10, 14) for t in line.push(frame(n))] + line.flush()
    assert all(raw(t) for t in before[:5]), "a score of 0.15 is none of a face by default"
    assert [t.frame.index for t in after] == [10, 11, 12, 13]
    assert not any(raw(t) for t in after)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("lookahead", [0, 3, 15])
def test_a_detector_that_raises_veils_all_it_did_not_see(moody: Moody, every: int, lookahead: int) -> None:
    line = fail_closed(moody, detector__every=every, tracker__lookahead=lookahead)
    out = []
    for n in range(60):
        moody.mood = "raise" if 20 <= n < 40 else ""
        out += line.push(frame(n))
        if n == 30:
            assert "out of order" in line.trouble
    out += line.flush()
    assert [t.frame.index for t in out] == list(range(60))
    assert not any(raw(t) for t in out)
    assert all(fully_covered(t) for t in out if 21 <= t.frame.index < 40)
    assert not any(fully_covered(t) for t in out if t.frame.index < 17 or 41 < t.frame.index < 58)
    assert line.trouble == ""
    assert line.counts.detector_failures >= 6
    assert line.counts.fully_covered >= 19


def test_what_is_nowhere_found_before_the_first_look_is_fully_covered(moody: Moody) -> None:
    moody.mood = "raise"
    line = fail_closed(moody)
    out = [t for n in range(10) for t in line.push(frame(n))] + line.flush()
    assert len(out) == 10
    assert all(fully_covered(t) and not raw(t) for t in out)


def test_a_detector_that_hangs_holds_up_one_frame_only(moody: Moody) -> None:
    line = fail_closed(moody, deadline_s=1.0)
    out = [t for n in range(10) for t in line.push(frame(n))]
    moody.mood = "hang"
    for n in range(10, 60):
        out += line.push(frame(n))
        if n > 15:  # no wait: it is known to hang
            assert "hangs" in line.trouble
    moody.mood = ""
    moody.awake.set()
    time.sleep(0.3)
    for n in range(60, 70):
        out += line.push(frame(n))
    out += line.flush()
    assert [t.frame.index for t in out] == list(range(70))
    assert not any(raw(t) for t in out)
    assert all(fully_covered(t) for t in out if 10 <= t.frame.index < 60)
    assert not any(fully_covered(t) for t in out if t.frame.index >= 62)


def test_a_stage_that_breaks_holds_its_frames_and_begins_anew(moody: Moody, monkeypatch: pytest.MonkeyPatch) -> None:
    from facestream.pipeline.stages.track import Tracker

    line = fail_closed(moody)
    update, broken = Tracker.update, []

    def fail(self: Tracker, *given: object, **more: object) -> object:
        if len(broken) < 1 and line.counts.frames == 11:
            broken.append(1)
            raise ZeroDivisionError("the tracker broke")
        return update(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Tracker, "update", fail)
    out, ids = [], []
    for n in range(30):
        out += line.push(frame(n))
        if n == 10:
            assert "the tracker broke" in line.trouble
    out += line.flush()
    assert line.counts.withheld == 4  # three that waited, and the one that broke it
    assert [t.frame.index for t in out] == [*range(7), *range(11, 30)]
    assert not any(raw(t) for t in out)
    ids = [{box.id for box in t.boxes} for t in out]
    assert not ids[0] & ids[-1]  # a new beginning gives new ids


def test_ids_go_on_over_restarts_and_a_cover_of_the_whole_frame_has_none(moody: Moody) -> None:
    line = fail_closed(moody)
    first = [t for n in range(8) for t in line.push(frame(n))] + line.flush()
    second = [t for n in range(8, 16) for t in line.push(frame(n))]
    moody.mood = "raise"
    second += [t for n in range(16, 24) for t in line.push(frame(n))] + line.flush()
    ids = [{box.id for t in part for box in t.boxes if box.kind is not BoxKind.WHOLE_FRAME} for part in (first, second)]
    assert min(ids[1]) > max(ids[0]) > 0
    covers = [box for t in second for box in t.boxes if box.kind is BoxKind.WHOLE_FRAME]
    assert covers
    assert {box.id for box in covers} == {0}
    moved = line._numbered(replace(covers[0], id=3, kind=BoxKind.ALTERNATE))
    assert (moved.id > 3, moved.kind) == (True, BoxKind.ALTERNATE)


def test_a_new_size_is_a_new_beginning(moody: Moody) -> None:
    line = fail_closed(moody)
    out = [t for n in range(10) for t in line.push(frame(n, (160, 120) if n < 5 else (320, 240)))] + line.flush()
    assert [t.frame.index for t in out] == list(range(10))
    assert not any(raw(t) for t in out)
    assert line.counts.resets >= 1


@pytest.mark.parametrize(("lookahead", "most_s"), [(15, 0.6), (3, 0.2)])
def test_where_frames_are_dropped_the_rest_does_not_wait_the_longer(
    moody: Moody, lookahead: int, most_s: float
) -> None:
    """Every 5th frame of a camera with 30 a second: 15 of these would be 2.5 s."""
    line, out, delays = fail_closed(moody, tracker__lookahead=lookahead), [], []
    for n in range(0, 300, 5):
        left = line.push(frame(n))
        delays += [(n - t.frame.index) / 30 for t in left]
        out += left
    assert max(delays[10:]) <= most_s + 5 / 30
    assert min(delays[10:]) >= lookahead / 30, "nor less than it is there for"
    out += line.flush()
    assert [t.frame.index for t in out] == list(range(0, 300, 5))
    assert not any(raw(t) or fully_covered(t) for t in out)


@pytest.mark.parametrize("lookahead", [3, 15])
def test_nothing_leaves_for_its_time_before_the_look_that_counts_for_it(moody: Moody, lookahead: int) -> None:
    """Looks are two thirds of a second and more apart here: longer than any look-ahead."""
    line, out, looked, failed = fail_closed(moody, tracker__lookahead=lookahead), [], [], []
    for n in range(0, 900, 10):
        moody.mood = "raise" if 400 <= n < 560 else ""
        before = line.counts.detector_runs, line.counts.detector_failures
        out += line.push(frame(n), backlog=True)
        looked += [n] * (line.counts.detector_runs - before[0])
        failed += [n] * (line.counts.detector_failures - before[1])
        assert all(t.frame.index <= max([*looked, *failed]) for t in out), "a later look comes first"
    out += line.flush()
    assert [t.frame.index for t in out] == list(range(0, 900, 10))
    assert np.diff(looked).max() >= 20
    good, again = max(n for n in looked if n < 400), min(n for n in looked if n > 400)
    assert failed
    assert {t.frame.index for t in out if fully_covered(t)} == {
        *range(good + 10, again, 10),
        *range(looked[-1] + 10, 900, 10),
    }
    assert not any(raw(t) for t in out)


def test_under_load_one_looks_more_seldom_and_covers_still(moody: Moody) -> None:
    line = fail_closed(moody)
    out = [t for n in range(0, 120, 3) for t in line.push(frame(n), backlog=True)]  # frames are dropped as well
    looks = line.counts.detector_runs
    assert 10 <= looks <= 16
    for n in range(120, 320):
        out += line.push(frame(n))
    assert line.counts.detector_runs - looks > 100  # it comes back to looking at all
    assert not any(raw(t) or fully_covered(t) for t in out)


def test_the_desk_serves_in_turn_and_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    moody = Moody()
    detect = moody.detect

    def slowly(images: Sequence[ImageView]) -> list[Detections]:
        time.sleep(0.02)  # so that all have asked again before the next ones are taken
        return detect(images)

    monkeypatch.setattr(moody, "detect", slowly)
    shared_detector = BatchingDetector(moody, batch=4)
    views = [ImageView(np.asarray(picture(0).to_ndarray(format="rgb24")), 160, 120)] * 4
    order: list[int] = []

    def submit_views(who: int) -> None:
        for _ in range(20):
            shared_detector.submit(views[who], 30)
            order.append(who)

    threads = [threading.Thread(target=submit_views, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(shared_detector._waiting) == 4)
    shared_detector.start()
    for thread in threads:
        thread.join(60)
    assert moody.sizes[0] == 4
    for who in range(4):  # after half of all answers each has about its share
        assert 5 <= order[:40].count(who) <= 15
    shared_detector.stop()
    with pytest.raises(InferenceFailed, match="stopped"):
        shared_detector.submit(views[0], 1)
    assert shared_detector.join(2)


FRAMES = int(os.environ.get("FACESTREAM_FRAMES", "2000"))  # 20000 were run once, and take a minute


def test_thousands_of_frames_of_faults_never_show_the_mark(moody: Moody, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors that raise or are late, stages that break, gaps, other sizes, load, all mixed at random."""
    from facestream.pipeline.stages.track import Tracker

    dice = np.random.default_rng(1)
    update = Tracker.update

    def fail(self: Tracker, *given: object, **more: object) -> object:
        if dice.random() < 0.005:
            raise ZeroDivisionError("the tracker broke")
        return update(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Tracker, "update", fail)
    detect = moody.detect

    def late(images: Sequence[ImageView]) -> list[Detections]:
        if dice.random() < 0.001:
            time.sleep(0.08)
        return detect(images)

    monkeypatch.setattr(moody, "detect", late)
    line = fail_closed(moody, deadline_s=0.05, detector__every=2, tracker__lookahead=5)
    out, kinds = 0, {(160, 120): [frame(0)], (320, 240): [frame(0, (320, 240))]}
    size = (160, 120)
    for n in range(FRAMES):
        if dice.random() < 0.02:
            moody.mood = "raise" if moody.mood == "" else ""
        if dice.random() < 0.002:
            size = (320, 240) if size == (160, 120) else (160, 120)
        shown = kinds[size][0].picture
        copy = duplicate(shown)
        copy.pts, copy.time_base = n * 3000, TICK
        left = line.push(Frame(n, n * 3000, TICK, copy), backlog=bool(dice.random() < 0.1))
        if dice.random() < 0.002:
            left += line.flush()
        for tracked in left:
            out += 1
            assert not raw(tracked), f"frame {tracked.frame.index} shows the mark"
    counts = line.counts
    assert counts.detector_failures > FRAMES / 20
    assert counts.withheld > FRAMES / 400
    assert counts.fully_covered > FRAMES / 7
    assert out + counts.withheld >= FRAMES - 10


@pytest.mark.parametrize("count", [37, 38, 39, 40])
def test_after_a_pause_a_camera_is_looked_at_whatever_the_load(moody: Moody, count: int) -> None:
    """Covers have ended by themselves in the meantime; and then the picture's size changes."""
    line = fail_closed(moody, detector__every=2)
    out = [t for n in range(count) for t in line.push(frame(n), backlog=True)]
    looks = line.counts.detector_runs
    out += line.push(frame(100), backlog=True)
    assert line.counts.detector_runs == looks + 1
    out += line.push(frame(101), backlog=True)
    out += [t for n in range(102, 110) for t in line.push(frame(n, (320, 240)), backlog=True)] + line.flush()
    assert [t.frame.index for t in out] == [*range(count), *range(100, 110)]
    assert not any(raw(t) for t in out)


def test_what_comes_after_the_last_look_is_fully_covered_at_the_end(moody: Moody) -> None:
    """A face may have come in that no look could find."""
    line = fail_closed(moody, detector__every=4)
    out = [t for n in range(11) for t in line.push(frame(n))] + line.flush()
    assert [t.frame.index for t in out if fully_covered(t)] == [9, 10]


def test_what_only_a_whole_picture_can_show_is_fully_covered_when_the_look_at_it_fails(moody: Moody) -> None:
    """Frames 0, 5 and 9 are looked at as a whole, known faces in between; somebody may have come in since 5."""
    line = fail_closed(moody, detector__every=2, tracker__lookahead=15)
    out = []
    for n in range(40):
        moody.mood = "raise" if n == 9 else ""  # new faces of frame 0 are looked at in 1, so 9 is the turn
        out += line.push(frame(n))
    assert line.counts.detector_failures == 1
    assert [t.frame.index for t in out if fully_covered(t)] == list(range(6, 10))
    assert not any(raw(t) for t in out)
    assert line.counts.detector_runs > 15
