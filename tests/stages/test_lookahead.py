from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from facestream.pipeline.stages.lookahead import FrameIntervalEstimator, Lookahead
from facestream.pipeline.stages.settings import DEFAULTS
from facestream.pipeline.stages.track_memory import FORGET_S
from facestream.pipeline.stages.types import Scope
from facestream.pipeline.types import Box, BoxKind, BoxState, Frame, TrackedFrame
from hypothesis import given, settings
from hypothesis import strategies as st

PICTURE = av.VideoFrame(160, 60, "yuv420p")
KNOWN = DEFAULTS.lookahead.max_tracks
NEAR = DEFAULTS.fill_gaps.short_gap
NEAR_SPREAD = DEFAULTS.fill_gaps.short_growth
DOUBT = DEFAULTS.smooth.max_growth
GRACE = DEFAULTS.track_through.grace_frames


def tracked(index: int, *boxes: Box) -> TrackedFrame:
    return TrackedFrame(Frame(index, index, Fraction(1, 30), PICTURE), boxes)


def box(x: float, state: BoxState = BoxState.OBSERVED, track: int = 1) -> Box:
    return Box(track, (x, 10.0, x + 10, 20.0), 0.99, state)


def contains(outer: Box, inner: tuple[float, float, float, float]) -> bool:
    x0, y0, x1, y1 = outer.xyxy
    return x0 <= inner[0] + 1e-6 and y0 <= inner[1] + 1e-6 and x1 >= inner[2] - 1e-6 and y1 >= inner[3] - 1e-6


def through(line: Lookahead, frames: list[TrackedFrame]) -> list[TrackedFrame]:
    out = [done for frame in frames for done in line.push(frame)]
    return out + line.flush()


def test_a_face_is_covered_before_it_is_first_seen() -> None:
    out = through(Lookahead(4), [tracked(i) for i in range(6)] + [tracked(6, box(50))])
    states = [[b.state for b in t.boxes] for t in out]
    assert states == [[], []] + [[BoxState.BACKFILLED]] * 4 + [[BoxState.OBSERVED]]
    widths = [t.boxes[0].xyxy[2] - t.boxes[0].xyxy[0] for t in out[2:]]
    assert widths == sorted(widths, reverse=True)  # the longer before, the wider


def test_a_moving_face_is_followed_back_to_where_it_came_from() -> None:
    seen = [tracked(i, box(100 + 8 * i)) for i in range(10, 16)]
    out = through(Lookahead(12), [tracked(i) for i in range(10)] + seen)
    for i in range(4, 10):
        (made,) = out[i].boxes
        assert made.state is BoxState.BACKFILLED
        assert (made.xyxy[0] + made.xyxy[2]) / 2 == pytest.approx(105 + 8 * i, abs=2.5)
        assert contains(made, (100 + 8 * i, 10, 110 + 8 * i, 20))


def test_a_face_is_moved_back_over_frames_that_were_dropped() -> None:
    """A busy camera's frames are numbered with gaps: a sighting's number is not its place in the line."""
    seen = [tracked(i, box(100 + 8 * i)) for i in range(20, 60, 9)]
    out = through(Lookahead(12), [tracked(i) for i in range(12, 20)] + seen)
    states = [b.state for t in out for b in t.boxes]
    assert states == [BoxState.BACKFILLED] * 8 + [BoxState.OBSERVED] * 5
    for t in out:
        x = 100 + 8 * t.frame.index
        assert contains(t.boxes[0], (x, 10, x + 10, 20))


@pytest.mark.parametrize("gap", [NEAR - 1, NEAR])
def test_a_gap_is_filled_along_the_line_and_a_longer_one_is_never_made_smaller(gap: int) -> None:
    guess = Box(1, (9.0, 5.0, 21.0, 25.0), 0.99, BoxState.COASTED)
    guesses = [tracked(i, guess) for i in range(1, gap + 1)]
    out = through(Lookahead(6), [tracked(0, box(0)), *guesses, tracked(gap + 1, box(30))])
    assert [t.boxes[0].state for t in out] == [BoxState.OBSERVED, *[BoxState.BACKFILLED] * gap, BoxState.OBSERVED]
    for i in range(1, gap + 1):
        x = 30 * i / (gap + 1)
        assert contains(out[i].boxes[0], (x, 10, x + 10, 20))
        assert contains(out[i].boxes[0], guess.xyxy) == (gap == NEAR)
        margin = 5 if gap == NEAR else 10 * NEAR_SPREAD / 2
        assert out[i].boxes[0].xyxy[1::2] == pytest.approx((10 - margin, 20 + margin))


