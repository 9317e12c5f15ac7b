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
    """What was found out.

    leak_rate, leak_rate_tau50: share of face-frames covered less than 95 % and 50 %. leaked_area: share of
    all the faces' area. Runs are in frames in which a track has truth. overblur: covered area outside faces
    over the faces' area. exposed_5: tracks that leak in at least five frames (leaky_tracks: in one).
    redetected: share of face-frames at whose place another detector still finds a face in the output, None
    when none looked.
    """

    face_frames: int = 0
    leaked: int = 0
    leak_rate: float = 0.0
    leak_rate_tau50: float = 0.0
    leaked_area: float = 0.0
    longest_exposed_run: int = 0
    longest_exposed_ms: float = 0.0
    overblur: float = 0.0
    tracks: int = 0
    leaky_tracks: int = 0
    exposed_5: int = 0
    redetected: float | None = None
    exposed: dict[int, list[int]] = field(default_factory=dict)  # track -> the frames in which it leaks

    def as_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "exposed"}


@dataclass(frozen=True, slots=True)
class Sight:
    """A face in a frame: the share of it that is covered, its area in pixels, the frame's time in seconds."""

    frame: int
    share: float
    area: int
    time_s: float


class Tally:
    """Face-frames counted up, however their cover was found out."""

    def __init__(self) -> None:
        self.sights: dict[int, list[Sight]] = defaultdict(list)
        self.outside = self.inside = 0

    def result(self) -> Leaks:
        tracks = {track: sorted(rows, key=lambda s: s.frame) for track, rows in self.sights.items()}
        every = [sight for rows in tracks.values() for sight in rows]
        exposed = {t: [s.frame for s in rows if s.share < TAU] for t, rows in tracks.items()}
        runs = [_longest_run(rows) for rows in tracks.values()]
        n, area = max(1, len(every)), max(1, sum(s.area for s in every))
        leaked = sum(map(len, exposed.values()))
        return Leaks(
            face_frames=len(every),
            leaked=leaked,
            leak_rate=leaked / n,
            leak_rate_tau50=sum(s.share < 0.5 for s in every) / n,
            leaked_area=sum((1 - s.share) * s.area for s in every) / area,
            longest_exposed_run=max((frames for frames, _ in runs), default=0),
            longest_exposed_ms=1000 * max((seconds for _, seconds in runs), default=0.0),
            overblur=self.outside / max(1, self.inside),
            tracks=len(tracks),
            leaky_tracks=sum(len(frames) >= 1 for frames in exposed.values()),
            exposed_5=sum(len(frames) >= 5 for frames in exposed.values()),
            exposed={t: frames for t, frames in exposed.items() if frames},
        )


def _longest_run(sights: list[Sight]) -> tuple[int, float]:
    """Frames and seconds of a track's longest run of leaking sights; a frame lasts until the next one."""
    best = run = 0
    longest = began = 0.0
    for i, sight in enumerate(sights):
        if sight.share >= TAU:
            run = 0
            continue
        if not run:
            began = sight.time_s
        run += 1
        step = sight.time_s - sights[i - 1].time_s if i else 0.0
        ends = sights[i + 1].time_s if i + 1 < len(sights) else sight.time_s + step
        best, longest = max(best, run), max(longest, ends - began)
    return best, longest


class LeakMeter:
    """Give it to run() as recorder, then ask for the result.

    smallest: faces whose longer side is shorter than this, in pixels, are not counted.
    """

    def __init__(self, truth: dict[int, dict[int, Array]], cover: CoverConfig, smallest: float = 0.0) -> None:
        self.truth, self.config, self.smallest = truth, cover, smallest
        self.tally = Tally()

    def write(self, tracked: TrackedFrame, source: str) -> None:
        index = tracked.frame.index
        width, height = tracked.frame.size
        covers = np.array([box.xyxy for box in tracked.boxes]).reshape(-1, 4)
        under = drawn(grow_xyxy(covers, self.config.scale), width, height, self.config.shape)
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
                sight = Sight(index, share, int(face.sum()), tracked.frame.time_s or 0.0)
                self.tally.sights[track].append(sight)

    def result(self) -> Leaks:
        return self.tally.result()


def ellipse_of(xyxy: Array, width: int, height: int) -> tuple[tuple[slice, slice], Array]:
    """The rows and columns that a face spans in a picture, and its ellipse there: bool [h, w]."""
    x0, y0 = np.maximum(np.floor(xyxy[:2]).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(xyxy[2:]).astype(int), (width, height))
    face = drawn(xyxy[None] - (x0, y0, x0, y0), x1 - x0, y1 - y0, "ellipse")
    return np.s_[y0 : max(y0, y1), x0 : max(x0, x1)], face


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
