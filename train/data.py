"""Training images: the WIDER FACE layout read from disk, kept decoded in memory, served as crops."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from engines.boxes import F32, Array, Bool
from engines.errors import BadInput
from train.plan import AugmentRule, Plan, Subject, plan_crop
from train.render import pyramid, render


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image with its faces: xyxy [N, 4] in image pixels; `ignore` marks those neither face nor background."""

    path: Path
    xyxy: F32
    ignore: Bool


def read_split(root: Path, split: str) -> list[Labelled]:
    """The images of `WIDER_<split>` with the boxes of `wider_face_split/wider_face_<split>_bbx_gt.txt`.

    Lines are `x y w h blur expression illumination invalid occlusion pose`; invalid = 1 becomes
    `ignore`, and so does a box without area. An image without faces has the count 0 and one line of zeros.
    """
    listing = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    images = root / f"WIDER_{split}" / "images"
    if not listing.is_file():
        raise BadInput("not found", str(listing), "--data must hold WIDER_train/, WIDER_val/ and wider_face_split/")
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
        except (ValueError, IndexError) as e:
            raise BadInput(f"bad annotation of {name!r}: {e}", f"{listing}:{at + 1}") from None
        at += 2 + max(1, count)
        table = np.asarray(rows[:count], np.float32).reshape(-1, len(rows[0]))
        xywh = table[:, :4]
        ignore = (table[:, 7] == 1) | (xywh[:, 2:] <= 0).any(1)
        out.append(Labelled(images / name, np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), ignore))
    return out


def read_image(path: Path) -> Array:
    """RGB uint8 [H, W, 3]; EXIF orientation is not applied, as WIDER's boxes refer to the stored pixels."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise BadInput("cannot read the image", str(path))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class Crops(Dataset[tuple[Tensor, F32, F32]]):
    """Crop number (step, slot) of the training run, as a plan and as pixels.

    A crop depends on the seed and its number alone, never on workers or on earlier crops, so a run
    that is resumed, or loaded by more threads, sees the same pictures. Pictures and their halves are
    kept decoded until `cache_gb` is full; the rest is read from disk each time.
    """

    def __init__(self, images: list[Labelled], rule: AugmentRule, seed: int, batch: int, cache_gb: float = 8.0) -> None:
        self.labels, self.rule, self.seed, self.batch = images, rule, seed, batch
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

    def plan(self, key: tuple[int, int, int]) -> Plan:
        step, slot, size = key
        rng = np.random.default_rng((self.seed, step, slot))
        draw = step * self.batch + slot  # every image comes once an epoch
        epoch, at = divmod(draw, len(self))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self))
        return plan_crop(
            self._subject(int(self._order[1][at])),
            lambda: self._subject(int(rng.integers(len(self)))),
            size, self.rule, rng,
        )  # fmt: skip

    _order: tuple[int, Array] = (-1, np.zeros(0, np.intp))

    def _subject(self, index: int) -> Subject:
        return Subject(index, *self.sizes[index], self.labels[index].xyxy, self.labels[index].ignore)

    def picture(self, index: int) -> tuple[Array, ...]:
        return self.pictures[index] or pyramid(read_image(self.labels[index].path))

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, F32, F32]:
        """(image uint8 [3, S, S], faces [G, 4], ignores [I, 4])"""
        plan = self.plan(key)
        pixels = render(plan, {cell.image: self.picture(cell.image) for cell in plan.cells})
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1), plan.faces, plan.ignores


class Batches(Sampler[list[tuple[int, int, int]]]):
    """Keys of the crops, batch by batch. Crop sizes alternate between batches, the pixels a batch stay the same."""

    def __init__(self, start: int, steps: int, batch: int, sizes: tuple[int, ...], seed: int) -> None:
        self.start, self.steps, self.batch, self.sizes, self.seed = start, steps, batch, sizes, seed

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        for step in range(self.start, self.steps):
            size = int(np.random.default_rng((self.seed, step)).choice(self.sizes))
            count = max(1, round(self.batch * (min(self.sizes) / size) ** 2))
            yield [(step, slot, size) for slot in range(count)]


Batch = tuple[Tensor, list[F32], list[F32]]


def collate(items: list[tuple[Tensor, F32, F32]]) -> Batch:
    images, faces, ignores = zip(*items, strict=True)
    return torch.stack(images), list(faces), list(ignores)


def planner(crops: Crops, start: int, steps: int, sizes: tuple[int, ...], workers: int) -> DataLoader[list[Plan]]:
    """Like `loader`, but plans, whose pixels are made elsewhere."""
    batches = Batches(start, steps, crops.batch, sizes, crops.seed)
    return DataLoader(
        Plans(crops),  # type: ignore[arg-type]
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=list,
        prefetch_factor=4 if workers else None,
    )


class Plans(Dataset[Plan]):
    """The plans of crops."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, key: tuple[int, int, int]) -> Plan:
        return self.crops.plan(key)


def loader(crops: Crops, start: int, steps: int, sizes: tuple[int, ...], workers: int) -> DataLoader[Batch]:
    """Batches of crops from step `start` to `steps`; workers fork, so the decoded images are shared."""
    batches = Batches(start, steps, crops.batch, sizes, crops.seed)
    return DataLoader(
        crops,  # type: ignore[arg-type]
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
    )
