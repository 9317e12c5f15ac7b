"""Leak metrics: how much of the ground-truth faces is left uncovered.

Ground truth is a MOT file: `frame,id,left,top,width,height,...`, frame from 1, in pixels of the displayed
frame. A face-frame (one face in one frame) is covered when at least 95 % of the ellipse inside its truth box
lies under the covers, drawn with the shape and scale of the configuration.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from facestream.engines.boxes import Array, grow_xyxy
from facestream.pipeline.config import CoverConfig
from facestream.pipeline.errors import BadInput
from facestream.pipeline.evaluate.exposed import Filmstrip
from facestream.pipeline.evaluate.tally import FaceFrame, Leaks, Tally
from facestream.pipeline.types import TrackedFrame


def read_truth(path: Path) -> dict[int, dict[int, Array]]:
    """Read a ground-truth file: frame (from 0) -> id -> xyxy. Raises BadInput, which names the invalid line."""
    truth: dict[int, dict[int, Array]] = defaultdict(dict)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"cannot read the truth ({e})", str(path)) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            frame, track, left, top, width, height = (float(v) for v in line.split(",")[:6])
        except ValueError:
            raise BadInput("not frame,id,left,top,width,height,...", f"{path}:{number}") from None
        truth[int(frame) - 1][int(track)] = np.array([left, top, left + width, top + height])
    return truth


class LeakMeter:
    """Accumulates leak metrics: pass it to run() as recorder, then call `result`.

    smallest: ignore faces whose longer side is below this, in pixels.
    """

    def __init__(
        self,
        truth: dict[int, dict[int, Array]],
        cover: CoverConfig,
        smallest: float = 0.0,
        strip: Filmstrip | None = None,
    ) -> None:
        self.truth = truth
        self.config = cover
        self.smallest = smallest
        self.strip = strip
        self.tally = Tally()

    def write(self, tracked: TrackedFrame, source: str) -> None:
        index = tracked.frame.index
        width, height = tracked.frame.size
        covers = np.array([box.xyxy for box in tracked.boxes]).reshape(-1, 4)
        covers = grow_xyxy(covers, self.config.scale)
        under = drawn(covers, width, height, self.config.shape)
        faces = self.truth.get(index, {})
        real = drawn(np.array(list(faces.values())).reshape(-1, 4), width, height, "ellipse")
        self.tally.outside += int((under & ~real).sum())
        self.tally.inside += int(real.sum())
        for track, xyxy in faces.items():
            if max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]) < self.smallest:
                continue
            part, face = ellipse_of(xyxy, width, height)
            if face.any():
                share = float(under[part][face].mean())
                face_frame = FaceFrame(index, share, int(face.sum()), tracked.frame.time_s or 0.0)
                self.tally.face_frames[track].append(face_frame)
                if self.strip is not None:
                    self.strip.add(tracked.frame, track, xyxy, covers, share)

    def result(self) -> Leaks:
        return self.tally.result()


def ellipse_of(xyxy: Array, width: int, height: int) -> tuple[tuple[slice, slice], Array]:
    """The rows and columns that a face spans in a frame of this size, and its ellipse there: bool [h, w]."""
    x0, y0 = np.maximum(np.floor(xyxy[:2]).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(xyxy[2:]).astype(int), (width, height))
    face = drawn(xyxy[None] - (x0, y0, x0, y0), x1 - x0, y1 - y0, "ellipse")
    return np.s_[y0 : max(y0, y1), x0 : max(x0, x1)], face


def drawn(xyxy: Array, width: int, height: int, shape: str) -> Array:
    """Rasterise boxes xyxy [N, 4] as filled ellipses or rectangles: bool [height, width]; a pixel is inside if its
    centre is."""
    canvas = np.zeros((max(0, height), max(0, width)), bool)
    for x0, y0, x1, y1 in xyxy:
        left = max(0, int(np.floor(x0)))
        top = max(0, int(np.floor(y0)))
        right = min(width, int(np.ceil(x1)))
        bottom = min(height, int(np.ceil(y1)))
        if right <= left or bottom <= top:
            continue
        x = (np.arange(left, right) + 0.5 - (x0 + x1) / 2) / max((x1 - x0) / 2, 0.5)
        y = (np.arange(top, bottom) + 0.5 - (y0 + y1) / 2) / max((y1 - y0) / 2, 0.5)
        if shape == "ellipse":
            canvas[top:bottom, left:right] |= x[None] ** 2 + y[:, None] ** 2 <= 1
        else:
            canvas[top:bottom, left:right] |= (np.abs(x)[None] <= 1) & (np.abs(y)[:, None] <= 1)
    return canvas
