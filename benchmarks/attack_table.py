"""How well face matchers see through each cover: the table and the curve of docs/privacy.md.

    python -m benchmarks.attack_table --data FACES [--sizes 20,40,80,160,200] [--cache FOLDER] [-o docs/attack.png]

FACES is a folder in WIDER FACE's layout with the pictures that identities.txt names: two of each person. Each face is
scaled to a size and covered as `anonymize` covers it; the attackers see what is under the cover, on neutral ground.
Beside those of `facestream evaluate attack` there are `shape`, which knows the proportions of the covers alone, and
`fine-tuned`: a small network that learned, on other people's faces covered the same way, to give the matcher's numbers
for the bare face (`attack_net.py`, extra `train`); its gallery is bare, or covered like the probe (`parrot`).

--cache keeps what was measured, cell by cell: an interrupted run goes on, and only what changed is measured anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from facestream.benchmarks.attack_net import SIDE, AttackNet
from facestream.engines.boxes import Array
from facestream.pipeline.config import read
from facestream.pipeline.evaluate.attack import COVER, Person, Score, neutral, score, scores, take
from facestream.pipeline.evaluate.embedder import Embedder, by_box
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame

COVERS: dict[str, dict[str, Any]] = {
    "solid (default)": {"cover.hide": "solid"},
    "solid, of one shape for all": {"cover.hide": "solid"},
    "pixelate, 8 cells (default before)": {"cover.hide": "pixelate", "cover.cells": 8},
    "pixelate, 4 cells": {"cover.hide": "pixelate", "cover.cells": 4},
    "blur": {"cover.hide": "blur"},
    "none": {"cover.hide": "none"},
}
JITTER = 0.03  # of a face's side by which a detector's box moves from frame to frame
FRAMES = 5  # pictures of a person for the gallery, and as many for the probe
LEARNED = 200  # faces that `fine-tuned` learns on
LEAST = 55  # pixels of their shorter side
MARGIN = 2.4  # of the longer side, what is cut out of a picture
ONE_SHAPE = 0.75  # width over height of the covers that are of one shape for all

DRAWS = 4  # covers of each face that `fine-tuned` learns on

Known = tuple[Array, Array]  # a cutting and the face's box in it
Found = dict[str, dict[int, dict[str, Score]]]


def cut(rgb: Array, xywh: list[int]) -> Known:
    """A square around a face."""
    x, y, w, h = xywh
    side = MARGIN * max(w, h)
    left, top = x + w / 2 - side / 2, y + h / 2 - side / 2
    move = np.array([[1.0, 0, -left], [0, 1.0, -top]])
    out = cv2.warpAffine(rgb, move, (round(side), round(side)), borderMode=cv2.BORDER_REPLICATE)
    return out, np.array([x - left, y - top, x - left + w, y - top + h])


def picture(path: Path) -> Array:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def identities() -> list[str]:
    lines = Path(__file__).with_name("identities.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def people(data: Path) -> list[tuple[Known, Known]]:
    """Two pictures of each person."""
    found: dict[str, list[Known]] = {}
    for line in identities():
        number, name, *box = line.split()
        found.setdefault(number, []).append(cut(picture(data / name), [int(v) for v in box]))
    return [(some[0], some[1]) for some in found.values()]


def others(data: Path) -> Iterator[Known]:
    """Faces of people that are in no identity's picture."""
    taken = {line.split()[1] for line in identities()}
    lines = (data / "wider_face_split" / "wider_face_train_bbx_gt.txt").read_text().splitlines()
    at = 0
    while at < len(lines):
        name, count = lines[at], int(lines[at + 1])
        rows = [[int(v) for v in line.split()] for line in lines[at + 2 : at + 2 + count]]
        at += 2 + max(1, count)
        path = f"WIDER_train/images/{name}"
        good = [row[:4] for row in rows if not row[7] and not row[8] and min(row[2:4]) >= LEAST]
        if path not in taken and good and name.startswith(("facecount", "mvsa", "sports", "scuthead")):
            rgb = picture(data / path)
            for box in good:
                yield cut(rgb, box)