def test_a_gap_that_began_before_what_still_waits_is_covered_where_it_was_guessed_and_where_the_face_is() -> None:
    guess = box(5, BoxState.COASTED)
    out = through(Lookahead(1), [tracked(0, box(0)), tracked(1, guess), tracked(2, guess), tracked(3, box(30))])
    assert [[b.key for b in t.boxes] for t in out] == [
        [(1, BoxKind.FACE)],
        [(1, BoxKind.FACE)],
        [(1, BoxKind.FACE), (1, BoxKind.ALTERNATE)],
        [(1, BoxKind.FACE)],
    ]
    guessed, found = out[2].boxes
    assert (guessed.state, found.state) == (BoxState.COASTED, BoxState.BACKFILLED)
    assert contains(guessed, guess.xyxy)
    assert contains(found, box(30).xyxy)
    near = box(25, BoxState.COASTED)  # in one box, where both places touch
    out = through(Lookahead(1), [tracked(0, box(0)), tracked(1, near), tracked(2, near), tracked(3, box(30))])
    (both,) = out[2].boxes
    assert contains(both, near.xyxy)
    assert contains(both, box(30).xyxy)


def test_a_known_face_that_comes_back_is_covered_before_it_is_seen_again() -> None:
    """It was out of the picture for longer than frames wait, and the detector takes two frames to see it."""
    away = [(tracked(i), scenery(None), 0) for i in range(1, 20)]
    back = [(tracked(i), scenery(60), 0) for i in (20, 21)]
    frames = [(tracked(0, seen(30)), scenery(30), 0), *away, *back, (tracked(22, seen(60)), scenery(60), 0)]
    out = looked(Lookahead(8), frames)
    for late in out[20:]:
        assert contains(late.boxes[0], (60, 20, 84, 44))
    assert not any(t.boxes for t in out[8:14])


def test_other_faces_are_left_alone() -> None:
    other = box(100, track=7)
    out = through(Lookahead(3), [tracked(0, other), tracked(1, other), tracked(2, other, box(50))])
    (same,) = [b for b in out[1].boxes if b.id == 7]
    assert same.xyxy == pytest.approx(other.xyxy)
    assert same.state is BoxState.OBSERVED


def test_a_box_that_jumps_for_a_frame_still_covers_the_path() -> None:
    """The third box lies beside the face; what leaves covers both it and where the others say that the face is."""
    jump = Box(1, (18.0, 10.0, 28.0, 20.0), 0.99, BoxState.OBSERVED)
    still = box(0)
    frames = [tracked(i, jump if i == 6 else still) for i in range(12)]
    for lag in (12, 0):
        out = through(Lookahead(lag), frames)
        assert contains(out[6].boxes[0], jump.xyxy)
        assert out[6].boxes[0].xyxy[0] < 6
        assert out[0].boxes[0].xyxy == pytest.approx(still.xyxy)


def test_a_steady_motion_is_not_smeared_when_both_sides_are_known() -> None:
    out = through(Lookahead(12), [tracked(i, box(3 * i)) for i in range(20)])
    for i in range(6, 14):
        assert out[i].boxes[0].xyxy == pytest.approx(box(3 * i).xyxy, abs=0.01)


def texture() -> np.ndarray:
    rough = np.random.default_rng(2).integers(0, 256, (12, 12)).astype(np.uint8)
    return cv2.resize(rough, (24, 24), interpolation=cv2.INTER_CUBIC)


def scenery(x: float | None) -> np.ndarray:
    """Luma of 160x60 with a face of 24 pixels at x, 20, if any."""
    out = np.full((60, 160), 90, np.uint8) + np.random.default_rng(1).integers(0, 12, (60, 160)).astype(np.uint8)
    if x is not None:
        out[20:44, max(0, round(x)) : round(x) + 24] = texture()[:, max(0, -round(x)) :]
    return out


def seen(x: float, score: float = 0.99, track: int = 1) -> Box:
    return Box(track, (x, 20.0, x + 24, 44.0), score, BoxState.OBSERVED)


def looked(line: Lookahead, frames: list[tuple[TrackedFrame, np.ndarray, int]]) -> list[TrackedFrame]:
    out = [done for frame, luma, scene in frames for done in line.push(frame, luma, 1.0, scene)]
    return out + line.flush()


