"""How well face matchers see through each cover: the table and the curve of docs/privacy.md.

    python benchmarks/attack_table.py --data FACES [--sizes 20,40,80,160] [-o docs/attack.png]

FACES is a folder in WIDER FACE's layout with the pictures that identities.txt names: two of each person. Each face is
scaled to a size and covered as `anonymize` covers it; the attackers see what is under the cover, on neutral ground.
Beside those of `facestream evaluate attack` there is `trained`: kernel ridge regression from covered to bare faces,
learned on other people's faces that were covered the same way.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.config import read
from facestream.pipeline.evaluate.attack import COLOURS, COVER, Person, Score, neutral, score, scores, take
from facestream.pipeline.evaluate.embedder import Embedder, by_box
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame

COVERS: dict[str, dict[str, Any]] = {
    "solid (default)": {"cover.hide": "solid"},
    "pixelate, 8 cells (default before)": {"cover.hide": "pixelate", "cover.cells": 8},
    "pixelate, 4 cells": {"cover.hide": "pixelate", "cover.cells": 4},
    "blur": {"cover.hide": "blur"},
    "none": {"cover.hide": "none"},
}
JITTER = 0.03  # of a face's side by which a detector's box moves from frame to frame
FRAMES = 5  # pictures of a person for the gallery, and as many for the probe
LEARNED = 400  # faces that `trained` learns on
LEAST = 55  # pixels of their shorter side
MARGIN = 2.4  # of the longer side, what is cut out of a picture
LAMBDA = 0.05

Known = tuple[Array, Array]  # a cutting and the face's box in it


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


def people(data: Path) -> list[tuple[Known, Known]]:
    """Two pictures of each person."""
    found: dict[str, list[Known]] = {}
    for line in Path(__file__).with_name("identities.txt").read_text().splitlines():
        if not line.startswith("#"):
            number, name, *box = line.split()
            found.setdefault(number, []).append(cut(picture(data / name), [int(v) for v in box]))
    return [(some[0], some[1]) for some in found.values()]


def others(data: Path) -> Iterator[Known]:
    """Faces of people that are in no identity's picture."""
    taken = {line.split()[1] for line in Path(__file__).with_name("identities.txt").read_text().splitlines()[1:]}
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
        place = np.concatenate([middle - half, middle + half])
        if self.anonymizer is None:
            return bare, bare, place
        video = av.VideoFrame.from_ndarray(bare, format="rgb24").reformat(format="yuv420p")
        left, top, right, bottom = place.tolist()
        boxes = (Box(1, (left, top, right, bottom), 1.0, BoxState.OBSERVED),)
        covered = self.anonymizer.cover(TrackedFrame(Frame(0, 0, Fraction(1, 25), video), boxes))
        return bare, covered.picture.to_ndarray(format="rgb24"), place


def colours(cover: Cover, known: Known) -> Array:
    _, covered, box = cover(known)
    chip = by_box(neutral(covered, box), box, 4 * COLOURS, COVER)
    return cv2.resize(chip, (COLOURS, COLOURS), interpolation=cv2.INTER_AREA).ravel() / 255.0


def trained(cover: Cover, learned: list[Known], bare: Array, people_: list[Person], gallery: Array) -> Score:
    """bare: [N, 128] of `learned`; gallery: [P, 128] of the people, bare."""
    x = np.stack([colours(cover, known) for known in learned])
    target = bare.mean(0)
    distances = _square(x, x)
    width = float(np.median(distances)) or 1.0
    solved = np.linalg.solve(np.exp(-distances / width) + LAMBDA * np.eye(len(x)), bare - target)
    probe = np.stack([np.mean(p.probe_colours, 0).ravel() / 255.0 for p in people_])
    guess = np.exp(-_square(probe, x) / width) @ solved
    known = gallery - target
    alike = (guess @ known.T) / (np.linalg.norm(guess, axis=1)[:, None] * np.linalg.norm(known, axis=1) + 1e-9)
    return score(1 - alike)


def _square(a: Array, b: Array) -> Array:
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0)


def table(data: Path, sizes: list[int], learn: int) -> dict[str, dict[int, dict[str, Score]]]:
    """cover -> size -> attacker -> score."""
    embedder = Embedder(2)
    pairs = people(data)
    learned = []
    for known in others(data):
        learned.append(known)
        if len(learned) == learn:
            break
    bare = embedder.embed([embedder.aligned(rgb, box) for rgb, box in learned])
    out: dict[str, dict[int, dict[str, Score]]] = {}
    for name in COVERS:
        for size in sizes:
            cover = Cover(name, size, np.random.default_rng(size))
            made = []
            for first, second in pairs:
                person = Person()
                for known, is_probe in ((first, False), (second, True)):
                    for _ in range(FRAMES):
                        raw, covered, box = cover(known)
                        take(person, embedder, raw, covered, box, is_probe)
                made.append(person)
            found = scores(made, embedder)
            gallery = np.stack([embedder.embed(p.bare).mean(0) for p in made])
            found["trained"] = trained(cover, learned, bare, made, gallery)
            out.setdefault(name, {})[size] = found
            cells = ", ".join(f"{k} {v.rank1:.0%}/{v.eer:.0%}" for k, v in found.items())
            print(f"{name} {size} px: {cells}", flush=True)
    return out


def markdown(found: dict[str, dict[int, dict[str, Score]]], count: int) -> str:
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


def curve(found: dict[str, dict[int, dict[str, Score]]], count: int, path: Path) -> None:
    """Rank-1 by size: the best of all attackers, and the stock matcher."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
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
    axes[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Face matchers against covers.")
    parser.add_argument("--data", type=Path, required=True, help="a folder in WIDER FACE's layout")
    parser.add_argument("--sizes", default="40,120")
    parser.add_argument("--learn", type=int, default=LEARNED, help="faces that the trained attacker learns on")
    parser.add_argument("-o", "--output", type=Path, help="the curve, as PNG; the figures beside it as JSON")
    options = parser.parse_args()
    found = table(options.data, [int(v) for v in options.sizes.split(",")], options.learn)
    count = len(people(options.data))
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
