"""python -m train.prepare SRC --to DIR: face labels of COCO, VOC or YOLO as a split in WIDER FACE's layout."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig, BadInput
from facestream.train.data import SUFFIXES
from facestream.train.dataset_issues import DatasetIssues, check_image_file
from facestream.train.layout import foreign


@dataclass(frozen=True, slots=True)
class Face:
    """A box x0, y0, x1, y1 in pixels, edges exclusive; invalid: neither face nor background."""

    xyxy: tuple[float, float, float, float]
    invalid: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    path: Path
    faces: list[Face]


def pictures_below(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)


def read_coco(source: Path, split: str, wanted: str | None) -> Iterator[Picture]:
    """A COCO `instances` file, or the one of a folder whose name has the split's; crowds become invalid."""
    found = [source] if source.is_file() else sorted({*source.glob("*.json"), *source.glob("annotations/*.json")})
    if len(found) > 1:
        found = [p for p in found if split in p.stem] or found
    if len(found) != 1:
        raise BadInput(f"{len(found)} label files", str(source), "name the one .json file as SRC")
    root = source if source.is_dir() else source.parent.parent if source.parent.name == "annotations" else source.parent
    try:
        table = json.loads(found[0].read_text())
        names = {c["id"]: str(c["name"]) for c in table["categories"]}
        chosen = {i for i, name in names.items() if wanted is None or name == wanted}
        boxes: dict[int, list[Face]] = {image["id"]: [] for image in table["images"]}
        for a in table["annotations"]:
            if a["category_id"] in chosen:
                x, y, w, h = (float(v) for v in a["bbox"])
                boxes[a["image_id"]].append(Face((x, y, x + w, y + h), bool(a.get("iscrowd", 0))))
    except (ValueError, KeyError, TypeError) as e:
        raise BadInput(f"not COCO labels ({type(e).__name__}: {e})", str(found[0])) from None
    _several(set(names.values()), wanted, found[0])
    by_name = {p.name: p for p in pictures_below(root)}
    for image in table["images"]:
        name = str(image["file_name"])
        direct = [p for p in (root / name, root / "images" / name) if p.is_file()]
        yield Picture(direct[0] if direct else by_name.get(Path(name).name, root / name), boxes[image["id"]])


