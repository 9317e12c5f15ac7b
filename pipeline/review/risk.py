"""Risk index: moments of a video at which a face may be uncovered, the most probable first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from facestream.engines.boxes import Array, grow_xyxy
from facestream.pipeline.records import Face
from facestream.pipeline.review.document import Document, Step
from facestream.pipeline.review.geometry import grown, iou
from facestream.pipeline.review.scout import Notes, SecondDetection
from facestream.pipeline.types import XYXY, BoxState

COVERED = 0.95  # share of a face's ellipse under covers from which it counts as covered
# seconds before a track's first box and after its last one in which the face may be open
BEFORE_S = 0.4
AFTER_S = 0.6
SURE = 0.5  # score of a face that is one beyond doubt
EDGE = 0.15  # of its own side by which a box may stay away from the picture's edge and the face have come over it
SMALL = 16  # pixels of a box's longer side up to which detectors lose faces
FAST = 0.2  # of its own side by which a face moves in a frame from which its cover may lag behind
GUESSED_S = 0.3  # seconds without a detection from which a cover is a guess
CHAIN_S = 1.0  # sightings of the second detector so near are one moment
SPLIT_S = 3.0  # and no moment is longer
LONGEST = 90  # frames of a moment that was put together from several
LEAST = 0.02  # risk under which nothing is listed

WHY = {
    "missed": "a second detector finds a face that is not covered",
    "partly": "a second detector finds a face that extends beyond its cover",
    "after": "the track ends inside the picture",
    "before": "the track begins inside the picture and nothing covers the frames before",
    "gap": "the track has a gap",
    "guess": "the cover was guessed for long",
    "weak": "the face was never seen well",
    "small": "the face is at the size limit",
    "fast": "the face moves fast",
    "blind": "nothing can be seen in the picture",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """Frames from start to end, both included, that a person should look at.

    risk: 0..1, how likely a face is open there. frame: the one that shows it best; box: where, xyxy in displayed
    pixels, None: anywhere. tracks: that it is about. why: kinds of WHY, the weightiest first.
    """

    start: int
    end: int
    risk: float
    frame: int
    box: XYXY | None
    tracks: tuple[int, ...]
    why: tuple[str, ...]

    @property
    def key(self) -> str:
        """The same for the same moment in a later run of this program on the same records."""
        return f"{self.why[0]}:{self.frame}:{','.join(map(str, self.tracks))}"

    def describe(self) -> str:
        """Why it is in the list."""
        return "; ".join(WHY[kind] for kind in self.why)


class RiskIndex:
    """The list of moments, kept up to date while faces are changed.

    size: of the displayed picture, width and height.
    """

    def __init__(self, document: Document, notes: Notes, size: tuple[int, int]) -> None:
        self.document = document
        self.size = size
        self.notes = notes
        self._of_track: dict[int, list[Moment]] = {}
        self._open: dict[int, list[tuple[SecondDetection, float]]] = {}
        self.renew(notes)

    def renew(self, notes: Notes) -> None:
        """Begin anew, with other notes."""
        self.notes = notes
        self._cuts = sorted(notes.cuts)
        self._of_track.clear()
        self._open = {f: uncovered(self.document, f, seen) for f, seen in sorted(notes.second.items())}
        for track in self.document.spans:
            self._note(track)

    def refresh(self, step: Step) -> None:
        """After an edit, or its taking back."""
        for track in step.touched:
            self._note(track)
        for frame, seen in self.notes.second.items():
            if step.first <= frame <= step.last:
                self._open[frame] = uncovered(self.document, frame, seen)

    def _note(self, track: int) -> None:
        if track > 0 and track in self.document.spans and track not in self.document.drawn:
            self._of_track[track] = _of_track(self.document, track, self._cuts, self.size)
        else:
            self._of_track.pop(track, None)

    def moments(self) -> list[Moment]:
        """The list, the likeliest first."""
        found = [*_missed(self.document, self._open), *_blind(self.document, self.notes)]
        for some in self._of_track.values():
            found += some
        return sorted(_merged(found), key=lambda m: (-m.risk, m.start, m.tracks))

    def open_faces(self) -> dict[int, list[tuple[SecondDetection, float]]]:
        """frame -> faces of the second detector that are not covered there, with their covered shares."""
        return self._open


# By the second detector


def uncovered(document: Document, frame: int, seen: Sequence[SecondDetection]) -> list[tuple[SecondDetection, float]]:
    """Faces of a second detector that are not covered in a frame, or not wholly: each with its covered share.

    Masks count as covers; faces that are left open on purpose are not listed.
    """
    faces = document.boxes(frame)
    if not seen:
        return []
    covers = np.array([f.xyxy for f in document.covered(frame)]).reshape(-1, 4)
    covers = grow_xyxy(covers, document.scale)
    exempt = [face.xyxy for track, face in faces.items() if document.is_left_open(frame, track)]
    masks = [np.array(corners) for corners in document.polygons_at(frame)]
    out = []
    for one in seen:
        if any(iou(one.xyxy, box) > 0.3 for box in exempt):
            continue
        share = covered_share(np.array(one.xyxy), covers, masks)
        if share < COVERED:
            out.append((one, share))
    return out


_UNIT = np.stack(np.meshgrid(np.linspace(-0.95, 0.95, 20), np.linspace(-0.95, 0.95, 20)), -1).reshape(-1, 2)
_DISC = _UNIT[(_UNIT**2).sum(1) <= 1]


def covered_share(box: Array, covers: Array, masks: Iterable[Array] = ()) -> float:
    """Share of the ellipse in a box, xyxy [4], under the ellipses in `covers`, xyxy [N, 4], or in polygons [M, 2]."""
    points = (box[:2] + box[2:]) / 2 + _DISC * (box[2:] - box[:2]) / 2
    under = np.zeros(len(points), bool)
    for cover in covers:
        half = np.maximum((cover[2:] - cover[:2]) / 2, 0.5)
        under |= (((points - (cover[:2] + cover[2:]) / 2) / half) ** 2).sum(1) <= 1
    for corners in masks:
        under |= _inside(points, corners)
    return float(under.mean())


def _inside(points: Array, corners: Array) -> Array:
    """Which points [N, 2] lie in a polygon [M, 2]."""
    inside = np.zeros(len(points), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        crosses = (y0 > points[:, 1]) != (y1 > points[:, 1])
        if y0 != y1:
            inside ^= crosses & (points[:, 0] < (x1 - x0) * (points[:, 1] - y0) / (y1 - y0) + x0)
    return inside


@dataclass(slots=True)
class _Chain:
    """Uncovered sightings of what seems to be one face: frame, face, its risk."""

    seen: list[tuple[int, SecondDetection, float]] = field(default_factory=list)


def _missed(document: Document, found: dict[int, list[tuple[SecondDetection, float]]]) -> list[Moment]:
    frames = sorted(found)
    near = max(1, round(CHAIN_S * document.rate))
    chains: list[_Chain] = []
    for frame in frames:
        for seen, share in found[frame]:
            risk = _risk_of_miss(seen.score, share)
            for chain in reversed(chains[-20:]):
                last, other, _ = chain.seen[-1]
                fits = frame - last <= near and frame - chain.seen[0][0] <= SPLIT_S * document.rate
                if fits and frame != last and iou(grown(seen.xyxy, 2), grown(other.xyxy, 2)) > 0.1:
                    chain.seen.append((frame, seen, risk))
                    break
            else:
                chains.append(_Chain([(frame, seen, risk)]))
    half = max(1, (frames[1] - frames[0]) // 2) if len(frames) > 1 else 1
    out = []
    for chain in chains:
        first = chain.seen[0][0]
        last = chain.seen[-1][0]
        at, face, risk = max(chain.seen, key=lambda s: s[2])
        together = 1 - float(np.prod([1 - r for _, _, r in chain.seen]))
        risk = min(0.99, max(risk, 0.5 * (risk + together)))
        kind = "missed" if covered_share_of(document, at, face) < 0.5 else "partly"
        start = max(0, first - half)
        end = min(document.frames - 1, last + half)
        out.append(Moment(start, end, risk, at, face.xyxy, (), (kind,)))
    return out


def covered_share_of(document: Document, frame: int, seen: SecondDetection) -> float:
    """The covered share of a face of the second detector."""
    covers = np.array([f.xyxy for f in document.covered(frame)]).reshape(-1, 4)
    return covered_share(np.array(seen.xyxy), grow_xyxy(covers, document.scale))


def _risk_of_miss(score: float, share: float) -> float:
    certainty = float(np.clip((score - 0.25) / 0.5, 0.05, 1))
    return 0.9 * certainty * (1.0 if share < 0.5 else 0.25 + 1.2 * (COVERED - share))


# By the tracks


def _of_track(document: Document, track: int, cuts: list[int], size: tuple[int, int]) -> list[Moment]:
    span = document.spans[track]
    faces = {f: document.boxes(f)[track] for f in span}
    seen = [f for f in span if faces[f].state is BoxState.OBSERVED]
    if not seen:
        return []
    scores = np.array([faces[f].score for f in seen])
    best = float(scores.max())
    face_like = float(np.clip((best - 0.2) / 0.4, 0.1, 1))  # how likely it is a face at all
    weight = face_like * (1.0 if len(seen) > 2 else 0.6)
    rate = document.rate
    last_frame = document.frames - 1
    before = max(2, round(BEFORE_S * rate))
    after = max(2, round(AFTER_S * rate))
    out: list[Moment] = []

    def add(kind: str, start: int, end: int, frame: int, risk: float, near: int) -> None:
        start = max(0, start)
        end = min(last_frame, end)
        if start <= end and risk >= LEAST:
            box = faces[near].xyxy
            out.append(Moment(start, end, min(risk, 0.9), min(max(frame, start), end), box, (track,), (kind,)))

    first = span[0]
    last = span[-1]
    scene_start = _cut_before(cuts, first)
    scene_end = _cut_after(cuts, last, last_frame + 1) - 1
    backfilled = seen[0] - first
    if first > scene_start and not _at_edge(faces[first].xyxy, size):
        lead = max(0.15, 1 - backfilled / (0.5 * rate))
        add("before", max(scene_start, first - before), first - 1, first - 1, 0.35 * weight * lead, first)
    if last < scene_end and not _at_edge(faces[last].xyxy, size):
        coasted = last - seen[-1]
        strong = float(np.clip((scores[-1] - 0.2) / 0.5, 0.1, 1))
        let_go = 1.0 if coasted else 0.5
        add("after", last + 1, min(scene_end, last + after), last + 1, 0.45 * weight * strong * let_go, last)
    for a, b in pairwise(span):
        if b - a > 1:
            add("gap", a + 1, b - 1, (a + b) // 2, 0.6 * weight, a)
    guessed = max(2, round(GUESSED_S * rate))
    for a, b in pairwise(seen):
        if b - a > guessed:
            moved = _moved(faces[a].xyxy, faces[b].xyxy)
            add("guess", a + 1, b - 1, (a + b) // 2, 0.12 * weight * min(1.0, 0.3 + moved), (a if a in faces else b))
    if last - seen[-1] > guessed:
        add("guess", seen[-1] + 1, last, (seen[-1] + last) // 2, 0.2 * weight, last)
    if backfilled > guessed:
        add("guess", first, seen[0] - 1, (first + seen[0]) // 2, 0.1 * weight, first)
    out += _shaky(faces, seen, best, weight, track)
    return out


def _shaky(faces: dict[int, Face], seen: list[int], best: float, weight: float, track: int) -> list[Moment]:
    """Stretches in which a face is small, fast or seen badly."""
    out: list[Moment] = []
    runs: dict[str, list[int]] = {"fast": [], "weak": [], "small": []}
    for a, b in zip(seen, seen[1:] or seen, strict=False):
        box = faces[a].xyxy
        if max(box[2] - box[0], box[3] - box[1]) <= SMALL:
            runs["small"].append(a)
        if b > a and _moved(box, faces[b].xyxy) / (b - a) > FAST:
            runs["fast"].append(a)
        if best < SURE:
            runs["weak"].append(a)
    for kind, risk in (("fast", 0.12), ("weak", 0.06), ("small", 0.05)):
        if risk * weight < LEAST:
            continue
        for start, end in _stretches(runs[kind], 15, 75):
            inside = [f for f in runs[kind] if start <= f <= end]
            middle = inside[len(inside) // 2]
            out.append(Moment(start, end, risk * weight, middle, faces[middle].xyxy, (track,), (kind,)))
    return out


def _stretches(frames: list[int], gap: int, longest: int) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for frame in frames:
        if out and frame - out[-1][1] <= gap and frame - out[-1][0] < longest:
            out[-1] = (out[-1][0], frame)
        else:
            out.append((frame, frame))
    return out


def _blind(document: Document, notes: Notes) -> list[Moment]:
    return [
        Moment(start, end, 0.08, (start + end) // 2, None, (), ("blind",))
        for start, end in _stretches(notes.blind, 2, round(SPLIT_S * document.rate))
    ]


def _merged(found: list[Moment]) -> list[Moment]:
    """Moments of one face that overlap as one; its risk is that any of them is right."""
    out: list[Moment] = []
    by_second: dict[int, list[int]] = {}  # stretches of LONGEST frames -> places in `out` that reach into them
    for moment in sorted(found, key=lambda m: -m.risk):
        stretches = range(moment.start // LONGEST, moment.end // LONGEST + 1)
        for at in dict.fromkeys(at for stretch in stretches for at in by_second.get(stretch, ())):
            other = out[at]
            separate = moment.start > other.end or other.start > moment.end
            longest = max(moment.end, other.end) - min(moment.start, other.start)
            if separate or longest > LONGEST or not _same_face(moment, other):
                continue
            risk = 1 - (1 - other.risk) * (1 - 0.5 * moment.risk)
            tracks = tuple(dict.fromkeys((*other.tracks, *moment.tracks)))
            why = tuple(dict.fromkeys((*other.why, *moment.why)))
            start = min(moment.start, other.start)
            end = max(moment.end, other.end)
            out[at] = Moment(start, end, risk, other.frame, other.box, tracks, why)
            break
        else:
            at = len(out)
            out.append(moment)
        for stretch in stretches:
            by_second.setdefault(stretch, []).append(at)
    return out


def _same_face(a: Moment, b: Moment) -> bool:
    if set(a.tracks) & set(b.tracks):
        return True
    return a.box is not None and b.box is not None and iou(grown(a.box, 1.5), grown(b.box, 1.5)) > 0.2


def _moved(a: XYXY, b: XYXY) -> float:
    """By how much of its own side a box moved."""
    side = max(1.0, a[2] - a[0], a[3] - a[1])
    return float(np.hypot(b[0] + b[2] - a[0] - a[2], b[1] + b[3] - a[1] - a[3])) / 2 / side


def _at_edge(box: XYXY, size: tuple[int, int]) -> bool:
    near = EDGE * max(box[2] - box[0], box[3] - box[1])
    return box[0] <= near or box[1] <= near or box[2] >= size[0] - near or box[3] >= size[1] - near


def _cut_before(cuts: list[int], frame: int) -> int:
    at = bisect_right(cuts, frame)
    return cuts[at - 1] if at else 0


def _cut_after(cuts: list[int], frame: int, end: int) -> int:
    at = bisect_right(cuts, frame)
    return cuts[at] if at < len(cuts) else end
