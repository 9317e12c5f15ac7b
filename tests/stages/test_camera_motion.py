from __future__ import annotations

import cv2
import numpy as np
import pytest
from facestream.pipeline.stages.analyse import camera_motion as motion_module
from facestream.pipeline.stages.analyse.camera_motion import CameraMotionEstimator, _fit
from facestream.pipeline.stages.settings import DEFAULTS

SIZE = (1280, 720)
SETTINGS = DEFAULTS.camera_motion
LEAST = SETTINGS.min_corners
TURN = SETTINGS.max_turn
WIDTH = SETTINGS.side
ZOOM = SETTINGS.max_zoom


def scenery(seed: int = 0) -> np.ndarray:
    """Something with corners, 1500 x 2400, of which pictures are taken."""
    rng = np.random.default_rng(seed)
    rough = cv2.resize(rng.integers(30, 220, (60, 96)).astype(np.uint8), (2400, 1500), interpolation=cv2.INTER_CUBIC)
    for x, y, w, h, level in rng.integers((0, 0, 20, 20, 0), (2400, 1500, 200, 200, 255), (150, 5)).tolist():
        cv2.rectangle(rough, (x, y), (x + w, y + h), level, -1)
    return rough


SCENERY = scenery()


def camera(x: float = 0, y: float = 0, zoom: float = 1, turn: float = 0) -> np.ndarray:
    """[2, 3]: from the middle of the scenery's pixels to a picture's."""
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    linear = np.array([[c, -s], [s, c]])
    return np.concatenate([linear, (np.array(SIZE) / 2 + (x, y) - linear @ (1200, 750))[:, None]], 1)


