"""How much of the faces that are really there is left uncovered.

Truth is a MOT file: `frame,id,left,top,width,height,...`, frame from 1, in pixels of the displayed
picture. A face-frame is covered when at least 95 % of the ellipse inside its truth box lies under
the covers, drawn with the shape and scale of the configuration.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engines.boxes import Array, grow_xyxy
from pipeline.config import CoverConfig
from pipeline.errors import BadInput
from pipeline.types import TrackedFrame

TAU = 0.95


def read_truth(path: Path) -> dict[int, dict[int, Array]]:
    """frame (from 0) -> id -> xyxy. BadInput names the line that is wrong."""
    truth: dict[int, dict[int, Array]] = defaultdict(dict)
    try:
        lines = path.read_text().splitlines()
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


@dataclass(slots=True)
class Leaks:
    """The contract's figures. Runs are in frames in which a track has truth; overblur is the covered
    area outside faces over the faces' area."""

    face_frames: int = 0
    leaked: int = 0
    leak_rate: float = 0.0
    leak_rate_tau50: float = 0.0
    longest_exposed_run: int = 0
    overblur: float = 0.0
    tracks: int = 0
    leaky_tracks: int = 0
    worst: dict[int, float] = field(default_factory=dict)  # track -> share of its frames that leak

    def as_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "worst"}


class LeakMeter:
    """Give it to run() as recorder, then ask for the result.

    smallest: faces whose longer side is shorter than this, in pixels, are not counted.
    """

    def __init__(self, truth: dict[int, dict[int, Array]], cover: CoverConfig, smallest: float = 0.0) -> None:
        self.truth, self.config, self.smallest = truth, cover, smallest
        self.shares: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.outside = self.inside = 0

    def write(self, tracked: TrackedFrame, source: str) -> None:
        index = tracked.frame.index
        width, height = tracked.frame.size
        covers = np.array([box.xyxy for box in tracked.boxes]).reshape(-1, 4)
        under = drawn(grow_xyxy(covers, self.config.scale), width, height, self.config.shape)
        faces = self.truth.get(index, {})
        real = drawn(np.array(list(faces.values())).reshape(-1, 4), width, height, "ellipse")
        self.outside += int((under & ~real).sum())
        self.inside += int(real.sum())
        for track, xyxy in faces.items():
            if max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]) < self.smallest:
                continue
            x0, y0 = np.maximum(np.floor(xyxy[:2]).astype(int), 0)
            x1, y1 = np.ceil(xyxy[2:]).astype(int)
            part = np.s_[y0:y1, x0:x1]
            face = drawn(xyxy[None] - (x0, y0, x0, y0), min(x1, width) - x0, min(y1, height) - y0, "ellipse")
            if face.any():
                self.shares[track].append((index, float(under[part][face].mean())))

    def result(self) -> Leaks:
        every = [share for rows in self.shares.values() for _, share in rows]
        runs = [_longest_run([share < TAU for _, share in sorted(rows)]) for rows in self.shares.values()]
        leaked = sum(share < TAU for share in every)
        n = max(1, len(every))
        return Leaks(
            face_frames=len(every),
            leaked=leaked,
            leak_rate=leaked / n,
            leak_rate_tau50=sum(share < 0.5 for share in every) / n,
            longest_exposed_run=max(runs, default=0),
            overblur=self.outside / max(1, self.inside),
            tracks=len(self.shares),
            leaky_tracks=sum(run > 0 for run in runs),
            worst={t: sum(s < TAU for _, s in rows) / len(rows) for t, rows in self.shares.items()},
        )


def drawn(xyxy: Array, width: int, height: int, shape: str) -> Array:
    """Boxes [N, 4] as filled ellipses or rectangles: bool [height, width], a pixel counts by its centre."""
    canvas = np.zeros((max(0, height), max(0, width)), bool)
    for x0, y0, x1, y1 in xyxy:
        left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
        right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
        if right <= left or bottom <= top:
            continue
        x = (np.arange(left, right) + 0.5 - (x0 + x1) / 2) / max((x1 - x0) / 2, 0.5)
        y = (np.arange(top, bottom) + 0.5 - (y0 + y1) / 2) / max((y1 - y0) / 2, 0.5)
        if shape == "ellipse":
            canvas[top:bottom, left:right] |= x[None] ** 2 + y[:, None] ** 2 <= 1
        else:
            canvas[top:bottom, left:right] |= (np.abs(x)[None] <= 1) & (np.abs(y)[:, None] <= 1)
    return canvas


def _longest_run(flags: list[bool]) -> int:
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best
