from __future__ import annotations

import pytest
from facestream.pipeline.stages.settings import DEFAULTS, SmoothSettings
from facestream.pipeline.stages.smooth import Smoother, TrackStatistics, sightings_of, smooth_box, statistics_of
from facestream.pipeline.types import Box, BoxKind, BoxState

SETTINGS = DEFAULTS.smooth


def box(x: float = 50.0, score: float = 0.99, track: int = 1, kind: BoxKind = BoxKind.FACE) -> Box:
    return Box(track, (x, 20.0, x + 10, 40.0), score, BoxState.OBSERVED, kind=kind)


def path(one: Box) -> list[float]:
    """The sums where a track's box is the same in all frames."""
    return [2.0, *(2 * v for v in one.xyxy)]


def test_only_what_was_detected_is_a_sighting() -> None:
    coasted = Box(2, (0, 0, 5, 5), 0.5, BoxState.COASTED)
    assert sightings_of([box(), coasted]) == {1: (10, 20, 0.99)}


@pytest.mark.parametrize("count", [1, 2, 11])
def test_the_usual_size_and_score_are_percentiles(count: int) -> None:
    seen = [(float(i), 2.0 * i, i / 20) for i in range(1, count + 1)]
    normal = statistics_of(list(reversed(seen)))
    rank = int(SETTINGS.percentile * (count - 1))
    assert normal == TrackStatistics(seen[rank][0], seen[rank][1], seen[-1 - rank][2])


def test_a_clear_box_stays_as_it_is() -> None:
    assert smooth_box(box(), path(box()), None).xyxy == pytest.approx(box().xyxy)


def test_a_doubtful_box_grows_evenly_between_the_two_scores() -> None:
    most = SETTINGS.max_growth
    middle = (SETTINGS.clear_score + SETTINGS.dim_score) / 2
    for score, share in (
        (0.99, 0.0),
        (SETTINGS.clear_score, 0.0),
        (middle, 0.5),
        (SETTINGS.dim_score, 1.0),
        (0.2, 1.0),
    ):
        left, top, right, bottom = smooth_box(box(score=score), path(box()), None).xyxy
        assert (right - left, bottom - top) == pytest.approx((10 * (1 + most * share), 20 * (1 + most * share)))
        assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((55, 30))


def test_a_box_takes_its_tracks_usual_size_and_doubt_but_is_never_made_smaller() -> None:
    large = TrackStatistics(16, 18, 0.99)
    left, top, right, bottom = smooth_box(box(), path(box()), large).xyxy
    assert (right - left, bottom - top) == pytest.approx((16, 20))
    doubtful = TrackStatistics(1, 1, SETTINGS.dim_score)
    left, top, right, bottom = smooth_box(box(), path(box()), doubtful).xyxy
    assert right - left == pytest.approx(10 * (1 + SETTINGS.max_growth))


def test_a_box_is_united_with_its_tracks_path() -> None:
    left, _, right, _ = smooth_box(box(), path(box(44.0)), None).xyxy
    assert (left, right) == pytest.approx((44, 60))


def leave(smoother: Smoother, index: int, boxes: list[Box], coming: list[tuple[int, list[Box]]]) -> tuple[Box, ...]:
    sightings = [sightings_of(others) for _, others in coming]
    return smoother.smooth(index, boxes, coming, sightings)


def test_frames_before_and_after_count_the_less_the_further_they_are() -> None:
    smoother = Smoother()
    assert leave(smoother, 0, [box(0)], [])[0].xyxy == pytest.approx(box(0).xyxy)
    near = leave(Smoother(), 0, [box(0)], [(1, [box(20)])])[0].xyxy[2]
    far = leave(Smoother(), 0, [box(0)], [(4, [box(20)])])[0].xyxy[2]
    assert 10 < far < near < 30
    before = leave(smoother, 1, [box(20)], [])[0].xyxy
    assert before[0] < 20
    assert before[2] == pytest.approx(30)


def test_what_left_is_remembered_for_as_many_frames_as_statistics_need() -> None:
    smoother = Smoother(SmoothSettings(statistics_frames=3))
    for index in range(9):
        leave(smoother, index, [box()], [])
    assert [frame.index for frame in smoother.emitted] == [6, 7, 8]


def test_an_alternate_place_has_a_path_and_no_statistics_of_its_own() -> None:
    """Its track's normal size is that of the face, which is elsewhere."""
    smoother = Smoother()
    for index in range(5):
        leave(smoother, index, [Box(1, (0, 0, 40, 40), 0.99, BoxState.OBSERVED)], [])
    face, other = leave(smoother, 5, [box(0), box(100, kind=BoxKind.ALTERNATE)], [])
    assert face.xyxy[2] - face.xyxy[0] > 30
    assert other.xyxy == pytest.approx(box(100).xyxy)
    assert other.key == (1, BoxKind.ALTERNATE)
