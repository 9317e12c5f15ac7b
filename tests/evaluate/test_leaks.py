from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.pipeline.config import CoverConfig
from facestream.pipeline.errors import BadInput
from facestream.pipeline.evaluate.leaks import LeakMeter, drawn, read_truth
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame

PICTURE = av.VideoFrame(200, 100, "yuv420p")
FACE = (50.0, 20.0, 90.0, 70.0)


def seen(index: int, *xyxy: tuple[float, float, float, float]) -> TrackedFrame:
    boxes = tuple(Box(1, box, 0.9, BoxState.OBSERVED) for box in xyxy)
    return TrackedFrame(Frame(index, index, Fraction(1, 30), PICTURE), boxes)


def meter(frames: int, scale: float = 1.0, **truth: float) -> LeakMeter:
    return LeakMeter({i: {1: np.array(FACE)} for i in range(frames)}, CoverConfig(scale=scale))


def test_a_cover_like_the_truth_covers_it() -> None:
    m = meter(1)
    m.write(seen(0, FACE), "x")
    r = m.result()
    assert (r.face_frames, r.leaked, r.longest_exposed_run, r.overblur) == (1, 0, 0, 0)


def test_no_cover_leaks_all_and_runs_are_counted() -> None:
    m = meter(6)
    for i, covered in enumerate([True, False, False, False, True, False]):
        m.write(seen(i, *([FACE] if covered else [])), "x")
    r = m.result()
    assert (r.face_frames, r.leaked, r.longest_exposed_run, r.tracks, r.leaky_tracks) == (6, 4, 3, 1, 1)
    assert r.leak_rate == pytest.approx(4 / 6)
    assert r.leak_rate_tau50 == pytest.approx(4 / 6)


def test_ninety_five_percent_decide() -> None:
    """A cover shifted sideways leaves a sliver; scale grows it over that again."""
    shifted = (FACE[0] + 4, FACE[1], FACE[2] + 4, FACE[3])
    tight, grown = meter(1), meter(1, scale=1.3)
    tight.write(seen(0, shifted), "x")
    grown.write(seen(0, shifted), "x")
    assert (tight.result().leaked, tight.result().leak_rate_tau50) == (1, 0)
    assert grown.result().leaked == 0
    assert grown.result().overblur > 0.3


def test_small_faces_can_be_left_out() -> None:
    m = LeakMeter({0: {1: np.array(FACE), 2: np.array([0.0, 0, 10, 12])}}, CoverConfig(), smallest=40)
    m.write(seen(0), "x")
    assert m.result().face_frames == 1


def test_only_the_part_inside_the_picture_counts() -> None:
    m = LeakMeter({0: {1: np.array([180.0, 20, 220, 60])}}, CoverConfig(scale=1.0, shape="box"))
    m.write(seen(0, (180, 20, 200, 60)), "x")
    assert m.result().leaked == 0


def test_an_ellipse_has_its_area() -> None:
    assert drawn(np.array([[10.0, 10, 90, 60]]), 200, 100, "ellipse").sum() == pytest.approx(np.pi * 40 * 25, rel=0.01)
    assert drawn(np.array([[10.0, 10, 90, 60]]), 200, 100, "box").sum() == 80 * 50


def test_truth_is_read_by_frame_and_id(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1,7,10,20,30,40,1,-1,-1\n\n3,7,0,0,5,5,1,1,1\n")
    truth = read_truth(tmp_path / "t.txt")
    assert truth[0][7].tolist() == [10, 20, 40, 60]
    assert sorted(truth) == [0, 2]


def test_bad_truth_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1,7,10,20,30,40\n1,7,ten\n")
    with pytest.raises(BadInput, match=r"t\.txt:2"):
        read_truth(tmp_path / "t.txt")
    with pytest.raises(BadInput, match="cannot read"):
        read_truth(tmp_path / "none.txt")


def test_runs_are_timed_and_identities_counted() -> None:
    """Ten frames a second; track 1 leaks in frames 2-6, track 2 in frame 9 alone."""
    faces = {1: np.array(FACE), 2: np.array([120.0, 20, 160, 70])}
    m = LeakMeter({i: faces for i in range(12)}, CoverConfig(scale=1.0))
    for i in range(12):
        boxes = [f for t, f in faces.items() if (t == 1 and i not in range(2, 7)) or (t == 2 and i != 9)]
        covers = tuple(Box(n, tuple(b), 0.9, BoxState.OBSERVED) for n, b in enumerate(boxes))  # type: ignore[arg-type]
        m.write(TrackedFrame(Frame(i, i, Fraction(1, 10), PICTURE), covers), "x")
    r = m.result()
    assert (r.longest_exposed_run, r.leaky_tracks, r.exposed_5) == (5, 2, 1)
    assert r.longest_exposed_ms == pytest.approx(500)
    assert r.exposed == {1: [2, 3, 4, 5, 6], 2: [9]}
    assert r.leaked_area == pytest.approx(6 / 24)
