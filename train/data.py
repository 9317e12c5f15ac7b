"""Training images: the WIDER FACE layout read from disk, kept decoded in memory, served as crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from facestream.engines.boxes import F32, Array, Bool
from facestream.engines.errors import BadInput
from facestream.train.augment import AugmentRule, CropParams, Subject, draw_crop_params
from facestream.train.dataset_issues import DatasetIssues, check_image_file, clip_boxes
from facestream.train.layout import check_layout
from facestream.train.render import pyramid, render
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image with its faces: xyxy [N, 4] in image pixels; `ignore` marks those neither face nor background.

    listing, line: where the first of its boxes is written, for messages.
    """

    path: Path
    xyxy: F32
    ignore: Bool
    listing: str = ""
    line: int = 0


def read_split(root: Path, split: str, issues: DatasetIssues | None = None) -> list[Labelled]:
    """The images of `WIDER_<split>` with the boxes of `wider_face_split/wider_face_<split>_bbx_gt.txt`.

    Lines are `x y w h blur expression illumination invalid occlusion pose`; invalid = 1 becomes
    `ignore`, and so does a box without area. An image without faces has the count 0 and one line of zeros.
    issues: gets boxes of no or negative size.
    """
    listing = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    images = root / f"WIDER_{split}" / "images"
    if not listing.is_file() or not root.is_dir():
        check_layout(root, split, listing)
    lines = listing.read_text().splitlines()
    out: list[Labelled] = []
    at = 0
    while at < len(lines):
        name = lines[at].strip()
        try:
            count = int(lines[at + 1])
            rows = [[float(v) for v in line.split()] for line in lines[at + 2 : at + 2 + max(1, count)]]
            if any(len(row) < 10 for row in rows) or len(rows) < max(1, count):
                raise ValueError("a face needs 10 numbers")
            table = np.asarray([row[:10] for row in rows[:count]], np.float32).reshape(-1, 10)
            if not np.isfinite(table).all():
                raise ValueError("a face needs finite numbers")
        except (ValueError, IndexError) as e:
            raise BadInput(f"bad annotation of {name!r}: {e}", f"{listing}:{at + 1}") from None
        xywh = table[:, :4]
        flat = (xywh[:, 2:] <= 0).any(1)
        for i in np.flatnonzero(flat & (table[:, 7] != 1)):
            if issues is not None:
                size = " x ".join(f"{v:g}" for v in xywh[i, 2:])
                kind = "box of negative size" if (xywh[i, 2:] < 0).any() else "box without area"
                issues.add(kind, f"{listing}:{at + 3 + i}", f"{kind}: {size}")
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + np.maximum(xywh[:, 2:], 0)], 1)
        out.append(Labelled(images / name, xyxy, (table[:, 7] == 1) | flat, str(listing), at + 3))
        at += 2 + max(1, count)
    return out


