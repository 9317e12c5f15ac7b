"""Do covers defeat a face matcher? Faces of a video, covered and bare, matched by attackers of growing strength.

For each person (a track) pictures of one time are the gallery, pictures of another the probe. Attackers: `stock` knows
bare faces and matches covered ones to them; `parrot` has covered its gallery the same way; `colours` does that too,
and compares the covers' colours instead of a matcher's numbers. Each alone on one frame, and with the mean of several:
what moves under a fixed grid can be seen sharper so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.pipeline.config import Config
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.errors import BadInput
from facestream.pipeline.evaluate.embedder import Embedder, by_box, check_attack
from facestream.pipeline.evaluate.pixels import pairs
from facestream.pipeline.run import Job, run
from facestream.pipeline.types import BoxState, Frame, TrackedFrame
from facestream.pipeline.video.planes import rgb_view

SURE = 0.5  # score of the faces that are taken
SMALLEST = 20.0  # pixels of their longer side
FRAMES = 8  # pictures of a person for the gallery, and as many for the probe
APART_S = 0.5  # seconds between the last of the gallery and the first of the probe, at least
COLOURS = 16  # pixels to each side in which colours are compared
COVER = 1.4  # of the box, what counts as under the cover
GREY = 128
FRINGE = 3.0  # pixels at the cover's edge that are left out: chroma and rounding show what is around there
Z = 1.96  # of the 95 % interval
ATTACKERS = ("stock", "stock, several frames", "parrot", "parrot, several frames", "colours", "colours, several frames")


@dataclass(frozen=True, slots=True)
class Score:
    """rank1: share of probes whose nearest in the gallery is the same person, with its 95 % interval. eer: equal error
    rate; 0.5 is chance."""

    rank1: float
    low: float
    high: float
    eer: float


@dataclass(slots=True)
class Person:
    """RGB chips of one person: bare and covered ones of the gallery, covered ones of the probe; the same in colours."""

    bare: list[Array] = field(default_factory=list)
    gallery: list[Array] = field(default_factory=list)
    probe: list[Array] = field(default_factory=list)
    gallery_colours: list[Array] = field(default_factory=list)
    probe_colours: list[Array] = field(default_factory=list)


def attack(source: Path, covered: Path, config: Config, around: bool, progress: bool) -> tuple[int, dict[str, Score]]:
    """How many people there are, and each attacker's score. around: also what is around the cover may be used.

    BadInput where there are fewer than two people, or the videos do not fit each other; BadConfig without the extra.
    """
    check_attack()
    plan = _plan(source, config, progress)
    if len(plan) < 2:
        do = "it needs two people or more, each seen well for a second"
        raise BadInput(f"{len(plan)} people can be matched in it", str(source), do)
    embedder = Embedder()
    people = {track: Person() for track in plan}
    wanted: dict[int, list[tuple[int, bool, Array]]] = {}
    for track, (first, second) in plan.items():
        for part, is_probe in ((first, False), (second, True)):
            for frame, box in part:
                wanted.setdefault(frame, []).append((track, is_probe, box))
    for bare, other in pairs(source, covered):
        for track, is_probe, box in wanted.get(bare.index, ()):
            take(people[track], embedder, _rgb(bare), _rgb(other), box, is_probe, around)
    return len(people), scores(list(people.values()), embedder)


def take(
    person: Person, embedder: Embedder, bare: Array, covered: Array, box: Array, is_probe: bool, around: bool = False
) -> None:
    """Add one picture of a person. bare, covered: RGB uint8 [h, w, 3]; box: xyxy [4] in their pixels."""
    image = covered if around else neutral(covered, box)
    chip = by_box(image, box)
    colours = cv2.resize(by_box(image, box, 4 * COLOURS, COVER), (COLOURS, COLOURS), interpolation=cv2.INTER_AREA)
    if is_probe:
        person.probe.append(chip)
        person.probe_colours.append(colours)
        return
    person.bare.append(embedder.aligned(bare, box))
    person.gallery.append(chip)
    person.gallery_colours.append(colours)


def scores(people: list[Person], embedder: Embedder) -> dict[str, Score]:
    """Every attacker's score. The first picture of a person is the one that is taken alone."""
    bare = _means([embedder.embed(p.bare) for p in people])

    def embedded(chips: list[list[Array]], several: bool) -> F32:
        # Pictures are put together before the matcher sees them, then what it says of each.
        if not several:
            return embedder.embed([some[0] for some in chips])
        joined = [np.mean(some, 0).round().astype(np.uint8) for some in chips]
        alone = _means([embedder.embed(some) for some in chips])
        return np.concatenate([embedder.embed(joined), alone], 1)

    gallery = [p.gallery for p in people]
    probe = [p.probe for p in people]
    stock = embedded(probe, False)
    several = embedded(probe, True)
    out = {
        "stock": score(_distances(stock, bare)),
        "stock, several frames": score(
            np.minimum(_distances(several[:, :128], bare), _distances(several[:, 128:], bare))
        ),
        "parrot": score(_distances(stock, embedded(gallery, False))),
        "parrot, several frames": score(_distances(several, embedded(gallery, True))),
        "colours": score(_distances(_flat(people, True, False), _flat(people, False, False))),
        "colours, several frames": score(_distances(_flat(people, True, True), _flat(people, False, True))),
    }
    return out


