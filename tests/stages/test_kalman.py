"""Each of the filter's operations against the textbook's matrices."""

from __future__ import annotations

import numpy as np
import pytest
from facestream.pipeline.stages.kalman import TICK_S, Kalman
from facestream.pipeline.stages.settings import DEFAULTS, KalmanSettings

POSITION = DEFAULTS.kalman.position_noise
SPEED = DEFAULTS.kalman.speed_noise / TICK_S
BOX = np.array([[100.0, 60.0, 40.0, 50.0], [300.0, 200.0, 20.0, 20.0]])
SIDES = np.concatenate([BOX[:, 2:], BOX[:, 2:]], 1)


def states(filters: Kalman) -> tuple[np.ndarray, np.ndarray]:
    """Means [N, 4, 2] and covariances [N, 4, 2, 2] of position and speed."""
    value, speed, pp, ps, ss = filters.table
    return np.stack([value, speed], -1), np.stack([np.stack([pp, ps], -1), np.stack([ps, ss], -1)], -2)


def moving() -> Kalman:
    filters = Kalman()
    filters.add(BOX)
    for i in range(1, 6):
        filters.predict(TICK_S, np.zeros(2, bool))
        filters.update(np.arange(2), BOX + i * np.array([[3.0, -2, 1, 0.5], [1.0, 1, 0, 0.2]]))
    return filters


def none() -> np.ndarray:
    return np.zeros(2, bool)


def test_filters_begin_at_rest_where_the_boxes_are() -> None:
    filters = Kalman()
    filters.add(BOX)
    mean, covariance = states(filters)
    assert np.allclose(mean[..., 0], BOX)
    assert not mean[..., 1].any()
    assert np.allclose(covariance[..., 0, 0], (2 * POSITION * SIDES) ** 2)
    assert np.allclose(covariance[..., 1, 1], (10 * SPEED * SIDES) ** 2)
    assert not covariance[..., 0, 1].any()


def test_predict_is_the_constant_velocity_model() -> None:
    filters = moving()
    mean, covariance = states(filters)
    sides = np.concatenate([mean[:, 2:, 0]] * 2, 1)
    seconds = 3 * TICK_S
    filters.predict(seconds, none())
    step = np.array([[1, seconds], [0, 1]])
    noise = np.zeros_like(covariance)
    noise[..., 0, 0] = 3 * (POSITION * sides) ** 2
    noise[..., 1, 1] = 3 * (SPEED * sides) ** 2
    after, spread = states(filters)
    assert np.allclose(after, mean @ step.T)
    assert np.allclose(spread, step @ covariance @ step.T + noise)


def test_a_missing_tracks_size_stays_while_its_place_moves_on() -> None:
    filters = moving()
    before = filters.table[0].copy()
    speed = filters.table[1].copy()
    assert np.abs(speed[:, 2:]).min(1).max() > 1, "sizes grow, or the test would show nothing"
    filters.predict(1.0, np.array([True, False]))
    after = filters.table[0]
    assert np.allclose(after[0, 2:], before[0, 2:])
    assert np.allclose(after[0, :2], before[0, :2] + speed[0, :2])
    assert np.allclose(after[1], before[1] + speed[1])
    filters.predict(1.0, none())
    assert np.allclose(filters.table[0, 0, 2:], before[0, 2:]), "it has no speed any more either"


def test_sizes_never_vanish() -> None:
    filters = Kalman()
    filters.add(BOX)
    filters.table[1, :, 2:] = -1000
    filters.predict(1.0, none())
    assert (filters.table[0, :, 2:] == 1).all()


def test_update_is_kalmans() -> None:
    filters = moving()
    filters.predict(TICK_S, none())
    mean, covariance = states(filters)
    untouched = filters.table[:, 0].copy()
    seen = np.array([[305.0, 204.0, 22.0, 21.0]])
    filters.update(np.array([1]), seen)
    after, spread = states(filters)
    assert np.allclose(filters.table[:, 0], untouched)
    sides = np.concatenate([mean[1, 2:, 0]] * 2)
    for axis in range(4):
        look = np.array([[1.0, 0.0]])
        total = look @ covariance[1, axis] @ look.T + (POSITION * sides[axis]) ** 2
        gain = covariance[1, axis] @ look.T / total
        assert np.allclose(after[1, axis], mean[1, axis] + (gain * (seen[0, axis] - mean[1, axis, 0])).ravel())
        assert np.allclose(spread[1, axis], (np.eye(2) - gain @ look) @ covariance[1, axis])


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.5])
def test_warp_takes_places_speeds_sizes_and_all_their_covariances_along(zoom: float) -> None:
    filters = moving()
    mean, covariance = states(filters)
    affine = np.array([[zoom, 0.0, 7.0], [0.0, zoom, -4.0]])
    filters.warp(affine)
    after, spread = states(filters)
    assert np.allclose(after[:, :2, 0], mean[:, :2, 0] * zoom + affine[:, 2])
    assert np.allclose(after[:, :2, 1], mean[:, :2, 1] * zoom)
    assert np.allclose(after[:, 2:], mean[:, 2:] * zoom)
    assert np.allclose(spread, covariance * zoom**2), "of the place and of the size"


def test_warp_turns_places_and_leaves_boxes_upright() -> None:
    filters = Kalman()
    filters.add(BOX)
    before = filters.table.copy()
    filters.warp(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert np.allclose(filters.table[0, :, :2], before[0, :, 1::-1] * (-1, 1))
    assert np.allclose(filters.table[0, :, 2:], before[0, :, 2:])
    assert np.allclose(filters.table[2, :, :2], before[2, :, 1::-1]), "the uncertainty across is the one down"


def test_keeping_some_and_a_copy_of_some() -> None:
    filters = moving()
    some = filters.only(np.array([False, True]))
    some.predict(1.0, np.zeros(1, bool))
    assert np.allclose(filters.table, moving().table), "a copy: the filters themselves stay"
    filters.keep(np.array([False, True]))
    assert np.allclose(filters.table, moving().table[:, 1:])


def test_spread_is_two_deviations_of_the_place_in_longer_sides() -> None:
    filters = Kalman()
    filters.add(BOX)
    assert filters.spread() == pytest.approx([2 * 2 * POSITION] * 2)
    assert filters.xyxy()[0].tolist() == [80, 35, 120, 85]
    assert Kalman(KalmanSettings(position_noise=0.5)).spread().tolist() == []
