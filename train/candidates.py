"""python -m train.candidates --data DIR --engine NET -o FILE.npy: crops of what detectors find in training pictures,
labelled, to train the verifier (`train.verifier`).

FILE.npy holds uint8 [N, SAVED, SAVED, 3], crops a little wider than the verifier's, so that training can shift them;
FILE.labels.npy holds a row of LABEL each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array, area_xyxy, intersection_xyxy, iou_xyxy
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig
from facestream.engines.face_crops import CONTEXT, SIDE, face_crops
from facestream.engines.letterbox import ImageView
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.train.data import Labelled, read_image, read_split
from facestream.train.test_scales import resized
from tqdm import tqdm

SAVED = SIDE + 8
FACE = 0.5  # IoU with a labelled face from which a box is one
APART = 0.3  # IoU with any label, or share of the box in an ignore region, below which it is none
MOST_FACES = 16  # crops of each kind that one picture gives at most
MOST_OTHERS = 30
VISIBLE = 0.25  # share of a face in the picture below which it is ignored
BESIDE = 8  # boxes beside faces that are added to a picture with faces
LABEL = np.dtype([("face", np.uint8), ("score", np.float32), ("size", np.float32)])


def label_boxes(xyxy: F32, item: Labelled, scale: float = 1.0) -> Array:
    """int8 [N] for boxes [N, 4] in pixels of the picture times `scale`: 1 a face, 0 none, -1 cannot be told."""
    labels = np.zeros(len(xyxy), np.int8)
    if not len(item.xyxy) or not len(xyxy):
        return labels
    truth = item.xyxy * np.float32(scale)
    iou = iou_xyxy(xyxy, truth)
    labels[(iou >= APART).any(1)] = -1
    if item.ignore.any():
        inside = intersection_xyxy(xyxy, truth[item.ignore]) / np.maximum(area_xyxy(xyxy), 1e-6)[:, None]
        labels[(inside >= APART).any(1)] = -1
    if (~item.ignore).any():
        labels[(iou[:, ~item.ignore] >= FACE).any(1)] = 1
    return labels


def beside(faces: F32, rng: np.random.Generator) -> F32:
    """Boxes [BESIDE, 4] that are moved off, or much larger or smaller than, some of the faces [N, 4], N > 0."""
    box = faces[rng.integers(len(faces), size=BESIDE)]
    sides = box[:, 2:] - box[:, :2]
    angle = rng.uniform(0, 2 * np.pi, BESIDE)
    away = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.4, 1.1, (BESIDE, 1)) * sides
    centre = (box[:, :2] + box[:, 2:]) / 2 + away
    half = sides / 2 * np.exp(rng.uniform(-0.7, 0.7, (BESIDE, 1)))
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def chosen(labels: Array, scores: F32, sizes: F32, rng: np.random.Generator) -> Array:
    """Indices of the boxes to keep: some faces, and of the others half the best and half any; large ones more often,
    which are few and whose covers are large."""

    def drawn(which: Array, count: int) -> Array:
        """Without replacement, with a chance that grows with the size (Efraimidis and Spirakis, 2006)."""
        keys = rng.random(len(which)) ** (1 / np.maximum(sizes[which], 1))
        out: Array = which[np.argsort(-keys)[:count]]
        return out

    others = np.flatnonzero(labels == 0)
    others = others[np.argsort(-scores[others], kind="stable")]
    best = others[: MOST_OTHERS // 2]
    rest = drawn(others[MOST_OTHERS // 2 :], MOST_OTHERS // 2)
    out: Array = np.concatenate([drawn(np.flatnonzero(labels == 1), MOST_FACES), best, rest])
    return out


def cut(rgb: Array, item: Labelled, rng: np.random.Generator) -> tuple[Array, Labelled]:
    """A part of the picture whose edge goes through one of its faces, and the labels in it, as far as they are in it:
    a face of which less than VISIBLE is left is ignored. The picture as it is where it has no face."""
    faces = np.flatnonzero(~item.ignore)
    if not len(faces):
        return rgb, item
    box = item.xyxy[rng.choice(faces)]
    axis = int(rng.integers(2))
    at = round(float(box[axis] + rng.uniform(0.2, 0.8) * (box[2 + axis] - box[axis])))
    area = [0, 0, rgb.shape[1], rgb.shape[0]]
    area[axis + (2 if rng.random() < 0.5 else 0)] = at
    left, top, right, bottom = area
    if min(right - left, bottom - top) < 32:
        return rgb, item
    corner = np.array([left, top, left, top], np.float32)
    inside = np.clip(item.xyxy, corner, np.array([right, bottom, right, bottom], np.float32))
    share = area_xyxy(inside) / np.maximum(area_xyxy(item.xyxy), 1e-6)
    kept = share > 0.02
    ignore = item.ignore | (share < VISIBLE)
    moved = inside - corner
    return np.ascontiguousarray(rgb[top:bottom, left:right]), replace(item, xyxy=moved[kept], ignore=ignore[kept])


def candidates(detector: Detector, item: Labelled, rng: np.random.Generator, cuts: float) -> tuple[Array, Array]:
    """Crops uint8 [K, SAVED, SAVED, 3] of one picture at a random scale, and their labels, LABEL [K].

    cuts: chance that only a part of the picture is shown, see `cut`."""
    rgb = read_image(item.path)
    if rng.random() < cuts:
        rgb, item = cut(rgb, item, rng)
    longest = max(rgb.shape[:2])
    scale = float(np.exp(rng.uniform(np.log(0.3), np.log(2.2))))
    scale = min(max(scale, 160 / longest), max(1.0, 1800 / longest), 1800 / longest)
    image = resized(rgb, scale)
    height, width = image.shape[:2]
    found = detector.detect([ImageView(image, width, height)])[0]
    xyxy = found.xyxy
    scores = found.scores
    faces = item.xyxy[~item.ignore]
    if len(faces):
        more = beside(faces * np.float32(scale), rng)
        xyxy = np.concatenate([xyxy, more])
        scores = np.concatenate([scores, np.zeros(len(more), np.float32)])
    labels = label_boxes(xyxy, item, scale)
    if len(faces):
        labels[len(found) :][labels[len(found) :] == 1] = -1  # a box drawn beside a face is no example of one
    sizes = np.sqrt(area_xyxy(xyxy))
    which = chosen(labels, scores, sizes, rng)
    table = np.zeros(len(which), LABEL)
    table["face"] = labels[which] == 1
    table["score"] = scores[which]
    table["size"] = sizes[which]
    return face_crops(image, xyxy[which], (), SAVED, CONTEXT * SAVED / SIDE), table


def labels_path(path: Path) -> Path:
    """Where the labels of a file of crops are."""
    return path.with_suffix(".labels.npy")


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="folder in WIDER FACE's layout")
@click.option("--engine", "engines", multiple=True, default=("plainS",), show_default=True,
              help="a shipped model's name or an .onnx file; of several, one is drawn for each picture")  # fmt: skip
@click.option("--threshold", default=0.02, show_default=True, help="score from which a box is a candidate")
@click.option("--verify/--no-verify", default=False, help="scores by the shipped verifier: its own errors come first")
@click.option("--count", default=250_000, show_default=True, help="crops")
@click.option("--cuts", default=0.3, show_default=True, help="share of the pictures that are cut through a face")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True)
def command(
    data: Path, engines: tuple[str, ...], threshold: float, verify: bool, count: int, cuts: float,
    seed: int, out: Path,
) -> None:  # fmt: skip
    """Collect labelled crops until there are enough, picture by picture in random order."""
    if out.suffix != ".npy":
        raise BadConfig("must end in .npy", "--output")
    options = DetectorOptions(threshold=threshold, verify=verify)
    detectors = [load_detector(name, options) for name in engines]
    images = read_split(data, "train")
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    crops = np.lib.format.open_memmap(out, "w+", np.uint8, (count, SAVED, SAVED, 3))
    labels = np.zeros(count, LABEL)
    at = 0
    with tqdm(total=count, unit="crop", disable=None) as bar:
        while at < count:
            for index in rng.permutation(len(images)):
                pixels, table = candidates(detectors[int(rng.integers(len(detectors)))], images[index], rng, cuts)
                take = min(len(table), count - at)
                crops[at : at + take] = pixels[:take]
                labels[at : at + take] = table[:take]
                at += take
                bar.update(take)
                if at == count:
                    break
    crops.flush()
    np.save(labels_path(out), labels)
    print(f"{count} crops, {int(labels['face'].sum())} of them faces")


if __name__ == "__main__":
    finish(command, "candidates")
