from __future__ import annotations

import numpy as np
import pytest
from facestream.engines.letterbox import GREY, fit, pad, view


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((1920, 1080), (960, 544), (960, 540)),
        ((1080, 1920), (960, 544), (540, 960)),  # upright: the limit turns too
        ((640, 360), (960, 544), (640, 360)),  # never enlarged
        ((4000, 100), (960, 544), (960, 24)),
        ((3, 5000), (960, 544), (1, 960)),  # never empty
    ],
)
def test_fit(size: tuple[int, int], limit: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit(*size, *limit) == expected


def test_view_shrinks_and_remembers_the_size() -> None:
    made = view(np.zeros((1080, 1920, 3), np.uint8), (640, 384))
    assert made.rgb.shape == (360, 640, 3)
    assert (made.width, made.height) == (1920, 1080)
    assert view(np.zeros((10, 20, 3), np.uint8)).rgb.shape == (10, 20, 3)


def test_padding_is_grey_to_the_right_and_below() -> None:
    padded = pad(np.zeros((30, 33, 3), np.uint8))
    assert padded.shape == (32, 64, 3)
    assert (padded[:30, :33] == 0).all()
    assert (padded[30:] == GREY).all()
    assert (padded[:, 33:] == GREY).all()
    assert pad(np.zeros((32, 32, 3), np.uint8)).shape == (32, 32, 3)
