from __future__ import annotations

import numpy as np
from facestream.engines.types import Detections
from facestream.pipeline.config import TrackerConfig
from facestream.pipeline.stages.track import Tracker
from facestream.pipeline.types import AssociationStage, Box, BoxState
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = (640, 360)


def found(*rows: tuple[float, float, float, float, float]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], table[:, 4])


def square(x: float, y: float, side: float = 40, score: float = 0.9) -> tuple[float, float, float, float, float]:
    return (x, y, x + side, y + side, score)


def states(boxes: tuple[Box, ...]) -> list[BoxState]:
    return [b.state for b in boxes]


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0.0, w) * max(0.0, h)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def test_ids_follow_two_faces_that_pass_each_other() -> None:
    tracker = Tracker(TrackerConfig())
    for i in range(40):
        boxes = tracker.update(found(square(100 + 8 * i, 100), square(420 - 8 * i, 160)), i / 30, SIZE)
        assert {b.id: round(b.xyxy[1]) for b in boxes} == {1: 100, 2: 160}


def test_every_detection_comes_back_once_as_it_is() -> None:
    tracker = Tracker(TrackerConfig())
    given_boxes = [square(10, 10), square(12, 12, score=0.31), square(300, 50, 8, 0.3)]
    boxes = tracker.update(found(*given_boxes), 0.0, SIZE)
    assert sorted(b.xyxy for b in boxes) == sorted(tuple(map(float, r[:4])) for r in given_boxes)
    assert states(boxes) == [BoxState.OBSERVED] * 3
    assert len({b.id for b in boxes}) == 3


def test_a_missed_face_stays_covered_where_it_moves_to() -> None:
    tracker = Tracker(TrackerConfig(coast_s=0.5))
    for i in range(20):
        tracker.update(found(square(100 + 5 * i, 100)), i / 30, SIZE)
    for i in range(20, 34):
        (box,) = tracker.update(found(), i / 30, SIZE)
        assert box.state is BoxState.COASTED
        assert box.id == 1
        assert abs(sum(box.xyxy[::2]) / 2 - (120 + 5 * i)) < 3  # centre
        assert 40 <= box.xyxy[2] - box.xyxy[0] <= 61
    (box,) = tracker.update(found(square(100 + 5 * 34, 100)), 34 / 30, SIZE)
    assert (box.id, box.state) == (1, BoxState.OBSERVED)


def test_coasting_ends_and_grows_until_then() -> None:
    tracker = Tracker(TrackerConfig(coast_s=0.5))
    tracker.update(found(square(100, 100)), 0.0, SIZE)
    tracker.update(found(square(100, 100)), 1 / 30, SIZE)
    widths = []
    for i in range(2, 30):
        boxes = tracker.update(found(), i / 30, SIZE)
        widths += [b.xyxy[2] - b.xyxy[0] for b in boxes]
    assert 13 <= len(widths) <= 16  # half a second
    assert widths == sorted(widths)
    assert widths[-1] > widths[0]


def test_ids_are_never_used_again() -> None:
    tracker = Tracker(TrackerConfig(coast_s=0.1, remember_s=0.5))
    tracker.update(found(square(100, 100)), 0.0, SIZE)
    for i in range(1, 30):
        tracker.update(found(), i / 30, SIZE)
    (box,) = tracker.update(found(square(100, 100)), 1.0, SIZE)
    assert box.id == 2


def test_a_face_that_comes_back_while_it_is_remembered_is_the_same_though_it_was_not_covered_any_more() -> None:
    tracker = Tracker(TrackerConfig(coast_s=0.1, remember_s=1.5))
    tracker.update(found(square(100, 100)), 0.0, SIZE)
    for i in range(1, 30):
        assert (tracker.update(found(), i / 30, SIZE) == ()) == (i > 4)
    (box,) = tracker.update(found(square(100, 100)), 1.0, SIZE)
    assert box.id == 1


