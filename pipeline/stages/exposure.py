"""Exposure: dark regions of a frame are brightened before the detector sees them.

Detectors learn from pictures that are well exposed. A face in the shadow, or against a bright window, is dark beside a
frame of usual brightness, so no factor for all of it helps: each region gets the gain that its own surroundings need
(Land and McCann, Lightness and retinex theory, 1971; here with one Gaussian, as in its single-scale form).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.stages.settings import DEFAULTS, ExposureSettings
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import luma_view

BLACK = 16  # of video range
UNIT = 32  # of a gain: uint8 holds up to almost eight times


@dataclass(frozen=True, slots=True)
class Exposure:
    """gain: uint8 [h, w], in units of 1/UNIT, all over the displayed frame, whose width and height are `size`."""

    gain: Array
    size: tuple[int, int]

    @staticmethod
    def of(frame: Frame, settings: ExposureSettings = DEFAULTS.exposure) -> Exposure | None:
        """None where nothing is to be brightened."""
        luma, _ = luma_view(frame, settings.side)
        sigma = max(luma.shape) * settings.reach
        around = cv2.GaussianBlur(luma.astype(np.float32), (0, 0), sigma) - BLACK
        gain = (settings.target / np.maximum(around, 1)) ** settings.strength
        units = (np.clip(gain, 1, settings.max_gain) * UNIT).round().astype(np.uint8)
        return Exposure(units, frame.size) if units.max() >= settings.min_gain * UNIT else None

    def apply(self, rgb: Array, region: tuple[int, int, int, int] | None = None) -> None:
        """Brighten, in place, an RGB picture uint8 [h, w, 3] of a region of the displayed frame (None: of all)."""
        height, width = rgb.shape[:2]
        rows, columns = self.gain.shape
        left, top, right, bottom = region or (0, 0, *self.size)
        # Where the middle of the first pixel lies in the map, and how far the next one: as cv2.resize has it.
        across = (right - left) / width * columns / self.size[0]
        down = (bottom - top) / height * rows / self.size[1]
        x = left * columns / self.size[0] + across / 2 - 0.5
        y = top * rows / self.size[1] + down / 2 - 0.5
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        gain = cv2.warpAffine(
            self.gain, np.array([[across, 0, x], [0, down, y]]), (width, height), flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        rgb[:] = cv2.multiply(rgb, cv2.merge([gain, gain, gain]), scale=1 / UNIT)
