"""Transparency of videos. What it hides is never shown: wholly transparent pixels become white where they are decoded,
and where the output holds no transparency the picture is laid on white."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
from av.video.format import VideoFormat
from av.video.reformatter import ColorRange
from facestream.engines.boxes import Array
from facestream.pipeline.video.picture import to_planar
from facestream.pipeline.video.planes import Plane, planes


def holds_alpha(name: str) -> bool:
    """Whether a pixel format may be transparent; palettes may."""
    kind = VideoFormat(name, 16, 16)
    return kind.has_palette or any(component.is_alpha for component in kind.components)


def split(picture: av.VideoFrame) -> tuple[av.VideoFrame, Array | None]:
    """A planar picture, white where the source is wholly transparent, and its opacity, uint8 [h, w], as stored; None
    where all of it is opaque."""
    if not holds_alpha(picture.format.name):
        return to_planar(picture), None
    alpha: Array = np.ascontiguousarray(picture.to_ndarray(format="rgba")[..., 3])
    if alpha.min() == 255:
        return to_planar(picture), None
    planar = to_planar(picture)
    planar.make_writable()
    hidden = (alpha == 0).astype(np.uint8)
    for index, plane in enumerate(planes(planar)):
        mask = _fitted(hidden * 255, plane, cv2.INTER_AREA) > 0
        plane.pixels[mask] = _white(planar, index)
    return planar, alpha


def flattened(picture: av.VideoFrame, alpha: Array) -> av.VideoFrame:
    """The picture laid on white, in its own memory."""
    picture.make_writable()
    for index, plane in enumerate(planes(picture)):
        share = _fitted(alpha, plane, cv2.INTER_AREA).astype(np.float32) / 255
        if plane.pixels.ndim == 3:
            share = share[..., None]
        white = float(_white(picture, index))
        plane.pixels[:] = np.rint(white + (plane.pixels - white) * share).astype(plane.pixels.dtype)
    return picture


def with_alpha(picture: av.VideoFrame, alpha: Array) -> av.VideoFrame:
    """A 4:2:0 picture with its opacity, as yuva420p."""
    made = av.VideoFrame(picture.width, picture.height, "yuva420p")
    for source, target in zip(planes(picture), planes(made), strict=False):
        target.pixels[:] = source.pixels
    last: Any = made.planes[3]
    rows = np.frombuffer(last, np.uint8).reshape(-1, last.line_size)
    rows[: alpha.shape[0], : alpha.shape[1]] = alpha
    made.pts = picture.pts
    made.duration = picture.duration
    if picture.time_base is not None:
        made.time_base = picture.time_base
    made.color_range = picture.color_range
    made.colorspace = picture.colorspace
    return made


def _fitted(alpha: Array, plane: Plane, how: int) -> Array:
    height, width = plane.pixels.shape[:2]
    return alpha if alpha.shape == (height, width) else cv2.resize(alpha, (width, height), interpolation=how)


def _white(picture: av.VideoFrame, index: int) -> int:
    bits = picture.format.components[0].bits
    if picture.format.name == "gbrp":
        return 255
    if index:
        return 128 << (bits - 8)
    full = picture.format.name.startswith("yuvj") or picture.color_range == ColorRange.JPEG
    return (1 << bits) - 1 if full else 235 << (bits - 8)
