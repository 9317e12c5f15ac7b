from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pytest
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.pipeline.config import read
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.chain import FacePipeline
from facestream.pipeline.stages.types import AnalysedFrame, Scope
from facestream.pipeline.types import BoxKind, BoxState, Frame, TrackedFrame
from facestream.pipeline.video.planes import planes

from tests.mark import Stripes, striped

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
            return [Detections.empty()]
        return [Detections(TWO, np.full(2, 0.9, np.float32))]


def picture(dark: bool) -> av.VideoFrame:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 4, (120, 160, 3)) if dark else rng.integers(60, 200, (120, 160, 3))
    return av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format="rgb24").reformat(format="yuv420p")


def through(policy: str, dark: range = range(0), fault: range = range(0), count: int = 150) -> list[TrackedFrame]:
    line = FacePipeline(Sees(fault), read(None, {"tracker.when_blind": policy, "tracker.lookahead": 0}))
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


@pytest.mark.parametrize("coast_s", [0.1, 0.3])
def test_faces_are_held_however_short_a_missing_one_is_covered(coast_s: float) -> None:
    settings = {"tracker.lookahead": 0, "tracker.coast_s": coast_s, "detector.every": 1}
    line = FacePipeline(Sees(range(60, 120)), read(None, settings))
    out = [d for i in range(130) for d in line.push(Frame(i, i, Fraction(1, 30), picture(False)))]
    assert all(len(t.boxes) == 2 for t in out)


def test_faces_that_move_go_on_for_a_moment_when_all_are_lost() -> None:
    """Eight frames of a detector's fault: held where they were seen last, faces that walk would be open by the end."""
    detector = Sees()
    line = FacePipeline(detector, read(None, {"tracker.lookahead": 0, "tracker.motion": False}))
    count = 0

    def walking(images: Sequence[ImageView]) -> list[Detections]:
        nonlocal count
        count += 1
        if 30 <= count - 1 < 38:
            return [Detections.empty()]
        return [Detections(TWO + np.float32([1, 0, 1, 0]) * count, np.full(2, 0.9, np.float32))]

    detector.detect = walking  # type: ignore[method-assign, assignment]
    out = [d for i in range(40) for d in line.push(Frame(i, i, Fraction(1, 30), picture(False)))]
    for i in range(30, 38):
        for box in TWO + np.float32([1, 0, 1, 0]) * (i + 1):
            assert any(abs(sum(b.xyxy[::2]) / 2 - (box[0] + box[2]) / 2) < 2 for b in out[i].boxes)


def test_after_a_hold_crops_are_looked_for_where_faces_are() -> None:
    """The clock of the tracks stood still meanwhile, for two seconds: the prediction goes by that clock."""
    detector = Sees()
    settings = {"tracker.lookahead": 0, "tracker.motion": False, "detector.every": 1}
    line = FacePipeline(detector, read(None, settings))
    lost = range(20, 80)
    count = 0

    def at(number: int) -> np.ndarray:
        """Walking, but for the time in which nobody sees them."""
        walked = min(number, lost[0]) + max(0, number - lost[-1])
        return TWO + np.float32([1, 0, 1, 0]) * walked

    def walking(images: Sequence[ImageView]) -> list[Detections]:
        nonlocal count
        count += 1
        if count - 1 in lost:
            return [Detections.empty()]
        return [Detections(at(count - 1), np.full(2, 0.9, np.float32))]

    detector.detect = walking  # type: ignore[method-assign, assignment]
    for i in range(95):
        line.push(Frame(i, i, Fraction(1, 30), picture(False)))
    coming = Frame(95, 95, Fraction(1, 30), picture(False))
    predicted = line.tracking.summary(AnalysedFrame(coming, np.zeros((120, 160), np.uint8))).predict()
    middles = sorted((box[0] + box[2]) / 2 for box in predicted)
    assert middles == pytest.approx(sorted((box[0] + box[2]) / 2 for box in at(95)), abs=2)