def usable(images: list[Labelled], issues: DatasetIssues) -> list[Labelled]:
    """The images that can be read, their boxes cut to them; the others go into `issues`, as do files without labels.

    BadInput when none is left.
    """

    def check(item: Labelled) -> Labelled | None:
        try:
            size = check_image_file(item.path)
        except BadInput as e:
            kind = "missing image" if e.what == "not found" else "unreadable image"
            issues.add(kind, e.where, f"{e.what}, listed in {item.listing}:{max(1, item.line - 2)}")
            return None
        xyxy, ignore = clip_boxes(item.xyxy, item.ignore, size, item.listing, item.line, issues)
        return replace(item, xyxy=xyxy, ignore=ignore)

    with ThreadPoolExecutor() as pool:
        kept = [item for item in pool.map(check, images) if item is not None]
    if not kept:
        raise BadInput("none of the images can be read", str(images[0].path if images else ""), "is --data right?")
    listed = {item.path for item in images}
    for folder in sorted({path.parent for path in listed}):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in SUFFIXES and path not in listed:
                    issues.add("image without annotation", str(path), f"is not in {images[0].listing}")
    return kept


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_image(path: Path) -> Array:
    """RGB uint8 [H, W, 3]; EXIF orientation is not applied, as WIDER's boxes refer to the stored pixels."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise BadInput("cannot read the image", str(path))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


Key = tuple[int, int, int]  # step, slot within its batch, size


class Crops(Dataset[tuple[Tensor, F32, F32]]):
    """Crop number (step, slot) of the training run, as parameters and as pixels.

    A crop depends on the seed and its number alone, never on workers or on earlier crops, so a run
    that is resumed, or loaded by more threads, sees the same pictures. Pictures and their halves are
    kept decoded until `cache_gb` is full; the rest is read from disk each time. mined: boxes [K, 4] by picture around
    which some crops are built.
    """

    def __init__(
        self, images: list[Labelled], rule: AugmentRule, seed: int, batch: int, cache_gb: float = 8.0,
        mined: dict[Path, F32] | None = None,
    ) -> None:  # fmt: skip
        self.mined = [(i, mined[item.path]) for i, item in enumerate(images) if mined and item.path in mined]
        self.labels = images
        self.rule = rule
        self.seed = seed
        self.batch = batch
        self.room = cache_gb * 1e9
        cv2.setNumThreads(0)  # OpenCV's own pool does not survive the fork of the loader's workers: they hang
        with ThreadPoolExecutor() as pool:
            kept = list(pool.map(self._read, images))
        self.sizes = [size for size, _ in kept]
        self.pictures = [picture for _, picture in kept]

    def _read(self, item: Labelled) -> tuple[tuple[int, int], tuple[Array, ...] | None]:
        picture = pyramid(read_image(item.path))
        height, width = picture[0].shape[:2]
        if self.room <= 0:
            return (width, height), None
        self.room -= sum(p.nbytes for p in picture)
        return (width, height), picture

    def __len__(self) -> int:
        return len(self.labels)

    def params(self, key: Key) -> CropParams:
        step, slot, size = key
        rng = np.random.default_rng((self.seed, step, slot))
        draw = step * self.batch + slot  # every image comes once an epoch
        epoch, at = divmod(draw, len(self))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self))
        item = self._subject(int(self._order[1][at]))
        if self.mined and rng.random() < self.rule.mined:
            index, boxes = self.mined[int(rng.integers(len(self.mined)))]
            item = replace(self._subject(index), centre=boxes[int(rng.integers(len(boxes)))])
        return draw_crop_params(
            item,
            lambda: self._subject(int(rng.integers(len(self)))),
            size, self.rule, rng,
        )  # fmt: skip

    _order: tuple[int, Array] = (-1, np.zeros(0, np.intp))

    def _subject(self, index: int) -> Subject:
        return Subject(index, *self.sizes[index], self.labels[index].xyxy, self.labels[index].ignore)

    def picture(self, index: int) -> tuple[Array, ...]:
        return self.pictures[index] or pyramid(read_image(self.labels[index].path))

    def paths(self, key: Key) -> list[Path]:
        """The pictures that a crop is made of."""
        return list(dict.fromkeys(self.labels[cell.image].path for cell in self.params(key).cells))

    def __getitem__(self, key: Key) -> tuple[Tensor, F32, F32]:
        """(image uint8 [3, S, S], faces [G, 4], ignores [I, 4])"""
        params = self.params(key)
        pixels = render(params, {cell.image: self.picture(cell.image) for cell in params.cells})
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1), params.faces, params.ignores


class Batches(Sampler[list[Key]]):
    """Keys of the crops, batch by batch. Crop sizes alternate between batches, the pixels a batch stay the same.

    world: (number, count) of the processes that share each batch.
    """

    def __init__(
        self, start: int, steps: int, batch: int, sizes: tuple[int, ...], seed: int, world: tuple[int, int] = (0, 1)
    ) -> None:
        self.start = start
        self.steps = steps
        self.batch = batch
        self.sizes = sizes
        self.seed = seed
        self.rank, self.world = world

    def __len__(self) -> int:
        return self.steps - self.start

    def keys(self, step: int) -> list[Key]:
        size = int(np.random.default_rng((self.seed, step)).choice(self.sizes))
        count = max(1, round(self.batch * (min(self.sizes) / size) ** 2))
        return [(step, slot, size) for slot in range(self.rank, count, self.world)]

    def __iter__(self) -> Iterator[list[Key]]:
        return (self.keys(step) for step in range(self.start, self.steps))


# One part of a step's batch: images uint8 [N, 3, H, W], the faces [G, 4] and ignores [I, 4] of each.
Part = tuple[Tensor, list[F32], list[F32]]


def collate(items: list[tuple[Tensor, F32, F32]]) -> list[Part]:
    images, faces, ignores = zip(*items, strict=True)
    return [(torch.stack(images), list(faces), list(ignores))]


class CropParamsDataset(Dataset[CropParams]):
    """The parameters of crops, whose pixels are rendered elsewhere."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, key: Key) -> CropParams:
        return self.crops.params(key)


def load(data: Dataset[Any], batches: Batches, collate: Callable[[list[Any]], Any], workers: int) -> DataLoader[Any]:
    """What `data` gives for each of `batches`; workers fork, so decoded images are shared."""
    return DataLoader(
        data,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
    )
