"""Dark regions are brightened for the detector, and nothing else."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pytest
from facestream.engines.boxes import Array, iou_xyxy
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.pipeline.config import read
from facestream.pipeline.stages.crop_mosaic import mosaic_of
from facestream.pipeline.stages.detect import FullFrameDetector
from facestream.pipeline.stages.exposure import Exposure
from facestream.pipeline.stages.settings import DEFAULTS, ExposureSettings
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import rgb_view

from tests.pack import demo_frames, demo_truth

SIZE = (320, 192)


def frame_of(rgb: Array, rotation: int = 0, pixels: str = "gbrp") -> Frame:
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixels)
    return Frame(0, 0, Fraction(1, 30), picture, rotation=rotation)


def flat(value: int) -> Array:
    return np.full((SIZE[1], SIZE[0], 3), value, np.uint8)


def half_dark() -> Array:
    rgb = flat(200)
    rgb[:, : SIZE[0] // 2] = 30
    return rgb


def test_a_frame_of_usual_brightness_is_left_alone() -> None:
    assert Exposure.of(frame_of(flat(150))) is None
    assert Exposure.of(frame_of(demo_frames([20])[0])) is None


def test_what_is_dark_is_brightened_and_what_is_not_stays() -> None:
    exposure = Exposure.of(frame_of(half_dark()))
    assert exposure is not None
    shown = half_dark()
    exposure.apply(shown)
    assert shown[:, 0].mean() > 50
    assert shown[:, -1].mean() == 200


def test_the_gain_is_that_of_the_settings_and_has_a_limit() -> None:
    for value, target, strength, gain in ((56, 80.0, 1.0, 2.0), (56, 160.0, 0.5, 2.0), (18, 80.0, 1.0, 6.0)):
        found = Exposure.of(frame_of(flat(value)), ExposureSettings(target=target, strength=strength))
        assert found is not None
        assert found.gain.mean() / 32 == pytest.approx(gain, abs=0.05)
    assert Exposure.of(frame_of(flat(20)), ExposureSettings(strength=0)) is None


def test_bright_pixels_do_not_overflow() -> None:
    rgb = flat(16)
    rgb[90:94, 150:154] = 250
    exposure = Exposure.of(frame_of(rgb))
    assert exposure is not None
    exposure.apply(rgb)
    assert rgb[91, 151].min() == 255


@pytest.mark.parametrize("region", [(0, 0, 160, 96), (100, 40, 220, 120), (288, 160, 320, 192)])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_part_gets_the_gain_that_it_has_in_the_whole(region: tuple[int, int, int, int], scale: int) -> None:
    ramp = np.linspace(20, 120, SIZE[0]).astype(np.uint8)[None, :, None]
    rgb = np.ascontiguousarray(np.broadcast_to(ramp, (SIZE[1], SIZE[0], 3)))
    exposure = Exposure.of(frame_of(rgb))
    assert exposure is not None
    whole = rgb.copy()
    exposure.apply(whole)
    left, top, right, bottom = region
    size = ((right - left) // scale, (bottom - top) // scale)
    part = cv2.resize(rgb[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
    exposure.apply(part, region)
    expected = cv2.resize(whole[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
    assert np.abs(part.astype(int) - expected).max() <= 3


def test_a_turned_frame_is_brightened_where_it_is_shown_dark() -> None:
    frame = frame_of(half_dark(), rotation=90)
    exposure = Exposure.of(frame)
    assert exposure is not None
    shown = rgb_view(frame, SIZE).rgb.copy()
    before = shown.copy()
    exposure.apply(shown)
    brighter = (shown > before).mean(2) > 0.5
    dark = before.mean(2) < 100
    assert brighter[dark].mean() > 0.9
    assert not brighter[~dark][: brighter[~dark].size // 2].all()
    assert (dark.mean(1) > 0.5).any()
    assert not (dark.mean(1) > 0.5).all()


def dark_demo(index: int) -> Frame:
    return frame_of((demo_frames([index])[0] * 0.02).astype(np.uint8), pixels="yuv420p")


def found_of(frame: Frame, index: int, **constants: Any) -> int:
    """How many of the demo's faces are found in a frame."""
    config = read(None, {f"advanced.exposure.{name}": value for name, value in constants.items()})
    detector = load_detector("plainS", DetectorOptions())
    found = FullFrameDetector(detector, config.detector, config.advanced).detect(frame, True)
    truth = demo_truth()[index]
    return int((iou_xyxy(found.xyxy, truth) > 0.4).any(0).sum()) if len(found) else 0


def test_faces_in_the_dark_are_found_as_those_in_light() -> None:
    light = found_of(frame_of(demo_frames([40])[0]), 40)
    with_exposure = found_of(dark_demo(40), 40)
    without = found_of(dark_demo(40), 40, strength=0)
    assert with_exposure == light > without


def test_crops_show_faces_as_bright_as_full_frames_do() -> None:
    frame = dark_demo(40)
    box = demo_truth()[40][0]
    mosaic = mosaic_of(box[None], frame.size, 1.0, 1e6)
    assert mosaic is not None
    exposure = Exposure.of(frame, DEFAULTS.exposure)
    assert exposure is not None
    ((crop, x, y),) = mosaic.placed
    shown = mosaic.view(frame, exposure).rgb[y : y + crop.height, x : x + crop.width]
    assert shown.mean() > 2 * mosaic.view(frame).rgb[y : y + crop.height, x : x + crop.width].mean()
