"""The list of moments, the estimate, following a box, and the commands that print them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.pipeline.review.edits import Boxes, LeaveOpen, Mask
from facestream.pipeline.review.estimate import estimate, percent
from facestream.pipeline.review.following import follow_both_ways
from facestream.pipeline.review.risk import RiskIndex, covered_share
from facestream.pipeline.review.scout import Notes, SecondDetection, stride_of
from facestream.pipeline.types import XYXY, Frame

from tests.conftest import facestream, render
from tests.review.test_document import document, face, still

SIZE = (640, 360)
HERE: XYXY = (400.0, 100.0, 430.0, 136.0)


def notes(*frames: int, box: XYXY = HERE, score: float = 0.8) -> Notes:
    """A second detector at every fifth frame, which sees one more face in these, and the known one always."""
    known = SecondDetection(face(1, 100).xyxy, 0.9)
    second = {n: (known, SecondDetection(box, score)) if n in frames else (known,) for n in range(0, 100, 5)}
    return Notes(second=second)


def test_what_the_second_look_sees_uncovered_comes_first_and_goes_when_it_is_mended() -> None:
    made = document(still(1, 100, 0, 99), still(2, 250, 30, 60), frames=100)
    index = RiskIndex(made, notes(40, 45, 50), SIZE)
    first = index.moments()[0]
    assert first.why[0] == "missed"
    assert first.frame in (40, 45, 50)
    assert first.start <= 40
    assert first.end >= 50
    assert first.box == HERE
    kinds = {kind for m in index.moments() for kind in m.why}
    assert {"before", "after"} <= kinds  # track 2 comes and goes inside the picture
    index.refresh(made.apply(Boxes(track=3, frame=45, boxes=tuple((n, HERE) for n in range(35, 56)), drawn=True)))
    assert all("missed" not in m.why for m in index.moments())
    step = made.undo()
    assert step is not None
    index.refresh(step)
    assert index.moments()[0].key == first.key
    index.refresh(made.apply(Mask(label=1, start=0, end=99, points=((390, 90), (440, 150)))))
    assert all("missed" not in m.why for m in index.moments())


def test_who_is_left_open_is_no_moment() -> None:
    made = document(still(1, 100, 0, 99), frames=100)
    index = RiskIndex(made, notes(), SIZE)
    index.refresh(made.apply(LeaveOpen(tracks=(1,), start=0, end=99, reason="consent")))
    assert not index.open_faces()[50]


@pytest.mark.parametrize(
    ("face_", "cover", "share"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((0, 0, 10, 10), (5, -50, 60, 60), 0.5),
    ],
)
def test_covered_share(face_: XYXY, cover: XYXY, share: float) -> None:
    assert covered_share(np.array(face_, float), np.array([cover], float)) == pytest.approx(share, abs=0.06)
    corners = np.array([[0, -99], [5, -99], [5, 99], [0, 99]])
    assert covered_share(np.array([0.0, 0, 10, 10]), np.zeros((0, 4)), [corners]) == pytest.approx(0.5, abs=0.06)


def test_the_estimate_rises_with_what_is_seen_uncovered_and_narrows_with_looks() -> None:
    def of(frames: int, *open_: int) -> tuple[float, float, float]:
        made = document(still(1, 100, 0, frames - 1), frames=frames)
        known = SecondDetection(face(1, 100).xyxy, 0.9)
        second = {n: (known, SecondDetection(HERE, 0.9)) if n in open_ else (known,) for n in range(0, frames, 5)}
        index = RiskIndex(made, Notes(second=second), SIZE)
        e = estimate(made, index.notes, index.open_faces())
        assert e.low <= e.share <= e.high
        return e.low, e.share, e.high

    assert of(100)[1] == 0
    assert of(100, 50)[1] < of(100, 50, 55, 60)[1]
    assert of(2000)[2] < of(100)[2] / 5
    low, share, high = of(2000, *range(0, 2000, 50))  # 40 of 440 face-frames
    assert low < 40 / 440 < high
    assert share == pytest.approx(40 / 440, rel=0.6)


def test_percent() -> None:
    assert [percent(v) for v in (0, 0.0004, 0.003, 0.0312, 0.25)] == ["0.0", "0.04", "0.3", "3.1", "25"]


def test_the_second_look_is_at_enough_frames_of_a_short_clip_and_at_no_more_of_a_long_one() -> None:
    assert 48 // stride_of(48, 30.0) >= 20
    assert stride_of(1000, 30.0) == 15
    assert 10_000_000 // stride_of(10_000_000, 30.0) <= 2500


def moving(frames: int, cut: int | None = None) -> list[Frame]:
    """A textured patch of 40 x 40 px that moves 3 px a frame over a textured ground; another scene from `cut` on."""
    rng = np.random.default_rng(3)
    ground = np.repeat(np.repeat(rng.integers(60, 120, (36, 64, 3), np.uint8), 10, 0), 10, 1)
    other = np.repeat(np.repeat(rng.integers(0, 255, (9, 16, 3), np.uint8), 40, 0), 40, 1)
    patch = np.repeat(np.repeat(rng.integers(0, 256, (10, 10, 3), np.uint8), 4, 0), 4, 1)
    out = []
    for n in range(frames):
        rgb = ground.copy()
        rgb[150:190, 40 + 3 * n : 80 + 3 * n] = patch
        if cut is not None and n >= cut:
            rgb = other.copy()
        out.append(
            Frame(n, n, Fraction(1, 25), av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p"))
        )
    return out


def test_a_box_is_followed_both_ways_and_not_over_a_cut() -> None:
    film = moving(60, cut=50)
    start = 25
    places = follow_both_ways(film.__getitem__, 60, start, (115.0, 150, 155, 190), 25.0)
    assert sorted(places) == list(range(50))
    for n, box in places.items():
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        assert middle == (pytest.approx(60 + 3 * n, abs=6), pytest.approx(170, abs=6)), n
        assert box[2] - box[0] >= 38


def test_following_ends_where_the_tracks_own_box_is_right() -> None:
    film = moving(50)
    own = {n: (40.0 + 3 * n, 150.0, 80.0 + 3 * n, 190.0) for n in range(50) if abs(n - 25) > 5}
    places = follow_both_ways(film.__getitem__, 50, 25, (115.0, 150, 155, 190), 25.0, own.get)
    assert sorted(places) == list(range(20, 31))


def test_list_and_report_of_the_commands(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4")
    listed = facestream("review", clip, "--list", "--json", "--quiet")
    assert listed.returncode == 0, listed.stderr
    body = json.loads(listed.stdout.splitlines()[-1])
    assert set(body) == {"moments", "estimate"}
    assert body["estimate"]["frames"] >= 20
    assert "of face-frames may be visible" in listed.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4"]
    done = facestream("anonymize", clip, "-o", tmp_path / "out.mp4", "--report", "--quiet")
    assert done.returncode == 0, done.stderr
    report = tmp_path / "out.mp4.report.html"
    assert "of face-frames may be visible" in report.read_text()
    again = facestream("anonymize", clip, "-o", tmp_path / "other.mp4", "--report", "--quiet")
    assert again.returncode == 0
    (tmp_path / "other.mp4").unlink()
    refused = facestream("anonymize", clip, "-o", tmp_path / "other.mp4", "--report", "--quiet")
    assert refused.returncode == 2
    assert "other.mp4.report.html" in refused.stderr
    assert not (tmp_path / "other.mp4").exists()