def shot(affine: np.ndarray, noise: float = 1.0) -> np.ndarray:
    """The picture's luma at half its size; coordinates of `affine` count from the corner of the upper left pixel."""
    half = affine / 2
    half = half.copy()
    half[:, 2] += half[:, :2] @ (0.5, 0.5) - 0.5
    small = cv2.warpAffine(SCENERY, half, (SIZE[0] // 2, SIZE[1] // 2), flags=cv2.INTER_AREA).astype(float)
    return np.clip(small + np.random.default_rng(int(abs(affine).sum())).normal(0, noise, small.shape), 0, 255).astype(
        np.uint8
    )


def between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    full = np.vstack([before, [0, 0, 1]])
    return (np.vstack([after, [0, 0, 1]]) @ np.linalg.inv(full))[:2]


CORNERS = np.array([[0, 0, 1], [1280, 0, 1], [0, 720, 1], [1280, 720, 1], [640, 360, 1]]).T


@pytest.mark.parametrize(
    "to", [{"x": 30, "y": -12}, {"zoom": 1.05}, {"turn": 0.03}, {"x": -20, "y": 9, "zoom": 0.97, "turn": -0.02}]
)
def test_the_cameras_motion_is_found_in_displayed_pixels(to: dict[str, float]) -> None:
    motion = CameraMotionEstimator()
    before, after = camera(), camera(**to)
    assert motion.update(shot(before), SIZE) is None
    found = motion.update(shot(after), SIZE)
    assert found is not None
    off = (found - between(before, after)) @ CORNERS
    assert np.abs(off).max() < 2.0  # half a pixel of the small picture
    assert np.abs(off[:, 4]).max() < 0.8  # in the middle


def test_a_still_picture_says_nothing() -> None:
    motion = CameraMotionEstimator()
    assert [motion.update(shot(camera()), SIZE) for _ in range(3)] == [None] * 3


def test_it_is_not_measured_while_the_picture_is_still(monkeypatch: pytest.MonkeyPatch) -> None:
    motion = CameraMotionEstimator()
    motion.update(shot(camera()), SIZE)
    monkeypatch.setattr(cv2, "calcOpticalFlowPyrLK", lambda *_, **__: pytest.fail("measured"))
    motion.update(shot(camera()), SIZE)


def test_somebody_who_walks_past_is_no_motion_of_the_camera() -> None:
    motion = CameraMotionEstimator()
    rng = np.random.default_rng(1)
    person = cv2.resize(rng.integers(0, 255, (16, 10)).astype(np.uint8), (200, 320), interpolation=cv2.INTER_NEAREST)
    for i in range(5):
        picture = shot(camera())
        picture[30:350, 60 + 30 * i : 260 + 30 * i] = person
        assert motion.update(picture, SIZE) is None


def test_a_pan_is_found_behind_somebody_who_stands() -> None:
    motion = CameraMotionEstimator()
    rng = np.random.default_rng(1)
    person = cv2.resize(rng.integers(0, 255, (16, 10)).astype(np.uint8), (150, 320), interpolation=cv2.INTER_NEAREST)
    found = None
    for i in range(2):
        picture = shot(camera(x=24 * i))
        picture[30:350, 240:390] = person
        found = motion.update(picture, SIZE)
    assert found is not None
    assert np.abs(found[:, 2] - (24, 0)).max() < 1.5


def test_a_slow_pan_is_told_in_sum() -> None:
    motion = CameraMotionEstimator()
    total = 0.0
    for i in range(41):
        found = motion.update(shot(camera(x=0.5 * i)), SIZE)
        total += 0 if found is None else found[0, 2] + (found[0, 0] - 1) * 640
    assert abs(total - 20) < 3


def test_a_cut_and_an_empty_picture_are_no_motion() -> None:
    motion = CameraMotionEstimator()
    motion.update(shot(camera()), SIZE)
    assert motion.update(cv2.resize(scenery(7), (640, 360), interpolation=cv2.INTER_AREA), SIZE) is None
    assert motion.update(np.full((360, 640), 90, np.uint8), SIZE) is None
    assert motion.update(np.full((360, 640), 120, np.uint8), SIZE) is None
    assert motion.update(np.full((640, 360), 120, np.uint8), SIZE[::-1]) is None


@pytest.mark.parametrize(
    ("shape", "small"), [((360, 640), (180, 320)), ((640, 360), (320, 180)), ((90, 160), (90, 160))]
)
def test_the_longer_side_is_shrunk_and_never_enlarged(shape: tuple[int, int], small: tuple[int, int]) -> None:
    motion = CameraMotionEstimator()
    motion.update(np.zeros(shape, np.uint8), SIZE)
    assert motion.last is not None
    assert motion.last.shape == small
    assert max(small) <= WIDTH


def points() -> np.ndarray:
    return np.stack(np.meshgrid(np.linspace(0, 1280, 10), np.linspace(0, 720, 8)), -1).reshape(-1, 2)


def moved(before: np.ndarray, zoom: float = 1.0, turn: float = 0.0) -> np.ndarray:
    linear = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return before @ linear.T + (9, 4)


@pytest.mark.parametrize(
    ("zoom", "turn", "accepted"),
    [
        (0.97 * ZOOM, 0.0, True), (1.03 * ZOOM, 0.0, False), (1.03 / ZOOM, 0.0, True), (0.97 / ZOOM, 0.0, False),
        (1.0, 0.97 * TURN, True), (1.0, 1.03 * TURN, False), (1.0, -1.03 * TURN, False),
    ],
)  # fmt: skip
def test_no_camera_zooms_or_turns_that_fast(zoom: float, turn: float, accepted: bool) -> None:
    found = _fit(points(), moved(points(), zoom, turn), np.array(SIZE), 4.0, SETTINGS)
    assert (found is not None) == accepted


def test_most_points_must_agree_and_all_over_the_picture() -> None:
    before, size = points(), np.array(SIZE)
    after, stray = moved(before), np.random.default_rng(0).uniform(-300, 300, before.shape)
    for share, accepted in ((0.6, True), (0.4, False)):
        speaks = (np.random.default_rng(1).permutation(len(before)) < share * len(before))[:, None]
        assert (_fit(before, np.where(speaks, after, before + stray), size, 4.0, SETTINGS) is not None) == accepted
    for squeeze, accepted in (((1, 1), True), ((1, 0.3), False), ((0.3, 1), False)):
        near = before * squeeze
        assert (_fit(near, moved(near), size, 4.0, SETTINGS) is not None) == accepted


@pytest.mark.parametrize(("count", "accepted"), [(LEAST - 1, False), (LEAST, True)])
def test_a_few_corners_say_nothing(monkeypatch: pytest.MonkeyPatch, count: int, accepted: bool) -> None:
    some = points()[np.linspace(0, 79, count).round().astype(int)] / 4
    monkeypatch.setattr(motion_module, "_flow", lambda *_: (some, some + 5))
    motion = CameraMotionEstimator()
    motion.update(shot(camera()), SIZE)
    assert (motion.update(shot(camera(x=20, y=20)), SIZE) is not None) == accepted