@pytest.mark.parametrize("score", [0.4, 0.6])
def test_a_coarse_look_that_finds_nobody_is_no_fault(score: float) -> None:
    """Faces too small for it are not gone all at once, sure ones or not; they stay until a fine look."""
    settings = {"detector.size": (160, 128), "detector.full_frame_interval": 8, "tracker.when_blind": "cover-all"}
    detector = Sees()
    scores = {"tracker.confirm_score": score, "tracker.confirm_probability": 0.5}
    line = FacePipeline(detector, read(None, settings | scores))

    def small(images: Sequence[ImageView]) -> list[Detections]:
        full = images[0].rgb.shape[1] == 160
        looks.append(full)
        return [Detections(four, np.full(4, 0.55, np.float32)) if full else Detections.empty()]

    looks: list[bool] = []
    four = np.concatenate([TWO, TWO + np.float32([0, 50, 0, 50])])
    detector.detect = small  # type: ignore[method-assign, assignment]
    out = [d for i in range(60) for d in line.push(Frame(i, i, Fraction(1, 30), picture(False)))] + line.flush()
    assert not all(looks)
    assert {b.id for t in out for b in t.boxes} == {1, 2, 3, 4}
    assert all(len(t.boxes) == 4 for t in out[:57])


def test_the_whole_picture_can_be_covered_instead() -> None:
    out = through("cover-all", dark=range(60, 70), count=75)
    cover = Anonymizer(read(None, {"cover.hide": "solid", "cover.shape": "ellipse", "cover.scale": 1.0}).cover)
    for i in (59, 61, 69, 72):
        grey = (planes(cover.cover(out[i]).picture)[0].pixels == 128).mean()
        assert (grey == 1.0) == (i in range(60, 70))


def test_people_who_leave_one_by_one_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Sees()
    line = FacePipeline(detector, read(None, {"tracker.lookahead": 0}))

    def alone(images: Sequence[ImageView]) -> list[Detections]:
        detector.count += 1
        seen = detector.count
        n = 2 if seen < 60 else 1 if seen < 90 else 0
        return [Detections(TWO[:n], np.full(n, 0.9, np.float32))]

    monkeypatch.setattr(detector, "detect", alone)
    out = [d for i in range(140) for d in line.push(Frame(i, i, Fraction(1, 30), picture(False)))]
    assert not out[130].boxes


class Random(Sees):
    """Other boxes each time, with any score."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = np.random.default_rng(seed)
        self.said: list[np.ndarray] = []

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        count = int(self.random.integers(0, 6))
        corner = self.random.uniform(-10, 140, (count, 2))
        boxes = np.concatenate([corner, corner + self.random.uniform(3, 60, (count, 2))], 1).astype(np.float32)
        scores = self.random.uniform(0.15, 1, count).astype(np.float32)
        self.said.append(boxes[scores >= 0.34])  # the most that is asked of a box
        return [Detections(boxes, scores)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lag", [0, 4])
def test_nothing_that_the_detector_says_is_left_uncovered(seed: int, lag: int) -> None:
    """Through pans, cuts and darkness: no box of the threshold's score or more."""
    detector = Random(seed)
    line = FacePipeline(detector, read(None, {"tracker.lookahead": lag, "detector.every": 1}))
    rng = np.random.default_rng(seed)
    scene, out = rng.integers(0, 255, (40, 200)), []
    for i in range(60):
        if rng.random() < 0.1:
            scene = rng.integers(0, 255, (40, 200)) * rng.integers(0, 2)
        luma = np.repeat(np.repeat(np.roll(scene, 2 * i, 1)[:30, :40], 4, 0), 4, 1).astype(np.uint8)
        shown = av.VideoFrame.from_ndarray(luma, format="gray").reformat(format="yuv420p")
        out += line.push(Frame(i, i, Fraction(1, 30), shown))
    out += line.flush()
    assert len(out) == len(detector.said) == 60
    for tracked, said in zip(out, detector.said, strict=True):
        covers = np.array([b.xyxy for b in tracked.boxes]).reshape(-1, 4)
        for box in said:
            inside = (covers[:, :2] <= box[:2] + 0.01).all(1) & (covers[:, 2:] >= box[2:] - 0.01).all(1)
            assert inside.any()


def still(seed: int, shift: int = 0) -> av.VideoFrame:
    """A textured picture, seen `shift` pixels further to the right."""
    rough = np.random.default_rng(seed).integers(20, 230, (15, 60)).astype(np.uint8)
    wide = cv2.resize(rough, (1200, 300), interpolation=cv2.INTER_CUBIC)
    rgb = np.repeat(wide[:240, 300 + shift : 620 + shift, None], 3, 2)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format="yuv420p")


class ScriptedDetector(Sees):
    """What is put into `now`."""

    now: np.ndarray
    score = 0.9

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        self.count += 1
        return [Detections(self.now.astype(np.float32), np.full(len(self.now), self.score, np.float32))]


