"""Anchor targets of a batch: label and box of every anchor."""

from __future__ import annotations

import torch
from facestream.engines.boxes import F32
from facestream.train.anchors import grid_anchors
from facestream.train.assign import assign
from facestream.train.config import TrainConfig
from facestream.train.loss import AnchorTargets
from torch import Tensor


class TargetAssigner:
    """Computes anchor targets for images of any size; caches the anchors of the last sizes."""

    KEPT = 16  # whole pictures come in many shapes, and their anchors take megabytes
    AT_ONCE = 20_000_000  # anchors times faces: a crowd in a large picture would not fit into memory

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, self.spec = config, device, config.spec()
        self.grids: dict[tuple[int, int], list[Tensor]] = {}

    def __call__(self, height: int, width: int, faces: list[F32], ignores: list[F32]) -> list[AnchorTargets]:
        """The targets of each module, from the faces [G, 4] and ignored regions [I, 4], xyxy, of each image."""
        grid = self._grid(height, width)
        anchors = torch.cat(grid)
        # A batch in one go spares launches on a GPU; on the CPU the padding would cost more than it saves.
        n = 1 if self.device.type == "cpu" else len(faces)
        labels = []
        boxes = []
        for i in range(0, len(faces), n):
            face = padded(faces[i : i + n]).to(self.device)
            label, match = self._assign(anchors, face, padded(ignores[i : i + n]).to(self.device))
            rows = torch.arange(len(match), device=self.device)[:, None]
            labels.append(label)
            boxes.append(face[rows, match] if face.shape[1] else anchors.expand(len(match), -1, -1))
        counts = [len(g) for g in grid]
        split = zip(grid, torch.cat(labels).split(counts, 1), torch.cat(boxes).split(counts, 1), strict=True)
        return [AnchorTargets(*parts) for parts in split]

    def _assign(self, anchors: Tensor, faces: Tensor, ignores: Tensor) -> tuple[Tensor, Tensor]:
        rule = self.config.assign
        boxes = max(1, faces.shape[0] * max(faces.shape[1], ignores.shape[1]))
        if rule.fewest or len(anchors) * boxes <= self.AT_ONCE:  # a face's best anchors are among all
            return assign(anchors, faces, ignores, rule)
        parts = [assign(some, faces, ignores, rule) for some in anchors.split(max(1, self.AT_ONCE // boxes))]
        labels, match = zip(*parts, strict=True)
        return torch.cat(labels, 1), torch.cat(match, 1)

    def _grid(self, height: int, width: int) -> list[Tensor]:
        if (height, width) not in self.grids:
            if len(self.grids) >= self.KEPT:
                self.grids.pop(next(iter(self.grids)))
            self.grids[height, width] = [
                grid_anchors(height // stride, width // stride, stride, sizes).to(self.device)
                for stride, sizes in zip(self.spec.strides, self.spec.sizes, strict=True)
            ]
        return self.grids[height, width]


def padded(boxes: list[F32]) -> Tensor:
    """Boxes of several images as one float32 [N, G, 4], filled up with zeros."""
    out = torch.zeros(len(boxes), max((len(b) for b in boxes), default=0), 4)
    for row, b in zip(out, boxes, strict=True):
        row[: len(b)] = torch.from_numpy(b)
    return out
