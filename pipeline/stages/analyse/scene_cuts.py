"""Scene cuts: where a picture has nothing to do with the one before it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.stages.settings import DEFAULTS, SceneCutSettings
from facestream.pipeline.video.planes import shrunk


@dataclass(frozen=True, slots=True)
class FrameSignature:
    """A small picture, smoothed, and its histogram's cumulated shares."""

    small: Array
    shares: Array


def signature_of(luma: Array, settings: SceneCutSettings = DEFAULTS.scene_cuts) -> FrameSignature:
    """luma: uint8 [h, w], any size."""
    small = cv2.GaussianBlur(shrunk(luma, settings.width, settings.height), (5, 5), 0).astype(np.float32)
    counts = cv2.calcHist([small], [0], None, [settings.histogram_bins], [0, 256]).ravel()
    return FrameSignature(small, counts / counts.sum())


def is_different(a: FrameSignature, b: FrameSignature, settings: SceneCutSettings = DEFAULTS.scene_cuts) -> bool:
    """Do two pictures show different scenes: their pixels and their histograms both differ (a pan changes the first
    alone, a lamp the second), or hardly a pixel stays (two scenes of the same brightness)."""
    pixels = float(np.abs(a.small - b.small).mean())
    moved = float(np.abs(a.shares - b.shares).sum() / 2)
    both = pixels > settings.pixel_change and moved > settings.histogram_change
    return both or pixels > settings.full_change


class SceneCutDetector:
    """Numbers the scenes of a video, frame by frame.

    A flash is one picture that differs from its neighbours while these are alike. When the
    differing picture comes, that cannot be known yet: it gets a scene number of its own, and the
    picture after it either goes on with that scene (it was a cut) or with the one before (it was a
    flash).
    """

    def __init__(self, settings: SceneCutSettings = DEFAULTS.scene_cuts) -> None:
        self.settings = settings
        self.scene = 0
        self.highest = 0
        self.last: FrameSignature | None = None
        self.before: tuple[int, FrameSignature] | None = None  # the scene and picture before a suspected cut

    def update(self, luma: Array) -> int:
        """The number of the scene that this frame belongs to."""
        now = signature_of(luma, self.settings)
        if self.last is not None and is_different(self.last, now, self.settings):
            if self.before is not None and not is_different(self.before[1], now, self.settings):
                self.scene = self.before[0]
                self.before = None
            else:
                self.before = (self.scene, self.last)
                self.highest += 1
                self.scene = self.highest
        else:
            self.before = None
        self.last = now
        return self.scene