def test_a_cut_ends_the_tracks() -> None:
    detector = ScriptedDetector()
    detector.now = np.array([[100, 60, 140, 110]])
    line = FacePipeline(detector, read(None, {"tracker.lookahead": 2, "detector.full_frame_interval": 1}))
    out = [t for i in range(20) for t in line.push(Frame(i, i, Fraction(1, 30), still(int(i >= 10))))] + line.flush()
    assert [[b.id for b in t.boxes] for t in out] == [[1]] * 10 + [[2]] * 10


def test_a_face_at_the_edge_is_covered_beyond_it_and_until_it_is_gone() -> None:
    detector = ScriptedDetector()
    line = FacePipeline(detector, read(None, {"tracker.lookahead": 0, "tracker.motion": False}))
    out = []
    for i in range(12):
        left = 290 + 4 * i  # 320 is the edge
        detector.now = np.array([[left, 60, 320, 100]]) if left < 314 else np.zeros((0, 4))
        out += line.push(Frame(i, i, Fraction(1, 30), still(1)))
    (cut,) = out[5].boxes
    assert cut.xyxy[2] >= cut.xyxy[0] + 0.65 * 40 > 320
    assert [b.state for b in out[6].boxes] == [BoxState.COASTED]  # hidden from the detector, with its middle outside
    assert out[6].boxes[0].xyxy[0] < 320


@pytest.mark.parametrize("follows", [True, False])
def test_the_camera_is_followed_when_that_is_asked_for(follows: bool) -> None:
    """Faces of 12 px in a picture that jumps by up to 24."""
    detector, rng = ScriptedDetector(), np.random.default_rng(0)
    line = FacePipeline(detector, read(None, {"tracker.lookahead": 0, "tracker.motion": follows}))
    ids: set[int] = set()
    for i in range(20):
        shift = int(rng.integers(-12, 13)) if i else 0
        detector.now = np.array([[x - shift, y, x - shift + 12, y + 12] for x, y in ((100, 60), (124, 80), (160, 70))])
        (done,) = line.push(Frame(i, i, Fraction(1, 30), still(1, shift)))
        ids |= {b.id for b in done.boxes if b.state is BoxState.OBSERVED}
    assert (ids == {1, 2, 3}) == follows


def test_what_leaves_is_rounded_as_records_hold_it() -> None:
    detector = ScriptedDetector()
    detector.now = np.array([[100.123, 60.456, 140.789, 110.001]])
    line = FacePipeline(detector, read(None, {"tracker.lookahead": 1}))
    line.push(Frame(0, 0, Fraction(1, 30), still(1)))
    for done in (line.push(Frame(1, 1, Fraction(1, 30), still(1))), line.flush()):
        (box,) = done[0].boxes
        assert box.xyxy == tuple(round(v, 2) for v in box.xyxy)
        assert box.score == 0.9  # and not float32's 0.8999999761581421


def test_calm_faces_are_looked_at_seldom_and_a_new_scene_at_once() -> None:
    """`auto`: every second frame while nothing moves; five in a row after a cut at frame 31."""
    detector = Sees()
    line = FacePipeline(detector, read(None, {"detector.every": "auto", "detector.full_frame_interval": 1}))
    looks = []
    for i in range(45):
        before = detector.count
        line.push(Frame(i, i, Fraction(1, 30), still(int(i >= 31))))
        looks += [i] * (detector.count - before)
    assert len(looks) < 29
    assert {31, 32, 33, 34, 35} <= set(looks)
    assert not {29, 30} <= set(looks)


@pytest.mark.parametrize(
    ("missed", "score", "looks"),
    [
        ((), 0.9, [0, 1, 3, 5, 7, 9, 11]),  # the first frame's faces are new
        ((5,), 0.9, [0, 1, 3, 5, 6, 7, 9, 11]),  # missing at 5, back at 6
        ((5, 6), 0.9, [0, 1, 3, 5, 6, 8, 9, 11]),  # missing at 5, still at 6, back at 8
        ((5,), 0.3, [0, 2, 4, 6, 8, 10]),  # never sure
    ],
)
def test_the_next_frame_too_is_looked_at_when_a_face_is_new_or_missing(
    missed: tuple[int, ...], score: float, looks: list[int]
) -> None:
    detector = ScriptedDetector()
    detector.score = score
    line = FacePipeline(detector, read(None, {"detector.full_frame_interval": 1}))
    seen = []
    for i in range(12):
        detector.now = np.zeros((0, 4)) if i in missed else TWO
        before = detector.count
        line.push(Frame(i, i, Fraction(1, 30), still(1)))
        seen += [i] * (detector.count - before)
    assert seen == looks