def test_a_face_is_followed_back_by_its_looks_at_its_very_first_sighting() -> None:
    """It turns round, so its motion before the first detection cannot be extrapolated."""
    path = [40 + 3 * abs(i - 6) for i in range(11)]
    frames = [(tracked(i), scenery(path[i]), 0) for i in range(10)]
    frames.append((tracked(10, seen(path[10])), scenery(path[10]), 0))
    out = looked(Lookahead(12), frames)
    for i in range(10):
        (made,) = out[i].boxes
        assert made.state is BoxState.BACKFILLED
        assert (made.xyxy[0] + made.xyxy[2]) / 2 == pytest.approx(path[i] + 12, abs=3)  # smoothing widens
        assert contains(made, (path[i], 20, path[i] + 24, 44))


@pytest.mark.parametrize("right", [False, True])
def test_a_face_that_comes_in_over_the_edge_is_not_mistaken_for_what_is_alike_further_in(right: bool) -> None:
    """Before, less of it showed; what showed of it at first was elsewhere too."""

    def shown(x: float | None) -> np.ndarray:
        out = scenery(x)
        out[8:32, 12:24] = texture()[:, 12:]
        return out[:, ::-1].copy() if right else out

    def there(x: float) -> tuple[float, float, float, float]:
        return (160 - x - 24, 20, 160 - x, 44) if right else (x, 20, x + 24, 44)

    frames = [(tracked(i), shown(path), 0) for i, path in enumerate((None, None, -20, -16))]
    frames.append((tracked(4, Box(1, there(-12), 0.99, BoxState.OBSERVED)), shown(-12), 0))
    out = looked(Lookahead(8), frames)
    for i, x in ((2, -20), (3, -16)):
        (made,) = out[i].boxes
        left, top, end, bottom = there(x)
        assert contains(made, (max(0, left), top, min(160, end), bottom))


def test_following_stops_soon_after_the_face_is_gone() -> None:
    frames = [(tracked(i), scenery(60 if i >= 8 else None), 0) for i in range(12)]
    frames.append((tracked(12, seen(60)), scenery(60), 0))
    out = looked(Lookahead(15), frames)
    assert [len(t.boxes) for t in out] == [0] * (8 - GRACE) + [1] * (13 - 8 + GRACE)


def test_nothing_is_covered_over_a_cut() -> None:
    frames = [(tracked(i), scenery(60), int(i >= 5)) for i in range(8)] + [(tracked(8, seen(60)), scenery(60), 1)]
    assert [len(t.boxes) for t in looked(Lookahead(15), frames)] == [0] * 5 + [1] * 4
    bare = [(tracked(i), np.zeros((0, 0), np.uint8), int(i >= 5)) for i in range(8)] + [(tracked(8, box(50)), None, 1)]
    assert [len(t.boxes) for t in looked(Lookahead(15), bare)] == [0] * 5 + [1] * 4  # type: ignore[arg-type]


def test_guesses_over_a_cut_go_when_it_was_no_flash() -> None:
    guess = Box(2, (10.0, 10, 40, 40), 0.99, BoxState.COASTED)
    held = Box(3, (50.0, 50, 60, 60), 0.99, BoxState.COASTED)
    cut = [(tracked(0, held), None, 0), (tracked(1, guess, held), None, 1), (tracked(2, held), None, 1)]
    assert [[b.id for b in t.boxes] for t in looked(Lookahead(2), cut)] == [[3], [3], [3]]
    assert [[b.id for b in t.boxes] for t in looked(Lookahead(0), cut)] == [[3], [2, 3], [3]]
    flash = [*cut[:2], (tracked(2, held), None, 0)]
    assert [[b.id for b in t.boxes] for t in looked(Lookahead(2), flash)] == [[3], [2, 3], [3]]


def test_a_gap_across_a_flash_is_filled() -> None:
    frames = [
        (tracked(0, seen(60)), scenery(60), 0),
        (tracked(1), scenery(None), 1),
        (tracked(2, seen(60)), scenery(60), 0),
    ]
    out = looked(Lookahead(5), frames)
    assert [b.state for b in out[1].boxes] == [BoxState.BACKFILLED]


def test_a_long_gap_that_leads_from_one_face_to_another_is_covered_where_the_other_came_from() -> None:
    """The line between the two sightings is what the track says; the looks say that the second face stood there."""
    frames = [(tracked(0, seen(10)), scenery(10), 0)] + [(tracked(i), scenery(110), 0) for i in range(1, 8)]
    frames.append((tracked(8, seen(110)), scenery(110), 0))
    out = looked(Lookahead(10), frames)
    for i in range(1, 8):
        assert any(contains(made, (110, 20, 134, 44)) for made in out[i].boxes)
        assert any(contains(made, (10 + 12.5 * i, 20, 34 + 12.5 * i, 44)) for made in out[i].boxes)
        assert all(made.xyxy[2] - made.xyxy[0] < 70 for made in out[i].boxes)  # not all that lies between them


