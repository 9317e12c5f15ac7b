"""A detector for a simple synthetic face: stripes in a grey image, found wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections

GREY = 120


def striped(box: tuple[int, int, int, int] | None, size: tuple[int, int], seed: int = 0) -> av.VideoFrame:
    """A picture of this width and height with stripes in a box, left, top, right, bottom; its grey is noisy."""
    gray = np.random.default_rng(seed).integers(GREY - 4, GREY + 5, (size[1], size[0]), dtype=np.uint8)
    if box is not None:
        left, top, right, bottom = box
        gray[top:bottom, left:right] = np.where(np.arange(right - left) // 8 % 2, 255, 0)
    return av.VideoFrame.from_ndarray(np.repeat(gray[..., None], 3, 2), format="rgb24").reformat(format="yuv420p")


def mark(image: ImageView) -> Detections:
    """The stripes' box, a little larger, with a score of 1."""
    rows, columns = np.nonzero(np.abs(image.rgb.mean(2) - GREY) > 40)
    if not len(rows):
        return Detections.empty()
    box = np.array([[columns.min() - 2, rows.min() - 2, columns.max() + 3, rows.max() + 3]], np.float32)
    return Detections(box * image.width / image.rgb.shape[1], np.ones(1, np.float32))


class Stripes(Detector):
    """Finds them; remembers how large what it was shown was, and whether that was a sheet."""

    def __init__(self) -> None:
        super().__init__(DetectorOptions())
        self.shown: list[tuple[int, int, bool]] = []

    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        height, width = images[0].rgb.shape[:2]
        self.shown.append((width, height, images[0].padded is images[0].rgb))
        return [mark(image) for image in images]