def test_guesses_are_no_longer_than_asked_for() -> None:
    """The tracker remembers faces for seconds on a first pass, which are not all covered."""
    detector = ScriptedDetector()
    line = FacePipeline(
        detector, read(None, {"tracker.lookahead": 0, "tracker.coast_s": 2.0, "tracker.motion": False}), 0.31
    )
    other = np.array([[20, 20, 60, 70]])
    both = np.array([[20, 20, 60, 70], [100, 60, 140, 110]])
    boxes = []
    for i in range(40):
        detector.now = both if i < 10 else other
        (done,) = line.push(Frame(i, i, Fraction(1, 30), still(1)))
        boxes.append(len(done.boxes))
    assert boxes == [2] * 19 + [1] * 21


def test_frames_without_a_time_are_taken_as_they_come() -> None:
    detector = ScriptedDetector()
    detector.now = TWO
    line = FacePipeline(detector, read(None, {"tracker.lookahead": 0}))
    out = [t for i in range(5) for t in line.push(Frame(i, i if i < 2 else None, Fraction(1, 30), picture(False)))]
    assert [len(t.boxes) for t in out] == [2] * 5


@pytest.mark.parametrize("cut", [None, 14])
def test_who_comes_in_just_before_a_scene_ends_is_found(cut: int | None) -> None:
    """Frames 8, 12 and 16 are looked at as a whole; the scene ends with 13, by a cut or with the video."""
    line = FacePipeline(Stripes(), read(None, {"detector.size": (320, 240)}))
    out = []
    for i in range(14 if cut is None else 30):
        shown = striped((100, 60, 132, 92) if i == 13 else None, (320, 240), i) if i < 14 else still(i // 100)
        out += line.push(Frame(i, i, Fraction(1, 30), shown))
    out += line.flush()
    assert [t.frame.index for t in out] == list(range(14 if cut is None else 30))
    assert any(b.xyxy[0] < 102 and b.xyxy[2] > 130 for b in out[13].boxes)


def test_frames_wait_for_as_many_others_as_asked_for() -> None:
    for live in (False, True):
        line = FacePipeline(
            Stripes(), read(None, {"tracker.lookahead": 4, "detector.full_frame_interval": 3}), live=live
        )
        left = [len(line.push(Frame(i, i, Fraction(1, 30), striped(None, (320, 240))))) for i in range(8)]
        assert left.index(1) == 4
        assert line.analyser.knows_ends is not live


def test_who_is_missing_where_he_should_be_is_looked_for_everywhere() -> None:
    """A face jumps across the picture; frames 0, 5 and 9 are looked at as a whole."""
    line = FacePipeline(Stripes(), read(None, {"detector.size": (320, 240), "tracker.motion": False}), live=True)
    scopes = []
    for i in range(9):
        box = (40, 60, 72, 92) if i < 6 else (240, 160, 272, 192)
        observed, _ = line.process(Frame(i, i, Fraction(1, 30), striped(box, (320, 240), i)))
        assert observed is not None
        scopes.append(observed.scope)
    assert scopes[7] is Scope.CROPS  # where it was
    assert scopes[8] is Scope.FULL
    assert any(b.xyxy[0] > 230 for b in line.flush()[8].boxes)


def test_frames_may_wait_without_their_pixels() -> None:
    config = read(None, {"tracker.lookahead": 4})
    kept, bare = (FacePipeline(Sees(), config, keep_pixels=keep) for keep in (True, False))
    for line in (kept, bare):
        out = [t for i in range(12) for t in line.push(Frame(i, i, Fraction(1, 30), picture(False)))] + line.flush()
        assert isinstance(out[0].frame.picture, av.VideoFrame) == (line is kept)
        assert out[0].frame.size == (160, 120)
        assert [len(t.boxes) for t in out] == [2] * 12


def test_a_cover_of_the_whole_frame_is_no_face() -> None:
    (cover,) = [b for b in through("cover-all", dark=range(60, 70), count=75)[65].boxes if b.kind is not BoxKind.FACE]
    assert (cover.kind, cover.id) == (BoxKind.WHOLE_FRAME, 0)
