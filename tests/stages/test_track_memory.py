from __future__ import annotations

from fractions import Fraction

import av
import pytest
from facestream.pipeline.config import read
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.stages.settings import DEFAULTS, LookaheadSettings
from facestream.pipeline.stages.track_memory import FORGET_S, TrackMemory
from facestream.pipeline.types import Box, BoxKind, BoxState, Frame

CONFIRM = 0.9
FRAMES = DEFAULTS.lookahead.confirm_frames
PICTURE = av.VideoFrame(320, 120, "yuv420p")


def box(track: int = 1, score: float = 0.9, state: BoxState = BoxState.OBSERVED, kind: BoxKind = BoxKind.FACE) -> Box:
    return Box(track, (40, 40, 80, 80), score, state, kind=kind)


def at(ms: int | None) -> Frame:
    return Frame(0, ms, Fraction(1, 1000), PICTURE)


def test_detections_confirm_a_track_together_and_it_stays_so() -> None:
    """1 - 0.4^2 = 0.84, 1 - 0.4^3 = 0.936."""
    memory = TrackMemory(CONFIRM, None)
    for index, confirmed in ((0, False), (2, False), (4, True)):
        memory.note_detection(box(score=0.6), index)
        assert memory.is_confirmed(box().key) == confirmed
    memory.note_detection(box(score=0.1), 5000)
    assert memory.is_confirmed(box().key)


def test_one_sure_detection_is_enough() -> None:
    memory = TrackMemory(CONFIRM, None)
    memory.note_detection(box(score=1.0), 0)
    assert memory.is_confirmed(box().key)


def test_detections_that_lie_further_apart_do_not() -> None:
    for apart, confirmed in ((FRAMES - 1, True), (FRAMES, False)):
        memory = TrackMemory(CONFIRM, None)
        memory.note_detection(box(score=0.7), 0)
        memory.note_detection(box(score=0.7), apart)
        assert memory.is_confirmed(box().key) == confirmed


def test_what_nothing_is_known_of_counts_as_confirmed() -> None:
    memory = TrackMemory(CONFIRM, None)
    memory.note_detection(box(score=0.4), 0)
    assert memory.is_confirmed(box(2).key)
    assert memory.is_confirmed(box(1, kind=BoxKind.WHOLE_FRAME).key)
    assert not memory.is_confirmed(box(1, kind=BoxKind.ALTERNATE).key)


@pytest.mark.parametrize("state", list(BoxState))
def test_of_a_track_that_is_not_confirmed_only_what_was_detected_leaves(state: BoxState) -> None:
    memory = TrackMemory(CONFIRM, None)
    memory.note_detection(box(score=0.4), 0)
    one = box(score=0.4, state=state)
    assert memory.leaving(at(0), [one]) == ([one] if state is BoxState.OBSERVED else [])
    memory.note_detection(box(), 1)
    assert memory.leaving(at(0), [one]) == [one]


def test_too_many_tracks_are_forgotten_by_their_last_detection_with_all_that_is_known_of_them() -> None:
    memory = TrackMemory(CONFIRM, 0.5, LookaheadSettings(max_tracks=2))
    for track in (1, 2, 3, 1):
        memory.note_detection(box(track, 0.4), 0)
    memory.leaving(at(0), [box(1), box(2), box(2, kind=BoxKind.ALTERNATE), box(3)])
    memory.prune()
    assert list(memory.evidence) == [3, 1]
    assert {track for track, _ in memory.known_s} == {1, 3}


def test_tracks_that_no_tracker_remembers_are_forgotten_with_all_that_is_known_of_them() -> None:
    memory = TrackMemory(CONFIRM, 0.5)
    for track in (1, 2):
        memory.note_detection(box(track, 0.4), 0)
        memory.note_presence(track, 0.0)
    memory.leaving(at(0), [box(1), box(1, kind=BoxKind.ALTERNATE), box(2)])
    memory.note_presence(2, 5.0)  # coasted, say
    memory.prune(FORGET_S)
    assert set(memory.evidence) == {1, 2}
    memory.prune(FORGET_S + 1)
    assert set(memory.evidence) == {2}
    assert {track for track, _ in memory.known_s} == {2}
    memory.prune(None)
    assert set(memory.evidence) == {2}


def test_that_is_longer_than_a_tracker_can_be_told_to_remember() -> None:
    for key in ("tracker.remember_s", "tracker.coast_s"):
        read(None, {key: FORGET_S / 2})
        with pytest.raises(BadConfig):
            read(None, {key: FORGET_S / 2 + 1})


def test_guesses_leave_until_their_track_was_known_too_long_ago() -> None:
    memory = TrackMemory(CONFIRM, 0.5)
    memory.note_detection(box(), 0)
    assert memory.leaving(at(1000), [box()])
    guess = box(state=BoxState.COASTED)
    assert memory.leaving(at(1499), [guess]) == [guess]
    assert memory.leaving(at(1501), [guess]) == []


def test_a_backfilled_box_is_no_guess() -> None:
    memory = TrackMemory(CONFIRM, 0.5)
    memory.leaving(at(0), [box()])
    memory.leaving(at(600), [box(state=BoxState.BACKFILLED)])
    guess = box(state=BoxState.COASTED)
    assert memory.leaving(at(1000), [guess]) == [guess]


def test_a_confirmed_track_coasts_for_as_long_as_the_tracker_says() -> None:
    memory = TrackMemory(CONFIRM, None)
    memory.leaving(at(0), [box()])
    guess = box(state=BoxState.COASTED)
    assert memory.leaving(at(60_000), [guess]) == [guess]


def test_without_a_time_nothing_is_taken_away() -> None:
    memory = TrackMemory(CONFIRM, 0.1)
    memory.leaving(at(0), [box()])
    guess = box(state=BoxState.COASTED)
    assert memory.leaving(at(None), [guess]) == [guess]