def read_voc(source: Path, split: str, wanted: str | None) -> Iterator[Picture]:
    """Annotations/*.xml, JPEGImages/ beside; with ImageSets/Main/SPLIT.txt only those it names. difficult = invalid."""
    files = sorted((source / "Annotations").glob("*.xml")) or sorted(source.glob("*.xml"))
    listing = source / "ImageSets" / "Main" / f"{split}.txt"
    if listing.is_file():
        chosen = {line.split()[0] for line in listing.read_text().splitlines() if line.strip()}
        files = [f for f in files if f.stem in chosen]
    by_stem = {p.stem: p for p in pictures_below(source)}
    seen: set[str] = set()
    for file in files:
        faces = []
        try:
            root = ET.parse(file).getroot()
            for item in root.iter("object"):
                name = item.findtext("name", "")
                seen.add(name)
                if wanted is None or name == wanted:
                    box = item.find("bndbox")
                    if box is None:
                        raise ValueError("an object without bndbox")
                    x0, y0, x1, y1 = (float(box.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax"))
                    hard = item.findtext("difficult", "0").strip() == "1"
                    faces.append(Face((x0 - 1, y0 - 1, x1, y1), hard))  # VOC counts pixels from 1, both ends inside
        except (ET.ParseError, ValueError) as e:
            line = f":{e.position[0]}" if isinstance(e, ET.ParseError) else ""
            raise BadInput(f"not a VOC annotation ({e})", f"{file}{line}") from None
        yield Picture(by_stem.get(file.stem, source / "JPEGImages" / (root.findtext("filename") or file.stem)), faces)
    _several(seen, wanted, source)


def read_yolo(source: Path, split: str, wanted: str | None) -> Iterator[Picture]:
    """Images, their labels in a folder `labels` beside `images` (or in the same one): lines of class, centre, size as
    shares of the picture. An image without a file of labels has no faces. With a folder of the split's name, only that.
    """
    names = next((p for p in (source / "classes.txt", source / "obj.names") if p.is_file()), None)
    if wanted is not None and not wanted.isdigit():
        known = names.read_text().split() if names else []
        if wanted not in known:
            raise BadConfig(f"{wanted!r} is not in {names or 'classes.txt'}", "--class", "or give the number")
        wanted = str(known.index(wanted))
    pictures = pictures_below(source)
    if any(split in p.relative_to(source).parts[:-1] for p in pictures):
        pictures = [p for p in pictures if split in p.relative_to(source).parts[:-1]]
    seen: set[str] = set()
    for path in pictures:
        parts = list(path.parts)
        if "images" in parts[:-1]:
            at = len(parts) - 1 - parts[::-1].index("images")
            parts[at] = "labels"
        labels = Path(*parts).with_suffix(".txt")
        rows = labels.read_text().splitlines() if labels.is_file() else []
        faces = []
        size = _size(path) if rows else (0, 0)
        for n, row in enumerate(rows, 1):
            if not row.strip():
                continue
            try:
                kind, x, y, w, h = row.split()[:5]
                cx = float(x)
                cy = float(y)
                half_w = float(w) / 2
                half_h = float(h) / 2
                if max(abs(cx), abs(cy)) > 2:
                    raise ValueError("numbers must be shares of the picture")
            except ValueError as e:
                raise BadInput(f"not a YOLO label ({e})", f"{labels}:{n}") from None
            seen.add(kind)
            if wanted is None or kind == wanted:
                x0 = cx - half_w
                x1 = cx + half_w
                y0 = cy - half_h
                y1 = cy + half_h
                faces.append(Face((x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1])))
        yield Picture(path, faces)
    _several(seen, wanted, source)


def _size(path: Path) -> tuple[int, int]:
    try:
        return check_image_file(path)
    except BadInput:
        return 0, 0  # `convert` will name it


def _several(classes: set[str], wanted: str | None, where: Path) -> None:
    if wanted is None and len(classes) > 1:
        raise BadConfig(f"holds {', '.join(sorted(classes)[:8])}", str(where), "say which are faces: --class NAME")


READERS = {"coco": read_coco, "voc": read_voc, "yolo": read_yolo}


def convert(
    source: Path, to: Path, split: str, kind: str, wanted: str | None, issues: DatasetIssues
) -> tuple[int, int, int]:
    """Write WIDER_<split>/ and its list; returns the numbers of images, faces and invalid boxes.

    Images are hard-linked if possible, else copied. The list is written last.
    """
    listing = to / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    if listing.exists():
        raise BadInput("is there already", str(listing), "give another --to or --split")
    pictures = list(READERS[kind](source, split, wanted))
    if not pictures:
        raise BadInput(f"no {kind} labels", str(source), "is --from right?")
    base = source if source.is_dir() else source.parent
    images = to / f"WIDER_{split}" / "images"
    lines = []
    faces = 0
    invalid = 0
    for picture in pictures:
        try:
            check_image_file(picture.path)
        except BadInput as e:
            issues.add("image that cannot be read", e.where, e.what)
            continue
        inside = picture.path.is_relative_to(base) and len(picture.path.relative_to(base).parts) > 1
        name = picture.path.relative_to(base) if inside else Path("images") / picture.path.name
        target = images / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            try:
                os.link(picture.path, target)
            except OSError:
                shutil.copy2(picture.path, target)
        rows = []
        for face in picture.faces:
            x0, y0, x1, y1 = (round(v) for v in face.xyxy)
            rows.append(f"{x0} {y0} {x1 - x0} {y1 - y0} 0 0 0 {int(face.invalid)} 0 0")
            faces = faces + (not face.invalid)
            invalid = invalid + face.invalid
        lines += [name.as_posix(), str(len(rows)), *(rows or ["0 0 0 0 0 0 0 0 0 0"])]
    listing.parent.mkdir(parents=True, exist_ok=True)
    part = listing.with_name(listing.name + ".part")
    part.write_text("".join(line + "\n" for line in lines))
    part.replace(listing)
    return len(pictures) - sum(issues.counts.values()), faces, invalid


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--to", type=click.Path(path_type=Path), required=True, help="folder for the WIDER layout")
@click.option("--split", default="train", show_default=True, type=click.Choice(["train", "val"]))
@click.option("--from", "kind", default="auto", show_default=True, type=click.Choice(["auto", *READERS]))
@click.option("--class", "wanted", help="name of the face class if there are several; YOLO: or its number")
@click.option("--strict", is_flag=True, help="stop at the first unreadable image instead of skipping it")
def command(source: Path, to: Path, split: str, kind: str, wanted: str | None, strict: bool) -> None:
    """Convert face labels of COCO, VOC or YOLO to the layout that training and evaluation read."""
    if kind == "auto":
        found = "coco" if source.suffix == ".json" else foreign(source)
        if found is None:
            raise BadInput("neither COCO, VOC nor YOLO labels are there", str(source), "say which with --from")
        kind = found
    issues = DatasetIssues(strict)
    images, faces, invalid = convert(source, to, split, kind, wanted, issues)
    print(f"{kind}: {images} images, {faces} faces, {invalid} invalid, into {to}")
    if issues.counts:
        print(issues.summary())


if __name__ == "__main__":
    finish(command, "prepare")
