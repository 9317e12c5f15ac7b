from __future__ import annotations

from fractions import Fraction

import av
import pytest
from facestream.pipeline.config import read
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.stages.settings import DEFAULTS, LookaheadSettings
from facestream.pipeline.stages.track_memory import FORGET_S, TrackMemory
from facestream.pipeline.types import Box, BoxKind, BoxState, Frame

CONFIRM = 0.5
WEAK_S = DEFAULTS.lookahead.weak_coast_s
PICTURE = av.VideoFrame(320, 120, "yuv420p")


def box(track: int = 1, score: float = 0.9, state: BoxState = BoxState.OBSERVED, kind: BoxKind = BoxKind.FACE) -> Box:
    return Box(track, (40, 40, 80, 80), score, state, kind=kind)


def at(ms: int | None) -> Frame:
    return Frame(0, ms, Fraction(1, 1000), PICTURE)


def test_a_track_stays_confirmed_after_weaker_detections() -> None:
    memory = TrackMemory(CONFIRM, None)
    memory.note_detection(box(score=0.4))
    assert not memory.is_confirmed(box().key)
    memory.note_detection(box(score=CONFIRM))
    memory.note_detection(box(score=0.3))
    assert memory.is_confirmed(box().key)


def test_what_nothing_is_known_of_counts_as_confirmed() -> None:
    memory = TrackMemory(CONFIRM, None)
    memory.note_detection(box(score=0.4))
    assert memory.is_confirmed(box(2).key)
    assert memory.is_confirmed(box(1, kind=BoxKind.ALTERNATE).key)


def test_too_many_tracks_are_forgotten_by_their_last_detection_with_all_that_is_known_of_them() -> None:
    memory = TrackMemory(CONFIRM, None, LookaheadSettings(max_tracks=2))
    for track in (1, 2, 3, 1):
        memory.note_detection(box(track, 0.4))
    memory.without_old_guesses(at(0), [box(1), box(2), box(2, kind=BoxKind.ALTERNATE), box(3)])
    memory.prune()
    assert list(memory.best) == [3, 1]
    assert {track for track, _ in memory.known_s} == {1, 3}


def test_tracks_that_no_tracker_remembers_are_forgotten_with_all_that_is_known_of_them() -> None:
    memory = TrackMemory(CONFIRM, None)
    for track in (1, 2):
        memory.note_detection(box(track, 0.4))
        memory.note_presence(track, 0.0)
    memory.without_old_guesses(at(0), [box(1), box(1, kind=BoxKind.ALTERNATE), box(2)])
    memory.note_presence(2, 5.0)  # coasted, say
    memory.prune(FORGET_S)
    assert set(memory.best) == {1, 2}
    memory.prune(FORGET_S + 1)
    assert set(memory.best) == {2}
    assert {track for track, _ in memory.known_s} == {2}
    memory.prune(None)
    assert set(memory.best) == {2}


def test_that_is_longer_than_a_tracker_can_be_told_to_remember() -> None:
    for key in ("tracker.remember_s", "tracker.coast_s"):
        read(None, {key: FORGET_S / 2})
        with pytest.raises(BadConfig):
            read(None, {key: FORGET_S / 2 + 1})


@pytest.mark.parametrize(
    ("score", "max_coast_s", "most_s"),
    [(0.4, None, WEAK_S), (0.4, WEAK_S / 2, WEAK_S / 2), (0.9, 0.5, 0.5), (0.4, 9.0, WEAK_S)],
)
def test_guesses_leave_until_their_track_was_known_too_long_ago(
    score: float, max_coast_s: float | None, most_s: float
) -> None:
    memory = TrackMemory(CONFIRM, max_coast_s)
    memory.note_detection(box(score=score))
    assert memory.without_old_guesses(at(1000), [box(score=score)])
    guess = box(score=score, state=BoxState.COASTED)
    within = 999 + round(most_s * 1000)
    assert memory.without_old_guesses(at(within), [guess]) == [guess]
    assert memory.without_old_guesses(at(within + 2), [guess]) == []


def test_a_backfilled_box_is_no_guess() -> None:
    memory = TrackMemory(CONFIRM, 0.5)
    memory.without_old_guesses(at(0), [box()])
    memory.without_old_guesses(at(600), [box(state=BoxState.BACKFILLED)])
    guess = box(state=BoxState.COASTED)
    assert memory.without_old_guesses(at(1000), [guess]) == [guess]


def test_a_confirmed_track_coasts_for_as_long_as_the_tracker_says() -> None:
    memory = TrackMemory(CONFIRM, None)
    memory.without_old_guesses(at(0), [box()])
    guess = box(state=BoxState.COASTED)
    assert memory.without_old_guesses(at(60_000), [guess]) == [guess]


def test_without_a_time_nothing_is_taken_away() -> None:
    memory = TrackMemory(CONFIRM, 0.1)
    memory.without_old_guesses(at(0), [box()])
    guess = box(state=BoxState.COASTED)
    assert memory.without_old_guesses(at(None), [guess]) == [guess]
