"""Leak statistics over face-frames: rates, exposed runs and exposed tracks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

TAU = 0.95  # share of a face that must be covered; below it the face-frame leaks


@dataclass(slots=True)
class Leaks:
    """Leak metrics.

    leak_rate, leak_rate_tau50: share of face-frames of which less than 95 % and 50 % is covered. leaked_area: share of
    the faces' area that is uncovered. Runs count frames in which a track has ground truth. overblur: covered area
    outside faces over the faces' area. exposed_5: tracks that leak in at least five frames (leaky_tracks: in one).
    redetected: share of face-frames in which another detector still finds the face in the output; None if none ran.
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
class FaceFrame:
    """A face in a frame: the share of it that is covered, its area in pixels, the frame's time in seconds."""

    frame: int
    share: float
    area: int
    time_s: float


class Tally:
    """Collects face-frames and computes the leak metrics; how their coverage was measured does not matter."""

    def __init__(self) -> None:
        self.face_frames: dict[int, list[FaceFrame]] = defaultdict(list)  # by track
        self.outside = 0  # covered pixels outside faces
        self.inside = 0  # pixels of faces
        self.redetected: int | None = None  # face-frames that another detector still finds; None: none ran

    def runs(self) -> list[tuple[int, list[FaceFrame]]]:
        """(track, face-frames) of each run of leaking face-frames; a covered one ends a run."""
        out: list[tuple[int, list[FaceFrame]]] = []
        for track, rows in self.face_frames.items():
            run: list[FaceFrame] = []
            for face_frame in sorted(rows, key=lambda s: s.frame):
                if face_frame.share >= TAU:
                    run = []
                    continue
                if not run:
                    out.append((track, run))
                run.append(face_frame)
        return out

    def result(self) -> Leaks:
        tracks = {track: sorted(rows, key=lambda s: s.frame) for track, rows in self.face_frames.items()}
        every = [face_frame for rows in tracks.values() for face_frame in rows]
        exposed = {t: [s.frame for s in rows if s.share < TAU] for t, rows in tracks.items()}
        runs = [_longest_run(rows) for rows in tracks.values()]
        n = max(1, len(every))
        area = max(1, sum(s.area for s in every))
        leaked = sum(map(len, exposed.values()))
        return Leaks(
            face_frames=len(every),
            leaked=leaked,
            leak_rate=leaked / n,
            leak_rate_tau50=sum(s.share < 0.5 for s in every) / n,
            leaked_area=sum((1 - s.share) * s.area for s in every) / area,
            longest_exposed_run=max((frames for frames, _ in runs), default=0),
            longest_exposed_ms=1000 * max((seconds for _, seconds in runs), default=0.0),
            redetected=None if self.redetected is None else self.redetected / n,
            overblur=self.outside / max(1, self.inside),
            tracks=len(tracks),
            leaky_tracks=sum(len(frames) >= 1 for frames in exposed.values()),
            exposed_5=sum(len(frames) >= 5 for frames in exposed.values()),
            exposed={t: frames for t, frames in exposed.items() if frames},
        )


def _longest_run(rows: list[FaceFrame]) -> tuple[int, float]:
    """Frames and seconds of a track's longest run of leaking face-frames; a frame lasts until the next one."""
    best = run = 0
    longest = began = 0.0
    for i, face_frame in enumerate(rows):
        if face_frame.share >= TAU:
            run = 0
            continue
        if not run:
            began = face_frame.time_s
        run += 1
        step = face_frame.time_s - rows[i - 1].time_s if i else 0.0
        ends = rows[i + 1].time_s if i + 1 < len(rows) else face_frame.time_s + step
        best = max(best, run)
        longest = max(longest, ends - began)
    return best, longest
