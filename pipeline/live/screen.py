"""Covered frames for screens: reduced, upright, BGR, with or without boxes, and as JPEG."""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from facestream.engines.boxes import Array
from facestream.pipeline.errors import SinkLost
from facestream.pipeline.live.encode import to_stream_format
from facestream.pipeline.types import BoxKind, BoxState, CoveredFrame

QUALITY = 80  # of JPEG
COLOURS = {  # BGR: green, orange, blue
    BoxState.OBSERVED: (90, 220, 70),
    BoxState.COASTED: (40, 160, 255),
    BoxState.BACKFILLED: (255, 170, 90),
}


class PictureFeed(Protocol):
    """The newest covered frame, BGR; number increases with each. callers: number of WebRTC viewers."""

    number: int
    callers: int
    bgr: Array | None


def scaled_bgr(
    covered: CoveredFrame,
    widest: int,
    highest: int = 1 << 16,
    enlarge: bool = False,
    scaler: VideoReformatter | None = None,
) -> Array:
    """A covered frame, upright, fitted into this size; enlarged only with `enlarge`.

    BGR, uint8 [h, w, 3], with its own memory. scaler: as for picture.convert().
    """
    scaler = scaler or VideoReformatter()
    picture = to_stream_format(covered)
    scale = min(math.inf if enlarge else 1.0, widest / picture.width, highest / picture.height)
    width = max(2, round(picture.width * scale))
    height = max(2, round(picture.height * scale))
    bgr: Array = scaler.reformat(picture, width=width, height=height, format="bgr24").to_ndarray()
    return bgr


def draw_boxes(bgr: Array, covered: CoveredFrame) -> Array:
    """Draw boxes and ids on the result of scaled_bgr(), in place; returns it."""
    tracked = covered.tracked
    scale = np.array([bgr.shape[1] / tracked.frame.size[0], bgr.shape[0] / tracked.frame.size[1]] * 2)
    thick = max(1, round(bgr.shape[0] / 360))
    size = max(0.4, bgr.shape[0] / 900)
    for box in tracked.boxes:
        if box.kind is BoxKind.WHOLE_FRAME:
            continue
        x0, y0, x1, y1 = (int(v) for v in np.round(np.array(box.xyxy) * scale))
        cv2.rectangle(bgr, (x0, y0), (x1, y1), COLOURS[box.state], thick, cv2.LINE_AA)
        at = max(0, x0), max(round(22 * size), y0 - 4)
        cv2.putText(bgr, str(box.id), at, cv2.FONT_HERSHEY_SIMPLEX, size, COLOURS[box.state], thick, cv2.LINE_AA)
    return bgr


def encode(bgr: Array) -> bytes:
    """Encode as JPEG. Raises SinkLost if that fails."""
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not ok:
        raise SinkLost("the picture cannot be compressed", f"{bgr.shape[1]}x{bgr.shape[0]}")
    return data.tobytes()
