"""The time line of cameras whose clocks are wrong: pictures evenly apart, and never far from when they came."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from facestream.pipeline.live.clock import LiveClock

STEP = 1 / 12.5  # seconds between pictures

# What a camera says of its n-th picture, taken at t seconds.
CLOCKS: dict[str, Callable[[int, float], float | None]] = {
    "right": lambda n, t: t,
    "three times too fast": lambda n, t: t / 3,  # FFmpeg gives pictures of HTTP cameras 25 a second
    "three times too slow": lambda n, t: t * 3,
    "four percent fast": lambda n, t: t * 1.04,
    "stands still": lambda n, t: 7.0,
    "jumps back": lambda n, t: t if t < 6 else t - 2.5,
    "jumps back again and again": lambda n, t: t % 5,
    "jumps ahead": lambda n, t: t if t < 6 else t + 3600,
    "is missing": lambda n, t: None,
    "is missing at times": lambda n, t: None if n % 40 == 39 else t,
}


@pytest.mark.parametrize("jitter_s", [0.0, 0.03])
@pytest.mark.parametrize("name", CLOCKS)
def test_pictures_are_evenly_apart_and_not_far_from_when_they_came(name: str, jitter_s: float) -> None:
    dice = np.random.default_rng(1)
    clock = LiveClock(100.0)
    came = []
    ticks = []
    for n in range(400):
        taken = n * STEP
        now = 100.0 + taken + 0.05 + float(dice.uniform(0, jitter_s))
        came.append(now - 100.0)
        ticks.append(clock.tick(CLOCKS[name](n, taken), now) / 90000)
    apart = np.diff(ticks)
    assert apart.min() > 0
    steady = slice(60, None)  # after five seconds
    assert apart[steady].max() < 3 * STEP
    assert apart[steady].min() > 0.3 * STEP, apart[steady].min()
    assert np.abs(np.array(ticks) - came)[steady].max() < 0.6
    assert np.abs(np.array(ticks) - came).max() < 2.1  # until the rate is known


def test_a_stall_and_the_burst_after_it_leave_the_time_line_alone() -> None:
    clock = LiveClock(0.0)
    ticks = []
    for n in range(300):
        taken = n * 0.04
        stalled = 4.0 <= taken < 5.5
        ticks.append(clock.tick(taken, 5.5 if stalled else taken))
    apart = np.diff(ticks) / 3600
    assert apart.max() < 1.6
    assert apart.min() > 0.4


def test_sound_is_placed_between_pictures() -> None:
    clock = LiveClock(0.0)
    assert clock.place(1.0) is None
    clock.tick(50.0, 1.0)
    assert clock.place(50.02) == round(1.02 * 90000)
