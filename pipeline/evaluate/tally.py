"""Face-frames counted up: shares, runs and identities of what leaked."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

TAU = 0.95


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
        self.seen_again: int | None = None  # face-frames that another detector still finds; None: none looked

    def runs(self) -> list[tuple[int, list[Sight]]]:
        """(track, sights) of each run of leaking sights; a run ends with a covered one."""
        out: list[tuple[int, list[Sight]]] = []
        for track, rows in self.sights.items():
            run: list[Sight] = []
            for sight in sorted(rows, key=lambda s: s.frame):
                if sight.share >= TAU:
                    run = []
                    continue
                if not run:
                    out.append((track, run))
                run.append(sight)
        return out

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
            redetected=None if self.seen_again is None else self.seen_again / n,
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
