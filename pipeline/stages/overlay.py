"""Boxes and ids drawn on the picture's own planes: to see what is found, with the faces covered or, when asked, not."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import Box, BoxKind, BoxState, CoveredFrame, Frame, TrackedFrame
from facestream.pipeline.video.planes import Plane, planes, to_stored

# Y, U, V of each state's line, for 8 bits: green, orange, blue.
COLOURS = {
    BoxState.OBSERVED: (170, 80, 80),
    BoxState.COASTED: (170, 60, 190),
    BoxState.BACKFILLED: (120, 190, 90),
}


class Drawer:
    """Draws every box of a tracked frame. anonymizer: covers the faces first; None, on explicit `--hide none`, leaves
    them, and then these are pictures with faces."""

    def __init__(self, anonymizer: Anonymizer | None) -> None:
        self._anonymizer = anonymizer

    def cover(self, tracked: TrackedFrame) -> CoveredFrame:
        """The frame with its boxes drawn; the raw picture is overwritten, not copied, where that is safe."""
        frame = tracked.frame
        covered = (
            self._anonymizer.cover(tracked) if self._anonymizer is not None else CoveredFrame(frame.picture, tracked)
        )
        picture = covered.picture
        boxes = [box for box in tracked.boxes if box.kind is not BoxKind.WHOLE_FRAME]
        if boxes:
            picture.make_writable()
            xyxy = np.array([box.xyxy for box in boxes], np.float32)
            stored = to_stored(xyxy, frame)
            bits = picture.format.components[0].bits
            for plane, index in zip(planes(picture), range(3), strict=False):
                for box, corners in zip(boxes, stored, strict=True):
                    _draw(plane, index, bits, box, corners)
        picture.pts = frame.pts
        picture.time_base = frame.time_base
        return CoveredFrame(picture, tracked)


def _draw(plane: Plane, index: int, bits: int, box: Box, corners: np.ndarray) -> None:
    pixels = plane.pixels
    if pixels.ndim == 3:  # interleaved chroma stays: the line is grey there
        return
    colour = COLOURS[box.state][index] << (bits - 8)
    scale = np.array([plane.across, plane.down] * 2)
    x0, y0, x1, y1 = (int(v) for v in np.round(corners / scale))
    thick = max(1, round(pixels.shape[0] / 360))
    cv2.rectangle(pixels, (x0, y0), (x1, y1), colour, thick)
    if index == 0:
        _write(pixels, str(box.id), x0, y0 - 4, 235 << (bits - 8), thick)


def _write(pixels: np.ndarray, text: str, left: int, bottom: int, value: int, thick: int) -> None:
    """A number, its left bottom corner as near to the place as the picture allows. OpenCV writes on 8 bits alone."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    size = max(0.4, pixels.shape[0] / 900)
    (wide, high), _ = cv2.getTextSize(text, font, size, thick)
    mask = np.zeros((high + 2 * thick, wide + 2 * thick), np.uint8)
    cv2.putText(mask, text, (thick, high + thick), font, size, 1, thick)
    top = max(0, min(bottom - mask.shape[0], pixels.shape[0] - mask.shape[0]))
    left = max(0, min(left, pixels.shape[1] - mask.shape[1]))
    area = pixels[top : top + mask.shape[0], left : left + mask.shape[1]]
    area[mask[: area.shape[0], : area.shape[1]] > 0] = value


def placeholder(
    size: tuple[int, int], lines: tuple[str, ...], frame_index: int, pts: int, unit: Fraction
) -> CoveredFrame:
    """A grey picture with words, for a camera that gives none: it shows nothing of what the camera saw.

    size: width and height in pixels, even. pts: its time in units of `unit`.
    """
    width, height = size
    picture = av.VideoFrame(width, height, "yuv420p")
    layers = planes(picture)
    for layer, value in zip(layers, (60, 128, 128), strict=True):
        layer.pixels[:] = value
    scale = max(0.3, height / 480)
    for number, line in enumerate(lines):
        at = round(0.06 * width), round(height * 0.45 + number * 40 * scale)
        thick = max(1, round(2 * scale))
        cv2.putText(layers[0].pixels, line, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 200, thick, cv2.LINE_AA)
    picture.pts = pts
    picture.time_base = unit
    return CoveredFrame(picture, TrackedFrame(Frame(frame_index, pts, unit, picture), ()))