class Cover:
    """Scales a face to `size` pixels, at any place on the grid, and covers it."""

    def __init__(self, name: str, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.shape = ONE_SHAPE if "one shape" in name else None
        self.anonymizer = None if name == "none" else Anonymizer(read(None, dict(COVERS[name])).cover)

    def __call__(self, known: Known) -> tuple[Array, Array, Array]:
        """RGB bare, RGB covered, the box."""
        rgb, box = known
        zoom = self.size / max(box[2:] - box[:2])
        shift = self.rng.uniform(0, 16, 2)
        side = int(np.ceil(zoom * rgb.shape[0] + 16)) // 2 * 2
        small = rgb
        if zoom < 0.5:
            small = cv2.resize(rgb, None, fx=2 * zoom, fy=2 * zoom, interpolation=cv2.INTER_AREA)
        step = zoom * rgb.shape[0] / small.shape[0]
        move = np.array([[step, 0, shift[0]], [0, step, shift[1]]])
        bare = cv2.warpAffine(small, move, (side, side), borderMode=cv2.BORDER_REPLICATE)
        place = box * zoom + np.tile(shift, 2)
        middle = (place[:2] + place[2:]) / 2 + self.rng.normal(0, JITTER * self.size, 2)
        half = (place[2:] - place[:2]) / 2 * (1 + self.rng.normal(0, JITTER))
        if self.shape is not None:
            high = max(half[1], half[0] / self.shape)
            half = np.array([self.shape * high, high])
        place = np.concatenate([middle - half, middle + half])
        if self.anonymizer is None:
            return bare, bare, place
        video = av.VideoFrame.from_ndarray(bare, format="rgb24").reformat(format="yuv420p")
        left, top, right, bottom = place.tolist()
        boxes = (Box(1, (left, top, right, bottom), 1.0, BoxState.OBSERVED),)
        covered = self.anonymizer.cover(TrackedFrame(Frame(0, 0, Fraction(1, 25), video), boxes))
        return bare, covered.picture.to_ndarray(format="rgb24"), place


def seen(covered: Array, box: Array) -> Array:
    """What the network sees of a cover: RGB uint8 [SIDE, SIDE, 3], on neutral ground."""
    chip = by_box(neutral(covered, box), box, 2 * SIDE, COVER)
    return cv2.resize(chip, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


class Material:
    """Faces, and the matcher's numbers of the bare ones; read when they are needed."""

    def __init__(self, data: Path, learn: int) -> None:
        self.embedder = Embedder(1)
        self.pairs = people(data)
        self.learned = [known for known, _ in zip(others(data), range(learn), strict=False)]
        print(f"{len(self.pairs)} people, {len(self.learned)} faces of others to learn on", flush=True)
        self.bare = self.embedder.embed([self.embedder.aligned(rgb, box) for rgb, box in self.learned])

    def cell(self, name: str, size: int) -> dict[str, Score]:
        """Every attacker on one cover at one size."""
        cover = Cover(name, size, np.random.default_rng(size))
        made = []
        chips: list[list[Array]] = [[], []]  # what the network sees of the gallery, and of the probe
        shapes = np.zeros((2, len(self.pairs)))
        for number, pair in enumerate(self.pairs):
            person = Person()
            for is_probe, known in enumerate(pair):
                for _ in range(FRAMES):
                    raw, covered, box = cover(known)
                    take(person, self.embedder, raw, covered, box, bool(is_probe))
                    chips[is_probe].append(seen(covered, box))
                    shapes[is_probe, number] += (box[2] - box[0]) / (box[3] - box[1]) / FRAMES
            made.append(person)
        found = scores(made, self.embedder)
        found["shape"] = score(np.abs(shapes[1][:, None] - shapes[0][None]).round(9))
        net = AttackNet(seed=size)
        covered_chips = [[seen(*cover(known)[1:]) for _ in range(DRAWS)] for known in self.learned]
        net.train(covered_chips, self.bare)
        gallery, probe = (net.embed(some).reshape(len(made), FRAMES, -1).mean(1) for some in chips)
        bare = np.stack([self.embedder.embed(p.bare).mean(0) for p in made])
        found["fine-tuned"] = score(_cosine_distance(probe, bare - self.bare.mean(0)))
        found["fine-tuned, parrot"] = score(_cosine_distance(probe, gallery))
        return found


def _cosine_distance(probe: Array, gallery: Array) -> Array:
    """One less the cosine, [probe, gallery]."""
    lengths = np.linalg.norm(probe, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)[None]
    return 1 - (probe @ gallery.T / np.maximum(lengths, 1e-9)).round(6)


def table(data: Path, covers: list[str], sizes: list[int], learn: int, cache: Path) -> Found:
    """cover -> size -> attacker -> score."""
    cache.mkdir(parents=True, exist_ok=True)
    material: Material | None = None
    out: Found = {}
    for name in covers:
        for size in sizes:
            kept = cache / f"{''.join(c if c.isalnum() else '-' for c in name)}-{size}-{learn}.json"
            if not kept.is_file():
                material = material or Material(data, learn)
                cell = material.cell(name, size)
                kept.write_text(json.dumps({attacker: asdict(one) for attacker, one in cell.items()}))
            found = {attacker: Score(**one) for attacker, one in json.loads(kept.read_text()).items()}
            out.setdefault(name, {})[size] = found
            cells = ", ".join(f"{k} {v.rank1:.0%}/{v.eer:.0%}" for k, v in found.items())
            print(f"{name} {size} px: {cells}", flush=True)
    return out


def markdown(found: Found, count: int) -> str:
    """Rank-1 (95 % interval) / equal error rate, one row a cover and size."""
    first = next(iter(next(iter(found.values())).values()))
    lines = ["| cover | face | " + " | ".join(first) + " |", "|---|---|" + "---|" * len(first)]
    for name, sizes in found.items():
        for size, row in sizes.items():
            cells = [
                f"{'' if s.low <= 1 / count else '**'}{s.rank1:.0%}{'' if s.low <= 1 / count else '**'} "
                f"({s.low:.0%} to {s.high:.0%}) / {s.eer:.0%}"
                for s in row.values()
            ]
            lines.append(f"| {name} | {size} px | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve(found: Found, count: int, path: Path) -> None:
    """Rank-1 by size: the best of all attackers, and the stock matcher."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4), sharey=True)
    for name, sizes in found.items():
        across = sorted(sizes)
        axes[0].plot(across, [sizes[s]["stock"].rank1 for s in across], "o-", label=name)
        axes[1].plot(across, [max(v.rank1 for v in sizes[s].values()) for s in across], "o-", label=name)
    for axis, title in zip(axes, ("stock matcher", "best of all attackers"), strict=True):
        axis.axhline(1 / count, color="grey", linestyle=":", label="chance")
        axis.set(title=title, xlabel="face, pixels", ylim=(0, 1), xscale="log")
        axis.set_xticks(across, [str(s) for s in across])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("right name (rank-1)")
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))  # beside the lines, not over them
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Face matchers against covers.")
    parser.add_argument("--data", type=Path, required=True, help="a folder in WIDER FACE's layout")
    parser.add_argument("--sizes", default="20,40,80,160,200")
    parser.add_argument("--covers", default=",".join(map(str, range(len(COVERS)))), help="by number: 0 is the default")
    parser.add_argument("--learn", type=int, default=LEARNED, help="faces that `fine-tuned` learns on")
    parser.add_argument("--cache", type=Path, help="a folder for what was measured, to go on with")
    parser.add_argument("-o", "--output", type=Path, help="the curve, as PNG; the figures beside it as JSON")
    options = parser.parse_args()
    covers = [list(COVERS)[int(n)] for n in options.covers.split(",")]
    sizes = [int(v) for v in options.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        found = table(options.data, covers, sizes, options.learn, options.cache or Path(folder))
    count = len({line.split()[0] for line in identities()})
    print(f"{count} people, chance {1 / count:.1%}; rank-1 (95 % interval) / equal error rate; bold: above chance\n")
    print(markdown(found, count))
    if options.output:
        curve(found, count, options.output)
        rows = {
            cover: {size: {name: asdict(one) for name, one in row.items()} for size, row in sizes.items()}
            for cover, sizes in found.items()
        }
        options.output.with_suffix(".json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
