from __future__ import annotations

import numpy as np
import pytest
from facestream.pipeline.stages.template_match import match_template

from tests.pack import demo_frames, demo_truth


def grey(index: int) -> np.ndarray:
    return demo_frames([index])[0].mean(2).astype(np.uint8)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (9, -5), (-14, 11)])
def test_a_shifted_picture_is_followed(dx: int, dy: int) -> None:
    box = np.array(demo_truth()[20][0], float)
    before = grey(20)
    after = np.roll(before, (dy, dx), (0, 1))
    match = match_template(before, box, after)
    assert match is not None
    assert match.score > 0.9
    assert np.abs(match.xyxy - box - [dx, dy, dx, dy]).max() <= (box[2] - box[0]) / 32 + 1


def test_brightness_does_not_matter_and_absence_shows() -> None:
    box = np.array(demo_truth()[20][0], float)
    before = grey(20)
    dark = (before * 0.5 + 20).astype(np.uint8)
    assert match_template(before, box, dark).score > 0.9  # type: ignore[union-attr]
    noise = np.random.default_rng(0).integers(0, 256, before.shape).astype(np.uint8)
    assert match_template(before, box, noise).score < 0.4  # type: ignore[union-attr]


def test_without_looks_there_is_no_answer() -> None:
    flat = np.full((90, 160), 128, np.uint8)
    assert match_template(flat, np.array([40.0, 40, 70, 70]), flat) is None
    picture = np.random.default_rng(0).integers(0, 256, (90, 160)).astype(np.uint8)
    assert match_template(picture, np.array([40.0, 40, 44, 44]), picture) is None  # too small
    assert match_template(picture, np.array([200.0, 40, 240, 80]), picture) is None  # outside


def test_a_face_at_the_border_is_followed_by_what_is_seen_of_it() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 160)).astype(np.uint8)
    match = match_template(picture, np.array([-10.0, 20, 20, 50]), np.roll(picture, 4, 1))
    assert match is not None
    assert match.xyxy[0] == pytest.approx(-6, abs=1.1)
