"""A picture's planes as numpy arrays, the detector's input made of them, and mapping of displayed boxes onto them.

Formats are those of picture.PLANAR. The displayed picture is the stored one, mirrored left to right if `mirrored`, then
rotated counter-clockwise by `rotation`; boxes are xyxy in displayed pixels, except in `to_stored`'s result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange
from facestream.engines.boxes import F32, Array
from facestream.engines.letterbox import ImageView, canvas, fit
from facestream.engines.types import HostFrame
from facestream.pipeline.types import Frame
from facestream.pipeline.video.picture import convert
from facestream.pipeline.video.tone import TONE_CURVES


@dataclass(frozen=True, slots=True)
class Plane:
    """pixels: [h, w] or, for interleaved chroma, [h, w, 2]; uint8 or uint16, a view into the picture.

    across, down: picture pixels for one of its pixels (1 or 2).
    """

    pixels: Array
    across: int
    down: int


def planes(picture: av.VideoFrame) -> list[Plane]:
    """Views of a picture's planes, without padding; writing into them writes into the picture."""
    out = []
    wide = picture.format.components[0].bits > 8
    for index, plane in enumerate(picture.planes):
        buffer: Any = plane
        rows = np.frombuffer(buffer, np.uint8).reshape(-1, plane.line_size)[: plane.height]
        pixels: Array = rows.view(np.uint16) if wide else rows
        pairs = picture.format.name == "nv12" and index == 1
        pixels = pixels[:, : plane.width * (2 if pairs else 1)]
        if pairs:
            pixels = pixels.reshape(plane.height, plane.width, 2)
        chroma = index > 0 and picture.format.name != "gbrp"
        across = 2 if chroma and ("420" in picture.format.name or "422" in picture.format.name or pairs) else 1
        down = 2 if chroma and ("420" in picture.format.name or pairs) else 1
        out.append(Plane(pixels, across, down))
    return out


