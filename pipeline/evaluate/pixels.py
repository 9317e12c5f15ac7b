"""Leak metrics from the pixels of two videos, source and output: works for the output of any tool."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import Array, iou_xyxy
from facestream.pipeline.errors import BadInput
from facestream.pipeline.evaluate.exposed import Filmstrip
from facestream.pipeline.evaluate.leaks import drawn, ellipse_of
from facestream.pipeline.evaluate.tally import FaceFrame, Tally
from facestream.pipeline.types import Frame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.planes import luma_view, rgb_view
from facestream.pipeline.video.source import open_source

DETAIL = 1 / 16  # sigma of the high-pass filter, as a share of the face: what is finer is detail
NEAR = 1 / 4  # side of the window over which detail is compared, as a share of the face
NOISE = 3.0  # grey levels of detail that encoding may remove
LOST = 0.5  # share of the detail that a pixelated cover leaves at most
KEPT = 0.8  # share of the detail that encoding leaves at least
CHANGED = 10.0  # mean difference in grey levels from which 8x8 pixels count as covered


def covered_share(source: Array, output: Array, xyxy: Array) -> tuple[float, int] | None:
    """How much of a face's detail is destroyed, 0..1, and its area in pixels; None outside the frame.

    source, output: luma uint8 [h, w]. xyxy: float [4]. Detail is what a Gaussian of a sixteenth of the face
    removes. Around each pixel of the face's ellipse the output's detail is projected on the source's; the
    remaining share is weighted by the source's detail. Encoding leaves most of it, a pixelated or
    blurred cover next to nothing.
    """
    height, width = source.shape
    part, face = ellipse_of(xyxy, width, height)
    if not face.any():
        return None
    side = float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]))
    sigma = max(1.0, DETAIL * side)
    window = max(3, round(NEAR * side) | 1)
    a, b = (_detail(p[part].astype(np.float32), sigma) for p in (source, output))
    common, own = (cv2.blur(x, (window, window), borderType=cv2.BORDER_REPLICATE) for x in (a * b, a * a))
    left = np.clip((common / (own + NOISE**2) - LOST) / (KEPT - LOST), 0, 1)
    weight = own[face] + NOISE**2
    return 1 - float((left[face] * weight).sum() / weight.sum()), int(face.sum())


def _detail(luma: Array, sigma: float) -> Array:
    return luma - cv2.GaussianBlur(luma, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def measure(
    source: Path,
    output: Path,
    truth: dict[int, dict[int, Array]],
    smallest: float = 0.0,
    again: Detector | None = None,
    strip: Filmstrip | None = None,
) -> Tally:
    """Compare both videos frame by frame. Raises BadInput if they differ in size or number of frames.

    again: a detector to run on the output; a ground-truth face that it still finds counts as redetected.
    """
    tally = Tally()
    for frame, other in pairs(source, output):
        if frame.size != other.size:
            raise BadInput("is {}x{}, the source {}x{}".format(*other.size, *frame.size), str(output))
        a, b = (luma_view(f, 1 << 30)[0] for f in (frame, other))
        faces = truth.get(frame.index, {})
        real = drawn(np.array(list(faces.values())).reshape(-1, 4), *frame.size, "ellipse")
        tally.outside += int((_changed(a, b) & ~real).sum())
        tally.inside += int(real.sum())
        judged = {}
        for track, xyxy in faces.items():
            found = covered_share(a, b, xyxy)
            if max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]) < smallest or found is None:
                continue
            judged[track] = xyxy
            tally.face_frames[track].append(FaceFrame(frame.index, *found, frame.time_s or 0.0))
            if strip is not None:
                strip.add(other, track, xyxy, np.zeros((0, 4)), found[0])
        if again is not None:
            tally.redetected = (tally.redetected or 0) + _redetected(again, other, list(judged.values()))
    return tally


def _redetected(detector: Detector, frame: Frame, faces: list[Array]) -> int:
    """How many of the faces, xyxy [4] each, the detector finds with an IoU of at least 0.3."""
    if not faces:
        return 0
    found = detector.detect([rgb_view(frame, (1280, 1280))])[0]
    return int((iou_xyxy(np.array(faces, np.float32), found.xyxy) >= 0.3).any(1).sum())


def _changed(a: Array, b: Array) -> Array:
    """Pixels whose 8x8 neighbourhood differs by more than encoding explains: bool [h, w]."""
    return cv2.blur(cv2.absdiff(a, b), (8, 8)) > CHANGED


def pairs(source: Path, output: Path) -> Iterator[tuple[Frame, Frame]]:
    """Frames of two videos side by side. BadInput where they differ in number."""
    readers = [open_source(str(path), SourceOptions()) for path in (source, output)]
    try:
        for reader in readers:
            reader.open()
        videos = [(item for item in reader.items() if isinstance(item, Frame)) for reader in readers]
        for frame, other in zip_longest(*videos):
            if frame is None or other is None:
                raise BadInput("does not have as many frames as the source", str(output))
            yield frame, other
    finally:
        for reader in readers:
            reader.close()