def test_guesses_end_when_nothing_is_known_for_too_long() -> None:
    guess = box(0, BoxState.COASTED)
    frames = [tracked(0, box(0)), *(tracked(i, guess) for i in range(1, 20))]
    assert [len(t.boxes) for t in through(Lookahead(30, max_coast_s=0.31), frames)] == [1] * 10 + [0] * 10
    assert [len(t.boxes) for t in through(Lookahead(30), frames)] == [1] * 20
    frames[15] = tracked(15, box(0))  # seen again: all of the gap is covered
    assert [len(t.boxes) for t in through(Lookahead(30, max_coast_s=0.31), frames)] == [1] * 20


def test_a_face_is_followed_back_all_the_way_once_its_detections_confirm_it_and_not_before() -> None:
    """Two detections of 0.6 leave 0.16 of doubt, three 0.064, at 0.9 to be sure of."""
    frames = [(tracked(i), scenery(60), 0) for i in range(8)]
    for count, covered in ((1, 0), (2, 0), (3, 8)):
        seen_again = [(tracked(8 + i, seen(60, 0.6)), scenery(60), 0) for i in range(count)]
        out = looked(Lookahead(15), [*frames, *seen_again])
        assert [len(t.boxes) for t in out] == [0] * (8 - covered) + [1] * (covered + count)


def test_where_it_is_confirmed_too_late_only_the_frames_that_still_wait_are_covered() -> None:
    frames = [(tracked(i, *([seen(60, 0.6)] if i >= 8 else [])), scenery(60), 0) for i in range(11)]
    out = looked(Lookahead(5), frames)
    assert [len(t.boxes) for t in out] == [0] * 5 + [1] * 6


def test_a_track_that_is_not_confirmed_is_not_covered_where_it_is_not_detected() -> None:
    for score, guesses in ((0.8, 0), (0.9, 20)):
        guess = Box(1, (0.0, 10.0, 10.0, 20.0), score, BoxState.COASTED)
        first = Box(1, (0.0, 10.0, 10.0, 20.0), score, BoxState.OBSERVED)
        out = through(Lookahead(0), [tracked(0, first), *(tracked(i, guess) for i in range(1, 21))])
        assert [len(t.boxes) for t in out] == [1] * (1 + guesses) + [0] * (20 - guesses)


def test_a_doubtful_box_is_grown() -> None:
    for scores, grown in (((0.99,), 0), ((0.96,), 0), ((0.3,), DOUBT), ((0.1,), DOUBT), ((0.99, 0.3), DOUBT)):
        seen = [Box(1, (50.0, 20.0, 60.0, 40.0), score, BoxState.OBSERVED) for score in scores]
        out = through(Lookahead(0), [tracked(i, box) for i, box in enumerate(seen)])
        x0, y0, x1, y1 = out[-1].boxes[0].xyxy
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((55, 30))
        assert (x1 - x0, y1 - y0) == pytest.approx((10 * (1 + grown), 20 * (1 + grown)))


def test_a_box_is_grown_when_its_tracks_scores_mostly_are_doubtful() -> None:
    for normal, grown in ((0.99, 0), (0.9, DOUBT / 2)):
        faces = [Box(1, (50.0, 20.0, 60.0, 40.0), 0.96 if i == 10 else normal, BoxState.OBSERVED) for i in range(20)]
        x0, y0, x1, y1 = through(Lookahead(6), [tracked(i, face) for i, face in enumerate(faces)])[10].boxes[0].xyxy
        assert (x1 - x0, y1 - y0) == pytest.approx((10 * (1 + grown), 20 * (1 + grown)))


@pytest.mark.parametrize("lag", [0, 12])
def test_a_box_that_is_too_small_for_a_while_is_covered_in_its_usual_size(lag: int) -> None:
    """For longer than the smoothing reaches."""
    small = Box(1, (52.0, 22.0, 58.0, 34.0), 0.99, BoxState.OBSERVED)
    whole = Box(1, (50.0, 20.0, 60.0, 40.0), 0.99, BoxState.OBSERVED)
    out = through(Lookahead(lag), [tracked(i, small if 20 <= i < 30 else whole) for i in range(40)])
    x0, y0, x1, y1 = out[25].boxes[0].xyxy
    assert (x1 - x0, y1 - y0) == pytest.approx((10, 20), abs=0.01)
    assert contains(out[25].boxes[0], small.xyxy)
    assert out[10].boxes[0].xyxy == pytest.approx(whole.xyxy)