def test_a_single_doubtful_box_does_not_live_on_but_a_confirmed_one_does() -> None:
    tracker = Tracker(TrackerConfig(high_score=0.5))
    tracker.update(found(square(100, 100, score=0.35)), 0.0, SIZE)
    assert tracker.update(found(), 1 / 30, SIZE) == ()
    tracker.update(found(square(100, 100, score=0.35)), 2 / 30, SIZE)
    tracker.update(found(square(100, 100, score=0.35)), 3 / 30, SIZE)
    assert states(tracker.update(found(), 4 / 30, SIZE)) == [BoxState.COASTED]


def test_a_doubtful_detection_continues_a_track() -> None:
    tracker = Tracker(TrackerConfig(high_score=0.5))
    tracker.update(found(square(100, 100)), 0.0, SIZE)
    (box,) = tracker.update(found(square(102, 100, score=0.31)), 1 / 30, SIZE)
    assert (box.id, box.state) == (1, BoxState.OBSERVED)


def test_a_doubtful_box_that_only_lies_near_is_another_face() -> None:
    """A slip of the detector beside a face that was missed must not take its cover along."""
    tracker = Tracker(TrackerConfig())
    for i in range(6):
        tracker.update(found(square(100, 100)), i / 30, SIZE)
    boxes = tracker.update(found(square(125, 115, score=0.3)), 6 / 30, SIZE)
    assert {b.id: b.state for b in boxes} == {1: BoxState.COASTED, 2: BoxState.OBSERVED}
    boxes = tracker.update(found(square(125, 115, score=0.6)), 7 / 30, SIZE)
    assert [b.id for b in boxes if b.state is BoxState.OBSERVED] == [1]


def test_a_look_that_is_not_fine_makes_nothing_forgotten() -> None:
    for full in (False, True):
        tracker = Tracker(TrackerConfig())
        tracker.update(found(square(100, 100, 20, 0.3)), 0.0, SIZE)
        tracker.update(found(), 1 / 30, SIZE, full_resolution=full)
        boxes = tracker.update(found(square(101, 100, 20, 0.3)), 2 / 30, SIZE)
        assert [b.id for b in boxes] == [2 if full else 1]


def test_frames_that_are_not_looked_at_keep_their_faces() -> None:
    tracker = Tracker(TrackerConfig())
    for i in range(30):
        boxes = tracker.update(found(square(50 + 6 * i, 100)) if i % 3 == 0 else None, i / 30, SIZE)
        assert [b.id for b in boxes] == [1]
        assert iou(boxes[0].xyxy, square(50 + 6 * i, 100)[:4]) > (0.4 if i > 6 else 0.2)


def test_small_fast_faces_keep_their_id() -> None:
    """10 px faces that move by their own width each frame do not overlap themselves."""
    tracker = Tracker(TrackerConfig())
    for i in range(20):
        boxes = tracker.update(found(square(50 + 10 * i, 100, 10)), i / 30, SIZE)
    assert [b.id for b in boxes] == [1]


def test_a_track_that_leaves_the_picture_is_dropped() -> None:
    tracker = Tracker(TrackerConfig(coast_s=5))
    for i in range(10):
        tracker.update(found(square(560 + 8 * i, 100)), i / 30, SIZE)
    for i in range(10, 30):
        boxes = tracker.update(found(), i / 30, SIZE)
    assert boxes == ()


def test_uneven_and_missing_times_are_taken_as_they_come() -> None:
    tracker = Tracker(TrackerConfig())
    times = [None, 0.0, 0.03, 0.3, 0.33, 0.32, None, 0.5]
    for time in times:
        (box,) = tracker.update(found(square(100, 100)), time, SIZE)
        assert box.id == 1


def test_high_scores_choose_first() -> None:
    """The doubtful box lies better on the track than the good one, which touches it."""
    tracker = Tracker(TrackerConfig())
    tracker.update(found(square(100, 100)), 0.0, SIZE)
    boxes = tracker.update(found(square(108, 100), square(101, 100, score=0.3)), 1 / 30, SIZE)
    assert [b.id for b in boxes] == [1, 2]


