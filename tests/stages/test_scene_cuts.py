from __future__ import annotations

import numpy as np
import pytest
from facestream.pipeline.stages.analyse.scene_cuts import SceneCutDetector


def scene(seed: int, shift: float = 0.0, light: float = 1.0) -> np.ndarray:
    """A picture of large smooth shapes that can pan, and be lit."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:90, :160]
    out = np.full((90, 160), rng.uniform(60, 160))
    for _ in range(6):
        cx, cy, r, level = rng.uniform(0, 160), rng.uniform(0, 90), rng.uniform(10, 40), rng.uniform(-70, 70)
        out += level * (((x + shift - cx) ** 2 + (y - cy) ** 2) < r**2)
    return np.clip(out * light, 0, 255).astype(np.uint8)


def scenes(frames: list[np.ndarray]) -> list[int]:
    cuts = SceneCutDetector()
    return [cuts.update(f) for f in frames]


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_starts_a_new_scene(seed: int) -> None:
    frames = [scene(seed)] * 3 + [scene(seed + 100)] * 3 + [scene(seed)] * 2
    assert scenes(frames) == [0, 0, 0, 1, 1, 1, 2, 2]


def test_a_pan_and_a_slow_change_of_light_do_not() -> None:
    assert set(scenes([scene(1, 6.0 * i) for i in range(20)])) == {0}
    assert set(scenes([scene(1, 0, 1 - 0.04 * i) for i in range(20)])) == {0}


def test_a_flash_is_not_a_cut() -> None:
    flash = np.full((90, 160), 250, np.uint8)
    assert scenes([scene(3)] * 3 + [flash] + [scene(3, 2.0)] * 3) == [0, 0, 0, 1, 0, 0, 0]


def test_a_cut_after_a_flash_is_one() -> None:
    flash = np.full((90, 160), 250, np.uint8)
    assert scenes([scene(3)] * 2 + [flash] + [scene(104)] * 2) == [0, 0, 1, 2, 2]


def test_two_cuts_in_a_row_are_two_scenes() -> None:
    assert scenes([scene(1), scene(102), scene(203), scene(203)]) == [0, 1, 2, 2]