@dataclass(slots=True)
class Scratch:
    """Reused buffers for detector input: allocating new ones costs more than filling them.

    planes: uint8 [h * 3 / 2, w], a small picture's planes one behind the other; rgb: see letterbox.canvas().
    """

    planes: Array
    rgb: Array

    @staticmethod
    def of(width: int, height: int) -> Scratch:
        """Allocate for views of this size, both even."""
        return Scratch(np.empty((height * 3 // 2, width), np.uint8), canvas(width, height))


class Viewer:
    """Creates detector inputs of frames. One is valid until the next is created."""

    def __init__(self) -> None:
        self._scratch: Scratch | None = None

    def view(self, frame: Frame, limit: tuple[int, int]) -> ImageView:
        """See rgb_view()."""
        picture = frame.picture
        width, height = _stored_fit(frame, limit)
        width = max(2, width // 2 * 2)
        height = max(2, height // 2 * 2)
        if self._scratch is None or self._scratch.planes.shape != (height * 3 // 2, width):
            self._scratch = Scratch.of(width, height)
        small = _small_rgb(picture, [plane.pixels for plane in planes(picture)], width, height, self._scratch)
        small = _tone_mapped(small, picture)
        if frame.rotation or frame.mirrored:
            return ImageView(np.ascontiguousarray(upright(small, frame)), *frame.size)
        return ImageView(small, *frame.size, self._scratch.rgb if small.base is self._scratch.rgb else None)


def view_scale(frame: Frame, limit: tuple[int, int]) -> float:
    """Scale from the displayed picture's square pixels to a view inside `limit`, at most 1."""
    return fit(*frame.square_size, *limit)[0] / frame.square_size[0]


def upright(pixels: Array, frame: Frame) -> Array:
    """Stored pixels [h, w, ...] as they are displayed; a view."""
    flipped = pixels[:, ::-1] if frame.mirrored else pixels
    return np.rot90(flipped, frame.rotation // 90)


def upright_picture(picture: av.VideoFrame, frame: Frame) -> av.VideoFrame:
    """The frame's picture in display orientation, for outputs without orientation metadata."""
    if not frame.rotation and not frame.mirrored:
        return picture
    sideways = frame.rotation in (90, 270)
    if sideways and "422" in picture.format.name:  # 4:4:0 is no format that encoders take
        picture = convert(picture, picture.format.name.replace("422", "444"))
    sides = (picture.height, picture.width) if sideways else (picture.width, picture.height)
    turned = av.VideoFrame(*sides, picture.format.name)
    for old, new in zip(planes(picture), planes(turned), strict=True):
        new.pixels[:] = upright(old.pixels, frame)
    turned.pts = picture.pts
    turned.duration = picture.duration
    if picture.time_base is not None:
        turned.time_base = picture.time_base
    turned.color_range = picture.color_range
    turned.colorspace = picture.colorspace
    turned.color_primaries = picture.color_primaries
    turned.color_trc = picture.color_trc
    return turned


def _stored_fit(frame: Frame, limit: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the stored picture inside `limit`, in square pixels."""
    width, height = fit(*frame.square_size, *limit)
    return (height, width) if frame.rotation in (90, 270) else (width, height)


def rgb_view(frame: Frame, limit: tuple[int, int]) -> ImageView:
    """The detector's input: the displayed picture, upright, in RGB, inside `limit` (width, height).

    The planes are reduced first, and only the reduced picture is converted.
    """
    return Viewer().view(frame, limit)


def host_frame(frame: Frame, limit: tuple[int, int]) -> HostFrame | None:
    """A frame's planes for a detector that fits them inside `limit` (width, height) itself; None for formats other
    than 8-bit 4:2:0, for mirrored ones and for HDR."""
    picture = frame.picture
    if frame.mirrored or picture.color_trc in TONE_CURVES:
        return None
    layout = picture.format.name.replace("yuvj", "yuv")
    if layout not in ("nv12", "yuv420p"):
        return None
    full_range = picture.format.name.startswith("yuvj") or picture.color_range == ColorRange.JPEG
    arrays = tuple(plane.pixels for plane in planes(picture))
    return HostFrame(layout, arrays, fit(*frame.square_size, *limit), *frame.size, frame.rotation, full_range)


def luma_view(frame: Frame, longest: int) -> tuple[Array, float]:
    """The displayed picture's luma, upright, uint8 [h, w], its longer side at most `longest`; and its scale to the
    picture. RGB uses green, deeper formats their upper eight bits."""
    picture = frame.picture
    plane = planes(picture)[0].pixels
    scale = min(1.0, longest / max(plane.shape))
    small = plane
    if scale < 1:
        size = round(plane.shape[1] * scale), round(plane.shape[0] * scale)
        small = shrunk(plane, max(1, size[0]), max(1, size[1]))
    bits = picture.format.components[0].bits
    luma = (small >> (bits - 8)).astype(np.uint8) if bits > 8 else small
    luma = _tone_mapped(luma, picture)
    luma = upright(luma, frame)
    # Never the picture's own memory, which is covered and reused while this is still needed.
    own = np.ascontiguousarray(luma) if scale < 1 or bits > 8 else luma.copy()
    return own, luma.shape[1] / frame.size[0]


def part_rgb(frame: Frame, layers: list[Plane], region: tuple[int, int, int, int], size: tuple[int, int]) -> Array:
    """A part of the displayed picture, upright, in RGB, uint8 [h, w, 3].

    layers: the picture's planes(). region: left, top, right, bottom in displayed pixels, inside the picture, its sides
    on even pixels or the picture's edge. size: width and height, even.
    """
    picture = frame.picture
    turned = frame.rotation % 180 != 0
    box = to_stored(np.array([region], np.float32), frame)[0]
    left, top, right, bottom = (round(v) for v in box.tolist())
    parts = [
        layer.pixels[top // layer.down : -(-bottom // layer.down), left // layer.across : -(-right // layer.across)]
        for layer in layers
    ]
    width, height = size[::-1] if turned else size
    scratch = Scratch(np.empty((height * 3 // 2, width), np.uint8), np.empty((height, width, 3), np.uint8))
    return upright(_tone_mapped(_small_rgb(picture, parts, width, height, scratch), picture), frame)


def _tone_mapped(pixels: Array, picture: av.VideoFrame) -> Array:
    """8-bit HDR pixels tone-mapped to SDR, which the detector was trained on; others unchanged."""
    curve = TONE_CURVES.get(picture.color_trc)
    return pixels if curve is None else cv2.LUT(pixels, curve, pixels if pixels.flags.c_contiguous else None)


def _small_rgb(picture: av.VideoFrame, layers: list[Array], width: int, height: int, scratch: Scratch) -> Array:
    """A picture, or the part of it that `layers` are, in this size."""
    name = picture.format.name
    if name in ("gray", "gbrp"):
        parts = [_shrink(pixels, width, height) for pixels in layers]
        return cv2.merge([parts[0]] * 3 if name == "gray" else [parts[2], parts[0], parts[1]])
    bits = picture.format.components[0].bits
    luma = scratch.planes[:height]
    chroma = scratch.planes[height:]
    pairs = chroma.reshape(height // 2, width // 2, 2)
    slots = [luma, pairs] if name == "nv12" else [luma, *chroma.reshape(2, height // 2, width // 2)]
    for pixels, slot in zip(layers, slots, strict=True):
        part = pixels
        if slot is not luma or bits > 8:
            part = _shrink(pixels, width, height)
        if bits > 8:
            part = (part >> (bits - 8)).astype(np.uint8)
        shrunk(part, slot.shape[1], slot.shape[0], slot)
    if name.startswith("yuvj") or picture.color_range == ColorRange.JPEG:
        # OpenCV takes 16..235 for black and white: bring full range there.
        cv2.convertScaleAbs(luma, luma, 219 / 255, 16)
    code = cv2.COLOR_YUV2RGB_NV12 if name == "nv12" else cv2.COLOR_YUV2RGB_I420
    rgb = scratch.rgb[:height, :width]
    cv2.cvtColor(scratch.planes, code, rgb)
    return rgb


def _shrink(pixels: Array, width: int, height: int) -> Array:
    h, w = pixels.shape[:2]
    if (w, h) == (width, height):
        return pixels
    return shrunk(pixels, min(w, width), min(h, height))


def shrunk(pixels: Array, width: int, height: int, out: Array | None = None) -> Array:
    """A plane in this size: halved by averaging as long as that leaves enough, the rest of the way (less than half)
    between neighbours. OpenCV's average over areas takes 5 to 20 times as long wherever it does not just halve.

    out: where to, of this size.
    """
    h, w = pixels.shape[:2]
    while h % 2 == w % 2 == 0 and h > 2 * height and w > 2 * width:
        h = h // 2
        w = w // 2
        pixels = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
    near = h < 2 * height and w < 2 * width
    return cv2.resize(pixels, (width, height), out, interpolation=cv2.INTER_LINEAR if near else cv2.INTER_AREA)


def to_stored(xyxy: F32, frame: Frame) -> F32:
    """Boxes [N, 4] of the displayed picture on the stored picture."""
    width = frame.picture.width
    height = frame.picture.height
    rotation = frame.rotation
    x0, y0, x1, y1 = xyxy.T
    if rotation == 90:
        x0, y0, x1, y1 = width - y1, x0, width - y0, x1
    elif rotation == 180:
        x0, y0, x1, y1 = width - x1, height - y1, width - x0, height - y0
    elif rotation == 270:
        x0, y0, x1, y1 = y0, height - x1, y1, height - x0
    if frame.mirrored:
        x0, x1 = width - x1, width - x0
    return np.stack([x0, y0, x1, y1], 1)
