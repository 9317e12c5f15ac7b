"""Pixel formats that the pipeline works on, conversion of others, and display orientation."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import av
import av.filter
import av.video.plane
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video.format import VideoFormat
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

# What cover.py can work on as it is; anything else is converted once, see planar_format().
# fmt: off
PLANAR = frozenset((
    "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "nv12", "gray", "gbrp",
    "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p12le", "yuv444p12le",
))
# fmt: on

_NEWER_KINDS = 16  # of side data that FFmpeg may have and PyAV does not know


def planar_format(name: str) -> str:
    """The format in PLANAR nearest to a pixel format: same chroma (4:2:0 for 4:1:1 and 4:1:0), at least its depth up
    to 12 bits, alpha dropped.

    RGB of 8 bits becomes gbrp; deeper RGB becomes 4:4:4 YUV, since gbrp holds 8 bits only.
    """
    if name in PLANAR:
        return name
    kind = VideoFormat(name, 16, 16)
    bits = max(component.bits for component in kind.components)
    depth = "" if bits <= 8 else "10le" if bits <= 10 else "12le"
    if kind.is_rgb or kind.has_palette or kind.is_bayer:
        return f"yuv444p{depth}" if depth else "gbrp"
    if len(kind.components) < 3:  # gray, gray with alpha, black and white
        return f"yuv420p{depth}" if depth else "gray"
    chroma = {(8, 8): "420", (8, 16): "422", (4, 16): "420", (4, 4): "420"}.get(
        (kind.chroma_width(16), kind.chroma_height(16)), "444"
    )
    return f"yuv{chroma}p{depth}"


def is_subsampled_both_ways(name: str) -> bool:
    """Whether a pixel format is 4:2:0: of others it is clear where the chroma samples lie."""
    kind = VideoFormat(name, 16, 16)
    return (kind.chroma_width(16), kind.chroma_height(16)) == (8, 8)


def to_planar(picture: av.VideoFrame) -> av.VideoFrame:
    """The picture itself if its format is in PLANAR, else a converted copy with the same times and colour tags."""
    return convert(picture, planar_format(picture.format.name))


def convert(picture: av.VideoFrame, name: str, scaler: VideoReformatter | None = None) -> av.VideoFrame:
    """The picture in another pixel format; range, primaries and, if both are YUV, the matrix are kept.

    From RGB to YUV the result is limited-range BT.709 and tagged so. scaler: an FFmpeg scaler to reuse on one thread;
    without it, a new one is created each time. The picture must not be in use on another thread: its colour tags
    change during conversion.
    """
    if picture.format.name == name:
        return picture
    scaler = scaler or VideoReformatter()
    from_rgb = picture.format.is_rgb or picture.format.has_palette or picture.format.is_bayer
    to_rgb = VideoFormat(name, 16, 16).is_rgb
    if from_rgb and not to_rgb:
        return scaler.reformat(picture, format=name, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    if from_rgb or to_rgb:
        return scaler.reformat(picture, format=name)
    full = picture.format.name.startswith("yuvj") or picture.color_range == ColorRange.JPEG
    span = ColorRange.JPEG if full else ColorRange.MPEG
    return scaler.reformat(picture, format=name, src_color_range=span, dst_color_range=span)


def orientation_of(matrix: tuple[int, ...] | None) -> tuple[int, bool]:
    """Degrees counter-clockwise (0, 90, 180 or 270) by which a player rotates the stored picture, and whether it is
    mirrored left to right first.

    A display matrix maps a stored point (x, y) to (a x + c y, b x + d y); a negative determinant mirrors.
    """
    if matrix is None:
        return 0, False
    a = matrix[0]
    b = matrix[1]
    c = matrix[3]
    d = matrix[4]
    mirrored = a * d - b * c < 0
    if mirrored:
        a = -a
        b = -b
    return round(math.degrees(math.atan2(-b, a)) / 90) * 90 % 360, mirrored


def matrix_of(rotation: int, mirrored: bool) -> tuple[int, ...] | None:
    """The display matrix for an orientation; None for the identity."""
    if not rotation and not mirrored:
        return None
    one = 1 << 16
    a, b = {0: (one, 0), 90: (0, -one), 180: (-one, 0), 270: (0, one)}[rotation]
    c = -b
    d = a
    return (-a, -b, 0, c, d, 0, 0, 0, 1 << 30) if mirrored else (a, b, 0, c, d, 0, 0, 0, 1 << 30)


def display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of the stored display matrix (rotation and mirroring), None if there is none."""
    data = side_data(picture).get(SideDataType.DISPLAYMATRIX)
    return None if data is None else struct.unpack("=9i", data[:36])


def side_data(picture: av.VideoFrame) -> dict[SideDataType, bytes]:
    """What a decoder attached to a picture: captions, HDR metadata, how to show it.

    PyAV fails where one kind is newer than itself (camera data of Motion JPEG, views of spatial video): these are taken
    off a copy first.
    """
    try:
        attached: Any = picture.side_data
    except ValueError:
        attached = _without_unknown(picture).side_data
    return {data.type: bytes(data) for data in attached}


def _without_unknown(picture: av.VideoFrame) -> av.VideoFrame:
    graph = av.filter.Graph()
    unit = picture.time_base or Fraction(1, 1000)
    last = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=unit)
    known: list[Any] = [kind.value for kind in SideDataType]
    for kind in range(max(known) + 1, max(known) + 1 + _NEWER_KINDS):
        link = graph.add("sidedata", f"mode=delete:type={kind}")
        last.link_to(link)
        last = link
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(picture)
    found = graph.pull()
    assert isinstance(found, av.VideoFrame)
    return found


def duplicate(picture: av.VideoFrame) -> av.VideoFrame:
    """A copy with its own planes and the same times and colour tags."""
    copy = av.VideoFrame(picture.width, picture.height, picture.format.name)
    for source, target in zip(picture.planes, copy.planes, strict=True):
        width = min(source.line_size, target.line_size)  # rows are padded, each copy to its own width
        _rows(target)[: target.height, :width] = _rows(source)[: target.height, :width]
    copy.pts = picture.pts
    copy.time_base = picture.time_base
    copy.duration = picture.duration
    copy.color_range = picture.color_range
    copy.colorspace = picture.colorspace
    copy.color_primaries = picture.color_primaries
    copy.color_trc = picture.color_trc
    return copy


def _rows(plane: av.video.plane.VideoPlane) -> npt.NDArray[np.uint8]:
    view: Any = plane
    return np.frombuffer(view, np.uint8).reshape(-1, plane.line_size)
