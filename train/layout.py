"""Checks a data set's folder layout, with hints for folders in another layout."""

from __future__ import annotations

from pathlib import Path

from facestream.engines.errors import BadInput

WANTED = "--data must hold WIDER_train/, WIDER_val/ and wider_face_split/"


def check_layout(root: Path, split: str, listing: Path) -> None:
    """Raises BadInput with a hint unless `root` contains `listing` and the images folder of a WIDER FACE split."""
    if not root.is_dir():
        raise BadInput("no such folder", str(root), WANTED)
    images = root / f"WIDER_{split}" / "images"
    if listing.is_file() and images.is_dir():
        return
    lacking = listing if not listing.is_file() else images
    raise BadInput("not found", str(lacking), _hint(root, split))


def _hint(root: Path, split: str) -> str:
    if (root / "images").is_dir() and root.name == f"WIDER_{split}":
        return f"give the folder above it: --data {root.parent}"
    if root.name == "wider_face_split":
        return f"give the folder above it: --data {root.parent}"
    below = sorted(p.parent for p in root.glob("*/wider_face_split") if p.is_dir())
    if below:
        return f"did you mean --data {below[0]}"
    zips = sorted(p.name for p in root.glob("*.zip") if p.name.lower().startswith(("wider", "wider_face")))
    if zips:
        return f"unpack {', '.join(zips)} there first"
    kind = foreign(root)
    if kind:
        return f"this looks like {kind} labels: python -m train.prepare {root} --to DIR converts them"
    if (root / "wider_face_split").is_dir() and split == "train":
        return f"{WANTED}; a validation set alone is for python -m train.evaluate"
    return WANTED


def foreign(root: Path) -> str | None:
    """The label format of a folder that is not WIDER's: coco, voc, yolo, or None when it is none of them."""
    if any(root.glob("*.json")) or any(root.glob("annotations/*.json")):
        return "coco"
    if any((root / "Annotations").glob("*.xml")) or any(root.glob("*.xml")):
        return "voc"
    if any(root.glob("labels/**/*.txt")) or any(root.glob("*/labels/*.txt")):
        return "yolo"
    return None
