"""Scene cuts: where a picture has nothing to do with the one before it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.video.planes import shrunk

SIZE = (64, 36)
BINS = 32
# A picture is new when its pixels and its histogram both differ (a pan changes the first, a lamp the second
# alone); mean absolute difference of luma, and share of the histogram that moved.
PIXELS, HISTOGRAM = 12.0, 0.15
# Or when hardly a pixel stays: two scenes of the same brightness.
ALL_PIXELS = 40.0


@dataclass(frozen=True, slots=True)
class FrameSignature:
    """A picture at 64x36, smoothed, and its histogram's cumulated shares."""

    small: Array
    shares: Array


def signature_of(luma: Array) -> FrameSignature:
    """luma: uint8 [h, w], any size."""
    small = cv2.GaussianBlur(shrunk(luma, *SIZE), (5, 5), 0).astype(np.float32)
    counts = cv2.calcHist([small], [0], None, [BINS], [0, 256]).ravel()
    return FrameSignature(small, counts / counts.sum())


def differs(a: FrameSignature, b: FrameSignature) -> bool:
    pixels = float(np.abs(a.small - b.small).mean())
    moved = float(np.abs(a.shares - b.shares).sum() / 2)
    return (pixels > PIXELS and moved > HISTOGRAM) or pixels > ALL_PIXELS


class SceneCutDetector:
    """Numbers the scenes of a video, frame by frame.

    A flash is one picture that differs from its neighbours while these are alike. When the
    differing picture comes, that cannot be known yet: it gets a scene number of its own, and the
    picture after it either goes on with that scene (it was a cut) or with the one before (it was a
    flash).
    """

    def __init__(self) -> None:
        self.scene = 0
        self.highest = 0
        self.last: FrameSignature | None = None
        self.before: tuple[int, FrameSignature] | None = None  # the scene and picture before a suspected cut

    def update(self, luma: Array) -> int:
        """The number of the scene that this frame belongs to."""
        now = signature_of(luma)
        if self.last is not None and differs(self.last, now):
            if self.before is not None and not differs(self.before[1], now):
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