def test_what_is_made_of_a_detection_is_told() -> None:
    tracker = Tracker(TrackerConfig(high_score=0.5, new_track_score=0.6))
    boxes = tracker.update(found(square(100, 100), square(300, 100, score=0.4)), 0.0, SIZE)
    assert [b.association for b in boxes] == [AssociationStage.HIGH, AssociationStage.TENTATIVE]
    boxes = tracker.update(found(square(300, 100, score=0.7), square(100, 100, score=0.3)), 1 / 30, SIZE)
    assert [(b.id, b.association) for b in boxes] == [(2, AssociationStage.HIGH), (1, AssociationStage.LOW)]
    assert [b.association for b in tracker.update(found(), 2 / 30, SIZE)] == [None, None]


def test_no_track_goes_on_over_a_cut() -> None:
    tracker = Tracker(TrackerConfig())
    both = [square(100, 100), square(300, 100)]
    for i in range(5):
        tracker.update(found(*both), i / 30, SIZE)
    seen = [b for b in tracker.update(found(*both), 5 / 30, SIZE, scene=1) if b.state is BoxState.OBSERVED]
    assert {b.id for b in seen} == {3, 4}
    assert {b.id for b in tracker.update(found(*both), 6 / 30, SIZE, scene=1)} == {3, 4}
    assert {b.id for b in tracker.update(found(), 7 / 30, SIZE, scene=1)} == {3, 4}


def test_a_flash_is_covered_and_faces_are_the_same_after_it() -> None:
    tracker = Tracker(TrackerConfig())
    for i in range(5):
        tracker.update(found(square(100, 100)), i / 30, SIZE)
    flash = tracker.update(found(square(400, 100)), 5 / 30, SIZE, scene=1)
    assert [(b.id, b.state) for b in flash] == [(2, BoxState.OBSERVED), (1, BoxState.COASTED)]
    after = tracker.update(found(square(100, 100)), 6 / 30, SIZE, scene=0)
    assert [(b.id, b.state) for b in after] == [(1, BoxState.OBSERVED)]


def test_after_a_cut_a_face_is_believed_at_first_sight() -> None:
    doubtful = found(square(100, 100, score=0.3))
    lives_on = []
    for after_s in (0.0, 0.5):
        tracker = Tracker(TrackerConfig())
        tracker.update(found(), 0.0, SIZE)
        tracker.update(found(), 0.1, SIZE, scene=1)
        tracker.update(doubtful, 0.1 + after_s, SIZE, scene=1)
        lives_on.append(bool(tracker.update(found(), 0.15 + after_s, SIZE, scene=1)))
    assert lives_on == [True, False]


def test_tracks_follow_the_camera() -> None:
    """It jumps about by up to 60 px a frame, and zooms once; the faces, of 20 px, stand."""
    rng = np.random.default_rng(0)
    with_motion, without_motion = Tracker(TrackerConfig()), Tracker(TrackerConfig())
    place, ids = np.zeros(2), set()
    for i in range(30):
        step = rng.uniform(-60, 60, 2) if i else np.zeros(2)
        affine = np.array([[1, 0, step[0]], [0, 1, step[1]]])
        place += step
        faces = found(*(square(300 + x + place[0], 150 + y + place[1], 20) for x, y in ((0, 0), (50, 10), (20, 60))))
        ids |= {b.id for b in with_motion.update(faces, i / 30, SIZE, affine)}
        without_motion.update(faces, i / 30, SIZE)
    assert ids == {1, 2, 3}
    assert without_motion.next_id > 10
    before = with_motion.filters.xyxy()
    boxes = with_motion.update(found(), 1.0, (4000, 4000), np.array([[2.0, 0, 5], [0, 2.0, 7]]))
    middle = np.array([((b.xyxy[0] + b.xyxy[2]) / 2, (b.xyxy[1] + b.xyxy[3]) / 2) for b in boxes])
    assert np.abs(middle - ((before[:, :2] + before[:, 2:]) + (5, 7))).max() < 12  # of up to 700 that they moved
    assert all(b.xyxy[2] - b.xyxy[0] > 38 for b in boxes)


