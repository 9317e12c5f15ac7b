"""Webcams: what they are called, and how FFmpeg opens them, on each system.

A webcam is a number from 0, as the system counts them, or `webcam:NAME`: a device file on Linux, the camera's name
elsewhere.
"""

from __future__ import annotations

import re
import sys

import av.device
from facestream.pipeline.errors import BadInput

_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


def device_of(name: str) -> str | None:
    """The device that a source's name stands for: `0`, `/dev/video0`, `webcam:NAME`. None where it is no webcam."""
    if name.isascii() and name.isdigit():
        return f"/dev/video{int(name)}" if sys.platform == "linux" else str(int(name))
    if sys.platform == "linux" and re.fullmatch(r"/dev/video\d+", name):
        return name
    return name.removeprefix("webcam:") if name.startswith("webcam:") else None


def input_of(device: str) -> tuple[str, str]:
    """What FFmpeg opens for a device, and its name for the kind of devices. Raises BadInput."""
    kind = _FORMATS.get(sys.platform)
    if kind is None:
        raise BadInput(f"webcams are not known on {sys.platform}", device)
    if kind == "avfoundation":
        return f"{device}:none", kind  # no microphone
    if kind == "dshow":
        return f"video={_named(int(device)) if device.isdigit() else device}", kind
    return device, kind


def _named(number: int) -> str:
    """DirectShow knows cameras by name only."""
    names = [found.name for found in av.device.enumerate_input_devices("dshow") if "video" in str(found.media_types)]
    if number >= len(names):
        raise BadInput("there is no such camera", str(number), f"there are: {', '.join(names) or 'none'}")
    return names[number]


def options_of(size: tuple[int, int] | None, fps: float | None, pixel_format: str) -> dict[str, str]:
    """FFmpeg's options for what is asked of a webcam; None and "" leave it the choice."""
    chosen: dict[str, str] = {}
    if size is not None:
        chosen["video_size"] = "{}x{}".format(*size)
    if fps is not None:
        chosen["framerate"] = f"{fps:g}"
    elif sys.platform == "darwin":
        chosen["framerate"] = "30"  # FFmpeg asks for 29.97 there, which most cameras refuse
    if pixel_format:
        chosen["input_format" if sys.platform == "linux" else "pixel_format"] = pixel_format
    return chosen


def how_to_find() -> str:
    """What to do to see which cameras there are."""
    if sys.platform == "linux":
        return "look for cameras with: ls /dev/video*"
    return "cameras are counted from 0; webcam:NAME names one"