def _means(some: list[F32]) -> F32:
    return np.stack([one.mean(0) for one in some]).astype(np.float32)


def _flat(people: list[Person], is_probe: bool, several: bool) -> F32:
    rows = [p.probe_colours if is_probe else p.gallery_colours for p in people]
    return np.stack([np.mean(row if several else row[:1], 0).ravel() for row in rows]).astype(np.float32)


def _distances(probe: F32, gallery: F32) -> Array:
    """Distances [probe, gallery]."""
    distances: Array = np.sqrt(np.maximum(((probe[:, None] - gallery[None]) ** 2).sum(-1), 0))
    return distances


def score(distances: Array) -> Score:
    """distances: [N, N]; the same person's are on the diagonal. Of equal distances, half are counted as right."""
    count = len(distances)
    same = np.diag(distances)
    nearer = (distances < same[:, None] - 1e-9).sum(1)
    equal = (np.abs(distances - same[:, None]) <= 1e-9).sum(1)  # at least itself
    right = float(np.where(nearer == 0, 1 / equal, 0).sum())
    share = right / count
    low, high = wilson(share, count)
    other = distances[~np.eye(count, dtype=bool)]
    cuts = np.unique(np.concatenate([same, other]))
    cuts = np.sort(np.concatenate([cuts, (cuts[1:] + cuts[:-1]) / 2]))
    cuts = cuts[:: max(1, len(cuts) // 400)]
    missed = (same[None] > cuts[:, None]).mean(1) + (np.abs(same[None] - cuts[:, None]) <= 1e-9).mean(1) / 2
    wrong = (other[None] < cuts[:, None]).mean(1) + (np.abs(other[None] - cuts[:, None]) <= 1e-9).mean(1) / 2
    best = int(np.argmin(np.abs(missed - wrong)))
    return Score(share, low, high, float(missed[best] + wrong[best]) / 2)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count`."""
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z * float(np.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))) / (1 + Z * Z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def neutral(rgb: Array, box: Array) -> Array:
    """The picture with everything grey but the ellipse under the cover: else the scene tells who it is."""
    out = np.full_like(rgb, GREY)
    mask = np.zeros(rgb.shape[:2], np.uint8)
    centre = (box[:2] + box[2:]) / 2
    half = (box[2:] - box[:2]) / 2 * COVER - FRINGE
    points = tuple(round(float(v)) for v in centre), tuple(max(1, round(float(v))) for v in half)
    cv2.ellipse(mask, points[0], points[1], 0, 0, 360, 1, -1)
    cv2.copyTo(rgb, mask, out)
    return out


class _Faces:
    """Recorder: where every track is seen well."""

    def __init__(self) -> None:
        self.seen: dict[int, list[tuple[int, float, Array]]] = {}

    def write(self, tracked: TrackedFrame, source: str) -> None:
        width, height = tracked.frame.size
        for box in tracked.boxes:
            x0, y0, x1, y1 = box.xyxy
            inside = x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
            if box.state is BoxState.OBSERVED and box.score >= SURE and inside and max(x1 - x0, y1 - y0) >= SMALLEST:
                sighting = (tracked.frame.index, tracked.frame.time_s or 0.0, np.array(box.xyxy))
                self.seen.setdefault(box.id, []).append(sighting)


Part = list[tuple[int, Array]]


def _plan(source: Path, config: Config, progress: bool) -> dict[int, tuple[Part, Part]]:
    """track -> frames and boxes of its gallery, and of its probe."""
    faces = _Faces()
    run(Job(str(source), None), config, detector_of(config), faces, progress)
    out = {}
    for track, seen in faces.seen.items():
        middle = (seen[0][1] + seen[-1][1]) / 2
        first = [(f, box) for f, t, box in seen if t <= middle - APART_S / 2]
        second = [(f, box) for f, t, box in seen if t >= middle + APART_S / 2]
        if first and second:
            out[track] = (_some(first), _some(second))
    return out


def _some(part: Part) -> Part:
    picks = np.unique(np.linspace(0, len(part) - 1, min(FRAMES, len(part))).round().astype(int))
    return [part[n] for n in picks]


def _rgb(frame: Frame) -> Array:
    return rgb_view(frame, frame.size).rgb