def test_pace_is_the_motion_of_the_fastest_face_in_its_own_sides() -> None:
    tracker = Tracker(TrackerConfig())
    for i in range(30):
        tracker.update(found(square(100 + 4 * i, 100), square(300 + 2 * i, 250)), i / 30, SIZE)
    assert 0.09 < tracker.max_speed < 0.11
    tracker.update(found(), 1.0, SIZE, np.array([[1.0, 0, 30], [0, 1, 0]]))
    assert 0.8 < tracker.max_speed < 0.9


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_no_detection_is_ever_missing_and_no_id_comes_twice_in_a_frame_or_in_two_scenes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracker = Tracker(TrackerConfig())
    time, scene, owner = 0.0, 0, {}
    for _ in range(15):
        count = int(rng.integers(0, 8))
        corner = rng.uniform(-20, 600, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(2, 120, (count, 2))], 1).astype(np.float32)
        scores = rng.uniform(0.01, 1, count).astype(np.float32)
        scene += rng.random() < 0.1
        affine = np.eye(2, 3) + rng.normal(0, (0.02, 0.02, 20), (2, 3)) if rng.random() < 0.5 else None
        looks = rng.random() < 0.8
        out = tracker.update(Detections(boxes, scores) if looks else None, time, SIZE, affine, scene)
        seen = [b for b in out if b.state is BoxState.OBSERVED]
        expected = zip(boxes.tolist(), scores.tolist(), strict=True) if looks else ()
        assert [(b.xyxy, b.score) for b in seen] == [(tuple(box), score) for box, score in expected]
        assert all(owner.setdefault(b.id, scene) == scene for b in seen)
        assert len({b.id for b in out}) == len(out)
        assert all(np.isfinite(b.xyxy).all() for b in out)
        time += float(rng.uniform(0.001, 0.4))


def test_covariance_stays_sane_over_ten_thousand_frames() -> None:
    tracker = Tracker(TrackerConfig())
    rng = np.random.default_rng(0)
    for i in range(10_000):
        jitter = rng.normal(0, 1, 2)
        seen = rng.random() < 0.9
        tracker.update(found(square(300 + jitter[0], 150 + jitter[1])) if seen else found(), i / 30, SIZE)
    value, _, pp, ps, ss = tracker.filters.table
    assert len(tracker.tracks) == 1
    assert (pp > 0).all()
    assert (pp * ss >= ps**2 - 1e-9).all()
    assert np.abs(value[0, :2] - (320, 170)).max() < 5


def test_where_faces_should_be_in_the_next_frame() -> None:
    """Those seen, those that are missed, and one seen once; not one that was missed for too long, or before a cut."""
    tracker = Tracker(TrackerConfig(coast_s=0.4))
    missed, gone = square(300, 100), square(500, 100)
    for i in range(20):
        rows = (
            [square(100 + 5 * i, 100)]
            + [missed] * (i < 15)
            + [gone] * (i < 6)
            + [square(300, 280, 20, 0.3)] * (i == 19)
        )
        tracker.update(found(*rows), i / 30, SIZE)
    ahead = tracker.predict_boxes(20 / 30)
    middles = sorted(((ahead[:, :2] + ahead[:, 2:]) / 2).tolist())
    assert np.abs(np.array(middles) - [[220, 120], [310, 290], [320, 120]]).max() < 5
    certain, guessed = (next(b for b in ahead.tolist() if abs((b[0] + b[2]) / 2 - x) < 6) for x in (220, 320))
    assert certain[2] - certain[0] < guessed[2] - guessed[0] < 81  # grown with the doubt
    panned = tracker.predict_boxes(20 / 30, np.array([[1.0, 0, 50], [0, 1, 0]]))
    assert np.allclose(panned, ahead + np.array([50, 0, 50, 0]))
    assert np.allclose(tracker.predict_boxes(None), tracker.predict_boxes(20 / 30), atol=0.5)
    assert len(tracker.predict_boxes(5.0)) == 3  # nothing is changed by asking
    tracker.update(found(), 20 / 30, SIZE, scene=1)
    tracker.update(found(), 21 / 30, SIZE, scene=1)
    assert not len(tracker.predict_boxes(22 / 30))
    assert not len(Tracker(TrackerConfig()).predict_boxes(0.0))
