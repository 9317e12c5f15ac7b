"""python -m train.pseudo_label PICTURES -o DIR: label any folder of pictures by teachers that agree, for training.

The teachers are other people's detectors whose licences allow it (CenterFace, YuNet, RetinaFace's small net: MIT;
EResFD: Apache-2.0). Each looks at several scales; what several see is a face, what one sees or several see weakly is a
region to ignore, as are faces too small to judge. DIR gets the WIDER layout that `python -m train` reads, each label's
scores (extra/label_origin_train.tsv), and a contact sheet to look at: labels are drawn as faces (green) and ignored
(grey). Nothing replaces looking at it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import cv2
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array, Bool, iou_xyxy
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig, BadInput
from facestream.engines.onnx_engine import open_session
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.train.data import SUFFIXES, read_image
from facestream.train.test_scales import Scales, resized
from tqdm import tqdm

from facestream.checkout import benchmarks


@dataclass(frozen=True, slots=True)
class Trust:
    """Score levels of one teacher: `low`: perhaps a face; `ok`: a face; `confident`: hardly ever wrong."""

    low: float
    ok: float
    confident: float


TRUST = {
    "centerface": Trust(0.2, 0.35, 0.7),
    "yunet": Trust(0.3, 0.5, 0.88),
    "retinaface": Trust(0.3, 0.6, 0.985),
    "eresfd": Trust(0.2, 0.4, 0.97),
}


@dataclass(frozen=True, slots=True)
class LabelRule:
    """scales: megapixels that each picture is shown at, beside its own size; never enlarged more than `enlarge`.

    merge: IoU from which boxes of one teacher at several scales are one; agree: of several teachers. smallest: faces
    with a shorter side are ignored, in pixels of the picture. longest: width over height, or the reverse, of a box.
    """

    scales: tuple[float, ...] = (0.35, 0.9)
    enlarge: float = 2.0
    merge: float = 0.4
    agree: float = 0.42
    smallest: float = 8.0
    longest: float = 2.2


@dataclass(frozen=True, slots=True)
class Labels:
    """Boxes xyxy [N, 4] in the picture's pixels, those to ignore [N], each teacher's score [N, T] (0: silent)."""

    xyxy: F32
    ignore: Bool
    scores: F32


def detect_at_scales(detector: Detector, rgb: Array, rule: LabelRule) -> Detections:
    """What one teacher finds in a picture at all scales together, in its pixels."""
    pixels = rgb.shape[0] * rgb.shape[1] / 1e6
    zooms = {1.0} | {min(rule.enlarge, float(np.sqrt(scale / pixels))) for scale in rule.scales}
    found = [Scales(zoom=zoom).detect(detector, rgb) for zoom in sorted(zooms)]
    joined = Detections(np.concatenate([f.xyxy for f in found]), np.concatenate([f.scores for f in found]))
    return joined.nms(rule.merge)


def fuse(found: Sequence[Detections], trust: Sequence[Trust], rule: LabelRule) -> Labels:
    """One label for what the teachers see in the same place.

    The box is the mean of theirs, weighted by score. A face: two teachers at `ok`, or one at `confident` and another at
    `low`. To be ignored: one at `ok`, or two at `low`. Less is background.
    """
    count = len(found)
    boxes = np.concatenate([f.xyxy for f in found])
    scores = np.concatenate([f.scores for f in found])
    owner = np.concatenate([np.full(len(f), t) for t, f in enumerate(found)]).astype(int)
    # how far each is between its teacher's `low` and `confident`: scores of different nets do not compare
    rank = np.array(
        [(s - trust[t].low) / (trust[t].confident - trust[t].low) for s, t in zip(scores, owner, strict=True)]
    )
    groups: list[tuple[F32, F32]] = []
    free = rank >= 0
    for i in np.argsort(-rank, kind="stable"):
        if not free[i]:
            continue
        near = np.flatnonzero(free & (iou_xyxy(boxes[i : i + 1], boxes)[0] >= rule.agree))
        best_scores = np.zeros(count, np.float32)
        members = []
        for t in range(count):
            candidates = near[owner[near] == t]
            if len(candidates):
                best = candidates[int(scores[candidates].argmax())]
                best_scores[t] = scores[best]
                members.append(best)
        free[near] = False
        weight = scores[members]
        groups.append(((boxes[members] * weight[:, None]).sum(0) / weight.sum(), best_scores))
    xyxy = []
    ignore = []
    kept = []
    for box, best_scores in groups:
        low, ok, confident = (
            np.array([best_scores[t] >= getattr(trust[t], k) for t in range(count)]) for k in ("low", "ok", "confident")
        )
        face = ok.sum() >= 2 or (confident.any() and low.sum() >= 2)
        if not face and not ok.any() and low.sum() < 2:
            continue
        width, height = box[2:] - box[:2]
        odd = max(width / max(height, 1e-6), height / max(width, 1e-6)) > rule.longest
        xyxy.append(box)
        ignore.append(not face or odd or min(width, height) < rule.smallest)
        kept.append(best_scores)
    return _without_nested(Labels(
        np.asarray(xyxy, np.float32).reshape(-1, 4),
        np.asarray(ignore, bool),
        np.asarray(kept, np.float32).reshape(-1, count),
    ))  # fmt: skip


def _without_nested(labels: Labels) -> Labels:
    """Doubtful boxes that lie on a face (IoU 0.3 or more) go: they are other opinions of its extent."""
    if not len(labels.xyxy):
        return labels
    faces = labels.xyxy[~labels.ignore]
    on_face = (iou_xyxy(labels.xyxy, faces) >= 0.3).any(1) & labels.ignore
    kept = ~on_face
    return Labels(labels.xyxy[kept], labels.ignore[kept], labels.scores[kept])


class EResFD(Detector):
    """EResFD's ONNX file: one anchor a cell at strides 4 to 128, 16 to 512 px wide and 1.25 times as high."""

    STRIDES = (4, 8, 16, 32, 64, 128)
    MEAN = (123.0, 117.0, 104.0)

    def __init__(self, path: Path, options: DetectorOptions) -> None:
        super().__init__(options)
        if not path.is_file():
            raise BadInput("not found", str(path), "EResFD's ONNX file")
        self.session = open_session(str(path), options.threads)

    def infer(self, images: Array) -> tuple[F32, F32]:
        boxes, scores = zip(*(self._one(image) for image in images), strict=True)
        return np.stack(boxes), np.stack(scores)

    def _one(self, image: Array) -> tuple[F32, F32]:
        down = -image.shape[0] % 128
        right = -image.shape[1] % 128
        whole = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT, value=self.MEAN)
        blob = (whole.astype(np.float32) - np.array(self.MEAN, np.float32)).transpose(2, 0, 1)[None]
        offsets, shares = self.session.run(["l", "p"], {"x": np.ascontiguousarray(blob)})
        anchors = np.concatenate([self._anchors(whole.shape[0] // s, whole.shape[1] // s, s) for s in self.STRIDES])
        centre = anchors[:, :2] + offsets[0, :, :2] * 0.1 * anchors[:, 2:]
        half = anchors[:, 2:] * np.exp(offsets[0, :, 2:] * 0.2) / 2
        return np.concatenate([centre - half, centre + half], 1).astype(np.float32), shares[0, :, 1].astype(np.float32)

    @staticmethod
    def _anchors(height: int, width: int, stride: int) -> Array:
        """Centre, width and height [height * width, 4]."""
        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        centre = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
        return np.concatenate([centre, np.tile([4.0 * stride, 5.0 * stride], (len(centre), 1))], 1)


def retinaface(path: Path, options: DetectorOptions) -> Detector:
    """RetinaFace's small net from its authors' file, with its own anchors, on torch."""
    from facestream.engines.torch_engine import TorchDetector
    from facestream.train.model import PAPER_SIZES, SPECS, SSH, Deploy
    from facestream.train.pretrained import init_from_retinaface

    model = SSH(replace(SPECS["plainM"], sizes=PAPER_SIZES, branches=False))
    init_from_retinaface(path, [model])
    return TorchDetector(Deploy(model), options)


def load_teacher(name: str, files: dict[str, Path], options: DetectorOptions) -> Detector:
    """A teacher by name; `files` has the weights of retinaface and eresfd. BadConfig where they are lacking."""
    if name not in TRUST:
        raise BadConfig(f"unknown teacher {name!r}", "--teacher", "one of " + ", ".join(TRUST))
    if name in ("retinaface", "eresfd"):
        if name not in files:
            raise BadConfig("needs its weights", f"--{name}", "give the authors' file")
        return retinaface(files[name], options) if name == "retinaface" else EResFD(files[name], options)
    detector: Detector = benchmarks("baselines", "--teacher").load_baseline(name, options)
    return detector


def write_labels(root: Path, names: list[str], labels: list[Labels], teachers: Sequence[str]) -> None:
    """The listing of a WIDER-layout folder and, line by line, where its labels come from."""
    (root / "wider_face_split").mkdir(parents=True, exist_ok=True)
    (root / "extra").mkdir(exist_ok=True)
    lines = []
    origins = ["picture\treason\t" + "\t".join(teachers)]
    for name, label in zip(names, labels, strict=True):
        lines += [name, str(len(label.xyxy))]
        for (x0, y0, x1, y1), ignore, best_scores in zip(label.xyxy.tolist(), label.ignore, label.scores, strict=True):
            lines.append(f"{x0:.0f} {y0:.0f} {x1 - x0:.0f} {y1 - y0:.0f} 0 0 0 {int(ignore)} 0 0")
            origins.append(f"{name}\t{'weak' if ignore else 'face'}\t" + "\t".join(f"{s:.3f}" for s in best_scores))
        if not len(label.xyxy):
            lines.append(" ".join("0" * 10))
    (root / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    (root / "extra" / "label_origin_train.tsv").write_text("\n".join(origins) + "\n")


def sheet(paths: list[Path], labels: list[Labels], out: Path, tiles: int = 24, side: int = 320) -> None:
    """A contact sheet, evenly picked: faces green, what is ignored grey."""
    picked = np.linspace(0, len(paths) - 1, min(tiles, len(paths))).round().astype(int)
    columns = 6
    canvas = np.full((-(-len(picked) // columns) * side, columns * side, 3), 40, np.uint8)
    for n, index in enumerate(picked):
        rgb = read_image(paths[index])
        scale = side / max(rgb.shape[:2])
        tile = resized(rgb, scale)[:side, :side]
        for (x0, y0, x1, y1), ignore in zip((labels[index].xyxy * scale).tolist(), labels[index].ignore, strict=True):
            colour = (150, 150, 150) if ignore else (60, 255, 60)
            cv2.rectangle(tile, (round(x0), round(y0)), (round(x1), round(y1)), colour, 1)
        y, x = divmod(n, columns)
        canvas[y * side : y * side + tile.shape[0], x * side : x * side + tile.shape[1]] = tile
    cv2.imwrite(str(out), cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))


def label_folder(pictures: Path, out: Path, teachers: dict[str, Detector], rule: LabelRule) -> tuple[int, int]:
    """Label every picture below a folder; returns the number of faces and of ignore regions. BadInput without any.

    The pictures are linked, not copied, as WIDER_train/images/FOLDER/NAME.
    """
    paths = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise BadInput("holds no pictures", str(pictures), "give a folder of .jpg, .png, .webp or .bmp files")
    trust = [TRUST[name] for name in teachers]
    labels = []
    names = []
    for path in tqdm(paths, unit="image", disable=None):
        rgb = read_image(path)
        labels.append(fuse([detect_at_scales(d, rgb, rule) for d in teachers.values()], trust, rule))
        folder = path.parent.relative_to(pictures).as_posix().replace("/", "_")
        name = f"{'pictures' if folder == '.' else folder}/{path.name}"
        link = out / "WIDER_train" / "images" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.symlink(path.resolve(), link)
        names.append(name)
    write_labels(out, names, labels, list(teachers))
    sheet(paths, labels, out / "sheet.jpg")
    return sum(int((~x.ignore).sum()) for x in labels), sum(int(x.ignore.sum()) for x in labels)


@click.command()
@click.argument("pictures", type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="folder to write")
@click.option("--teacher", "names", multiple=True, default=tuple(TRUST), show_default=True, help="may be given again")
@click.option("--retinaface", type=click.Path(path_type=Path), help="mobilenet0.25_Final.pth of Pytorch_Retinaface")
@click.option("--eresfd", type=click.Path(path_type=Path), help="EResFD as ONNX")
@click.option("--threads", default=1, show_default=True)
def command(
    pictures: Path, out: Path, names: tuple[str, ...], retinaface: Path | None, eresfd: Path | None, threads: int
) -> None:
    """Label a folder of pictures by teachers that agree."""
    given = (("retinaface", retinaface), ("eresfd", eresfd))
    files = {name: path for name, path in given if path is not None}
    options = DetectorOptions(threshold=min(trust.low for trust in TRUST.values()), nms_iou=0.4, threads=threads)
    teachers = {name: load_teacher(name, files, options) for name in names}
    faces, ignored = label_folder(pictures, out, teachers, LabelRule())
    print(f"{faces} faces and {ignored} regions to ignore; look at {out / 'sheet.jpg'}")


if __name__ == "__main__":
    finish(command, "pseudo_label")
