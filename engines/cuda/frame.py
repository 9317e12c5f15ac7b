"""Frames in device memory: descriptors of their planes for the preprocessing kernel."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from facestream.engines.boxes import F32
from facestream.engines.cuda.kernels import Launch, pointer
from facestream.engines.letterbox import GREY

LAYOUTS = ("rgb24", "bgr24", "nv12", "yuv420p")


@dataclass(frozen=True, slots=True)
class DeviceFrame:
    """A stored picture of width x height pixels in one of LAYOUTS, on the device.

    planes: addresses of its planes (NV12: luma, chroma pairs). pitches: bytes from one of their rows to the next.
    rotation: degrees counter-clockwise by which it is turned for display. full_range: YUV of 0..255, not 16..235.
    """

    layout: str
    width: int
    height: int
    planes: tuple[int, ...]
    pitches: tuple[int, ...]
    rotation: int = 0
    full_range: bool = False

    @staticmethod
    def packed(
        layout: str, width: int, height: int, address: int, rotation: int = 0, full_range: bool = False
    ) -> DeviceFrame:
        """Planes one after the other, rows without gaps."""
        half = (width + 1) // 2
        if layout in ("rgb24", "bgr24"):
            return DeviceFrame(layout, width, height, (address,), (3 * width,), rotation)
        chroma = address + width * height
        if layout == "nv12":
            return DeviceFrame(layout, width, height, (address, chroma), (width, 2 * half), rotation, full_range)
        if layout != "yuv420p":
            raise ValueError(f"{layout} is none of {LAYOUTS}")
        planes = (address, chroma, chroma + half * ((height + 1) // 2))
        return DeviceFrame(layout, width, height, planes, (width, half, half), rotation, full_range)


def packed_bytes(layout: str, width: int, height: int) -> int:
    if layout in ("rgb24", "bgr24"):
        return 3 * width * height
    return width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What the net expects: (RGB in 0..255 - zero) * scale / std, scale being one for all channels."""

    zero: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1.0

    def row(self) -> F32:
        """float32 [7] as preprocess.cu takes it."""
        gains = np.float32(self.scale) / np.array(self.std, np.float32)
        return np.array([*self.zero, *gains, GREY], np.float32)


def colour_row(full_range: bool) -> F32:
    """float32 [6] as preprocess.cu takes it: ITU-R BT.601, as the detector was shown pictures so far."""
    zero = 0.0 if full_range else 16.0
    luma = 1.0 if full_range else 255 / 219
    chroma = 1.0 if full_range else 255 / 224
    red = 0.299
    blue = 0.114
    v = 2 * (1 - red) * chroma
    u = 2 * (1 - blue) * chroma
    green = 1 - red - blue
    return np.array([zero, luma, v, -u * blue / green, -v * red / green, u], np.float32)


# A row of the table that preprocess.cu reads: struct Source.
SOURCE = np.dtype([
    ("plane", "<u8", 3), ("first_pitch", "<i4"), ("other_pitch", "<i4"), ("first_step", "<i4"), ("other_step", "<i4"),
    ("shift", "<i4"), ("width", "<i4"), ("height", "<i4"), ("fitted_width", "<i4"), ("fitted_height", "<i4"),
    ("turn", "<i4"), ("colour", "<i4"), ("unused", "<i4"),
])  # fmt: skip


def source_row(frame: DeviceFrame, fitted: tuple[int, int]) -> tuple[Any, ...]:
    """A row of SOURCE: the frame, shrunk to `fitted` (width, height, upright)."""
    planes = frame.planes
    pitches = frame.pitches
    yuv = frame.layout in ("nv12", "yuv420p")
    if not yuv:
        order = (0, 1, 2) if frame.layout == "rgb24" else (2, 1, 0)
        addresses = tuple(planes[0] + k for k in order)
        steps = (3, 3)
        other_pitch = pitches[0]
    elif frame.layout == "nv12":
        addresses = (planes[0], planes[1], planes[1] + 1)
        steps = (1, 2)
        other_pitch = pitches[1]
    else:
        addresses = planes
        steps = (1, 1)
        other_pitch = pitches[1]
    colour = int(frame.full_range) if yuv else -1
    sizes = (int(yuv), frame.width, frame.height, *fitted, frame.rotation // 90, colour, 0)
    return (addresses, pitches[0], other_pitch, *steps, *sizes)


def colour_table() -> F32:
    """float32 [2, 6]: the rows of limited and of full range, as `source_row` numbers them."""
    return np.stack([colour_row(False), colour_row(True)])


def preprocess(
    launch: Launch, images: int, table: int, colours: int, norm: int, output: int, canvas: tuple[int, int]
) -> None:
    """Shrink, turn and normalise a batch of frames: the rows of SOURCE at `table` -> half [images, 3, height, width] at
    `output`, `canvas` being (width, height), into whose upper left corner each frame comes; the rest is grey.

    colours, norm: where `colour_table` and `Normalisation.row` lie. All are addresses on the device.
    """
    grid = -(-canvas[0] // 32), -(-canvas[1] // 8), images
    addresses = [pointer(address) for address in (table, colours, norm, output)]
    launch("preprocess", grid, (32, 8, 1), [*addresses, *map(ctypes.c_int, canvas)])
