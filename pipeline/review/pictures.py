"""Frames as the page shows them: JPEG, shrunk, bare or with their covers."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.records import Face
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import XYXY, Frame, Polygon, TrackedFrame
from facestream.pipeline.video.picture import duplicate
from facestream.pipeline.video.planes import rgb_view

QUALITY = 82
WIDTHS = (160, 320, 640, 960, 1280, 1920)  # pixels; the smallest that is enough is taken
CARD = 96  # pixels of a card's picture
AROUND = 1.6  # of a face's longer side


def jpeg(frame: Frame, width: int) -> bytes:
    """A frame, upright, at most about `width` pixels wide."""
    width = next((w for w in WIDTHS if w >= width), WIDTHS[-1])
    return encoded(rgb_view(frame, (min(width, frame.size[0]), 1 << 14)).rgb)


def covered(frame: Frame, faces: list[Face], masks: tuple[Polygon, ...], anonymizer: Anonymizer) -> Frame:
    """A copy of the frame with its covers as they will be."""
    copy = replace(frame, picture=duplicate(frame.picture))
    tracked = TrackedFrame(copy, tuple(face.box() for face in faces), masks)
    anonymizer.cover(tracked)
    return copy


def face_jpeg(frame: Frame, box: XYXY) -> bytes:
    """What a card shows: a square around a face."""
    view = rgb_view(frame, (1920, 1920))
    scale = view.rgb.shape[1] / view.width
    left, top, right, bottom = (v * scale for v in box)
    side = AROUND * max(right - left, bottom - top, 8)
    x = (left + right) / 2
    y = (top + bottom) / 2
    zoom = CARD / side
    move = np.array([[zoom, 0, CARD / 2 - zoom * x], [0, zoom, CARD / 2 - zoom * y]])
    flags = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    return encoded(cv2.warpAffine(view.rgb, move, (CARD, CARD), flags=flags, borderValue=(24, 27, 31)))


def encoded(rgb: Array) -> bytes:
    """As JPEG."""
    return cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
