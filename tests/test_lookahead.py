from __future__ import annotations

from fractions import Fraction

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.lookahead import Lookahead
from pipeline.types import Box, BoxState, Frame, TrackedFrame

PICTURE = av.VideoFrame(32, 32, "yuv420p")


def tracked(index: int, *boxes: Box) -> TrackedFrame:
    return TrackedFrame(Frame(index, index, Fraction(1, 30), PICTURE), boxes)


def box(x: float, state: BoxState = BoxState.OBSERVED, track: int = 1) -> Box:
    return Box(track, (x, 10.0, x + 10, 20.0), 0.9, state)


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
        assert (made.xyxy[0] + made.xyxy[2]) / 2 == pytest.approx(105 + 8 * i)


def test_a_gap_is_filled_along_the_line_and_never_made_smaller() -> None:
    guess = Box(1, (9.0, 8.0, 21.0, 22.0), 0.9, BoxState.COASTED)
    frames = [tracked(0, box(0)), tracked(1, guess), tracked(2, guess), tracked(3, box(30))]
    out = through(Lookahead(5), frames)
    assert [t.boxes[0].state for t in out] == [
        BoxState.OBSERVED, BoxState.BACKFILLED, BoxState.BACKFILLED, BoxState.OBSERVED,
    ]  # fmt: skip
    assert out[1].boxes[0].xyxy == pytest.approx((9, 8, 21, 22))  # x 10..20 lies inside the guess
    assert out[2].boxes[0].xyxy == pytest.approx((9, 8, 30, 22))  # x 20..30 does not


def test_a_gap_that_began_before_what_still_waits_keeps_its_guesses() -> None:
    guess = box(5, BoxState.COASTED)
    out = through(Lookahead(1), [tracked(0, box(0)), tracked(1, guess), tracked(2, guess), tracked(3, box(30))])
    assert [t.boxes[0].state for t in out] == [BoxState.OBSERVED, BoxState.COASTED, BoxState.COASTED, BoxState.OBSERVED]


def test_other_faces_are_left_alone() -> None:
    other = box(100, track=7)
    out = through(Lookahead(3), [tracked(0, other), tracked(1, other), tracked(2, other, box(50))])
    assert [b for b in out[1].boxes if b.id == 7] == [other]


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