def test_a_face_without_looks_is_carried_back_by_the_camera() -> None:
    """At its first sighting; and what it moves itself comes on top, once more sightings tell it."""
    pan = np.array([[1.0, 0.0, 8.0], [0.0, 1.0, 0.0]])
    for own, sightings in ((0, 1), (2, 5)):
        line, out = Lookahead(12), []
        for i in range(5 + sightings):
            boxes = [box(90 + (8 + own) * (i - 5))] if i >= 5 else []
            out += line.push(tracked(i, *boxes), None, 1.0, 0, pan)
        out += line.flush()
        for i in range(2, 5):
            (made,) = out[i].boxes
            x = 90 + (8 + own) * (i - 5)
            assert contains(made, (x, 10, x + 10, 20))
            assert made.xyxy[2] - made.xyxy[0] < 24  # smoothing widens


def test_a_face_is_followed_out_of_the_picture_with_the_camera() -> None:
    """It comes in at the left edge: before, less and less of it can be seen."""
    pan = np.array([[1.0, 0.0, 7.0], [0.0, 1.0, 0.0]])
    line, out = Lookahead(12), []
    for i in range(7):
        x = 7 * (i - 6) + 16
        wide = np.full((60, 240), 90, np.uint8) + np.random.default_rng(1).integers(0, 12, (60, 240)).astype(np.uint8)
        wide[20:44, 40 + x : 64 + x] = texture()
        boxes = [seen(x)] if i == 6 else []
        out += line.push(tracked(i, *boxes), np.ascontiguousarray(wide[:, 40:200]), 1.0, 0, pan)
    out += line.flush()
    for i in range(2, 6):  # until 4 of its 24 pixels are left
        (made,) = out[i].boxes
        x = 7 * (i - 6) + 16
        assert contains(made, (x, 20, x + 24, 44))
        assert made.xyxy[2] - made.xyxy[0] < 46  # smoothing widens


def test_what_is_remembered_of_tracks_is_bounded() -> None:
    line = Lookahead(1, max_coast_s=0.5)
    for i in range(KNOWN + 100):
        line.push(tracked(i, box(0, track=i + 2), box(100, track=1)))
    assert len(line.memory.evidence) <= KNOWN
    assert 1 in line.memory.evidence  # seen all the time
    assert len(line.memory.known_s) <= KNOWN + 1


def test_a_day_of_tracks_is_not_remembered() -> None:
    line = Lookahead(1, max_coast_s=0.5)
    most = 0
    for i in range(2000):  # one new face every ten seconds
        now = TrackedFrame(Frame(i, i * 10, Fraction(1), PICTURE), (box(0, track=i + 2), box(100, track=1)))
        line.push(now)
        most = max(most, len(line.memory.evidence), len(line.memory.known_s))
    assert most <= FORGET_S / 10 + 4


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 40))
def test_output_is_every_frame_in_order_exactly_lag_late(lag: int, count: int) -> None:
    line = Lookahead(lag)
    out = []
    for i in range(count):
        out += line.push(tracked(i, box(i)))
        assert len(out) == max(0, i + 1 - lag)
    out += line.flush()
    assert [t.frame.index for t in out] == list(range(count))
    assert line.flush() == []


def camera(*numbers: int) -> FrameIntervalEstimator:
    """Who has seen frames with these numbers, 30 a second."""
    intervals = FrameIntervalEstimator()
    for number in numbers:
        intervals.note(tracked(number).frame)
    return intervals


def test_the_frame_interval_is_told_by_numbers_and_times_of_frames_that_are_not_dropped() -> None:
    assert camera(0, 1, 2).max_wait_s(10) is None  # not known yet
    for numbers in (range(8), range(0, 40, 5), (0, 1, 7, 8, 9, 30, 31)):
        assert camera(*numbers).max_wait_s(10) == pytest.approx(10 / 30 + 0.1)
    slow = FrameIntervalEstimator()
    for i in range(8):
        slow.note(Frame(i, i, Fraction(1, 5), PICTURE))
    assert slow.max_wait_s(3) == pytest.approx((3 + 2) / 5)  # two intervals of slack, where these are longer


@pytest.mark.parametrize("scope", list(Scope))
def test_where_frames_are_dropped_one_leaves_in_time_but_not_before_a_full_frame(scope: Scope) -> None:
    """Every 10th frame: each would wait for 5 s otherwise."""
    line = Lookahead(15, intervals=camera(*range(8)))
    out = []
    for i in range(0, 60, 10):
        out += line.push(tracked(i), scope=scope if i else Scope.SKIPPED)
    left = [t.frame.index for t in out]
    assert left == ([0, 10, 20, 30] if scope in (Scope.FULL, Scope.REDUCED, Scope.FAILED) else [])
