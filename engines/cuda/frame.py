"""Pictures in device memory: how the preprocessing and covering kernels are told where their planes lie."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

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
    zero, luma, chroma = (0.0, 1.0, 1.0) if full_range else (16.0, 255 / 219, 255 / 224)
    red, blue = 0.299, 0.114
    v, u = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    green = 1 - red - blue
    return np.array([zero, luma, v, -u * blue / green, -v * red / green, u], np.float32)


def preprocess(
    launch: Launch, picture: DeviceFrame, fitted: tuple[int, int], norm: int, colour: int, output: int,
    out: tuple[int, int],
) -> None:  # fmt: skip
    """Shrink, turn and normalise a picture into output, half [3, height, width] of `out` = (width, height), into whose
    upper left corner it comes as large as `fitted` (width, height, upright).

    norm, colour: addresses of the rows above on the device. Colour is not looked at for RGB and BGR.
    """
    planes, pitches, yuv = picture.planes, picture.pitches, picture.layout in ("nv12", "yuv420p")
    if not yuv:
        base, order = planes[0], (0, 1, 2) if picture.layout == "rgb24" else (2, 1, 0)
        addresses, steps, other_pitch = [base + k for k in order], (3, 3), pitches[0]
    elif picture.layout == "nv12":
        addresses, steps, other_pitch = [planes[0], planes[1], planes[1] + 1], (1, 2), pitches[1]
    else:
        addresses, steps, other_pitch = list(planes), (1, 1), pitches[1]
    numbers = (
        pitches[0],
        other_pitch,
        *steps,
        int(yuv),
        picture.width,
        picture.height,
        *fitted,
        picture.rotation // 90,
    )
    grid = -(-out[0] // 32), -(-out[1] // 8), 1
    tail = [pointer(colour if yuv else 0), pointer(norm), pointer(output), *map(ctypes.c_int, out)]
    launch("preprocess", grid, (32, 8, 1), [*map(pointer, addresses), *map(ctypes.c_int, numbers), *tail])


def cover(
    launch: Launch, picture: DeviceFrame, xyxy: tuple[float, float, float, float], scale: float, shape: str,
    cells: int | None,
) -> None:  # fmt: skip
    """Cover one face of an NV12 picture: its box in stored pixels, grown by `scale`; `cells` squares across it, None
    for mid grey. What pipeline.stages.anonymise does, to the last bit; boxes outside of the picture do nothing."""
    box = np.array(xyxy, np.float32)
    side = float((box[2:] - box[:2]).max())
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * np.float32(scale)
    grown = np.concatenate([centre - half, centre + half])
    left, top = (math.floor(max(0.0, float(v))) // 2 * 2 for v in grown[:2])
    limits = (picture.width, picture.height)
    right, bottom = (min(end, math.ceil(float(v) / 2) * 2) for v, end in zip(grown[2:], limits, strict=True))
    if right <= left or bottom <= top:
        return
    centre, half = (grown[:2] + grown[2:]) / 2, np.maximum((grown[2:] - grown[:2]) / 2, np.float32(0.5))
    cell = max(4, math.ceil(side / (cells or 8)))
    cell += cell % 2
    grid = -(-right // cell) - left // cell, -(-bottom // cell) - top // cell, 1
    (luma, chroma), (luma_pitch, chroma_pitch) = picture.planes, picture.pitches
    numbers = (left, top, right, bottom, cell, int(cells is None), int(shape == "box"))
    planes = [pointer(luma), ctypes.c_int(luma_pitch), pointer(chroma), ctypes.c_int(chroma_pitch)]
    doubles = [ctypes.c_double(float(v)) for v in (*centre, *half)]
    launch("cover", grid, (128, 1, 1), [*planes, *map(ctypes.c_int, numbers), *doubles])
