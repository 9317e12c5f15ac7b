"""Training on whole images instead of crops, at the paper's resolution or at SNIP's three."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from facestream.engines.boxes import F32
from facestream.engines.letterbox import pad
from facestream.train.config import TrainConfig
from facestream.train.data import Key, Labelled, Part, read_image
from facestream.train.snip import Level
from facestream.train.test_scales import resized, scale_to
from torch import Tensor
from torch.utils.data import Dataset


class WholeImageDataset(Dataset[tuple[Tensor, F32, F32]]):
    """Picture number (step, slot) of the run, scaled so that its shorter side is `shortest` unless the longer would
    pass `longest` (paper section 4.3), mirrored or not, padded on the right and at the bottom to multiples of 32.

    With SNIP a level is drawn for each picture, and faces outside its range are ignored. What is drawn
    depends on the seed and the number alone.
    """

    def __init__(self, images: list[Labelled], config: TrainConfig) -> None:
        self.labels = images
        self.config = config
        self.levels = config.levels if config.snip else (Level(config.shortest, config.longest, 0, 1e9),)

    def __len__(self) -> int:
        return len(self.labels)

    _order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.intp))

    def item(self, key: Key) -> Labelled:
        step, slot, _ = key
        epoch, at = divmod(step * self.config.batch + slot, len(self))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.config.seed, epoch)).permutation(len(self))
        return self.labels[int(self._order[1][at])]

    def paths(self, key: Key) -> list[Path]:
        return [self.item(key).path]

    def __getitem__(self, key: Key) -> tuple[Tensor, F32, F32]:
        """(image uint8 [3, H, W], faces [G, 4], ignores [I, 4]), boxes in the image's pixels"""
        item = self.item(key)
        rng = np.random.default_rng((self.config.seed, *key[:2]))
        level = self.levels[int(rng.integers(len(self.levels)))]
        rgb = read_image(item.path)
        height, width = rgb.shape[:2]
        scale = scale_to(width, height, level.shortest, level.longest)
        rgb = resized(rgb, scale)
        valid = ~item.ignore & level.has(item.xyxy)
        xyxy = item.xyxy * np.float32(scale)
        if self.config.flip and rng.random() < 0.5:
            rgb = np.ascontiguousarray(rgb[:, ::-1])
            xyxy = xyxy[:, [2, 1, 0, 3]]
            xyxy[:, [0, 2]] = rgb.shape[1] - xyxy[:, [0, 2]]
        if self.config.window:
            x, y = self._corner(xyxy[valid], rgb.shape[1], rgb.shape[0], rng)
            rgb = rgb[y : y + self.config.window, x : x + self.config.window]
            size = np.array([rgb.shape[1], rgb.shape[0]] * 2, np.float32)
            moved = xyxy - np.array([x, y, x, y], np.float32)
            xyxy = np.clip(moved, 0, size)
            seen = (xyxy[:, 2:] > xyxy[:, :2]).all(1)
            valid &= (np.abs(xyxy - moved) < 0.25 * (moved[:, 2:] - moved[:, :2]).max(1, keepdims=True)).all(1)
            xyxy = xyxy[seen]
            valid = valid[seen]
        pixels = torch.from_numpy(pad(rgb)).permute(2, 0, 1)
        return pixels, xyxy[valid].astype(np.float32), xyxy[~valid].astype(np.float32)

    def _corner(self, faces: F32, width: int, height: int, rng: np.random.Generator) -> tuple[int, int]:
        """The left upper corner of a window that shows one of the faces, if there are any."""
        size = self.config.window
        centre = rng.uniform(0, 1, 2) * (width, height)
        if len(faces):
            box = faces[rng.integers(len(faces))]
            room = np.maximum(size - (box[2:] - box[:2]), 0) / 2
            centre = (box[:2] + box[2:]) / 2 + rng.uniform(-1, 1, 2) * room
        limit = np.maximum(np.array([width, height]) - size, 0)
        x, y = np.clip(centre - size / 2, 0, limit).astype(int)
        return int(x), int(y)


def collate_separately(items: list[tuple[Tensor, F32, F32]]) -> list[Part]:
    """Images of different sizes, each a batch part of its own."""
    return [(image[None], [faces], [ignores]) for image, faces, ignores in items]
