"""The attacker that learns on covered faces: a small network from a cover's pixels to a face matcher's numbers."""

from __future__ import annotations

import numpy as np
import torch
from facestream.engines.boxes import F32, Array
from torch import Tensor, nn

SIDE = 32  # pixels of what it sees
NUMBERS = 128  # of the matcher
EPOCHS = 24
BATCH = 64
RATE = 2e-3
SHARPNESS = 12.0  # of the softmax over a batch's faces, on cosines
HELD = 0.2  # share of the faces on which the best epoch is chosen


class AttackNet:
    """Learns which bare face belongs to a cover: in each batch the right one is to be the most alike."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        layers: list[nn.Module] = []
        channels = 3
        for wide in (24, 48, 96):
            layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(), nn.MaxPool2d(2)]
            channels = wide
        side = SIDE // 8
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels * side**2, NUMBERS))

    def train(self, covers: list[list[Array]], bare: F32) -> None:
        """covers: RGB uint8 [SIDE, SIDE, 3], several of each face. bare: the matcher's numbers, [N, NUMBERS]."""
        faces = torch.tensor(bare - bare.mean(0))
        order = self.rng.permutation(len(covers))
        held, learned = np.split(order, [round(HELD * len(order))])
        optimizer = torch.optim.AdamW(self.net.parameters(), RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
        best = np.inf
        kept = None
        for _ in range(EPOCHS):
            self.net.train()
            for batch in np.array_split(self.rng.permutation(learned), max(1, len(learned) // BATCH)):
                drawn = [covers[n][self.rng.integers(len(covers[n]))] for n in batch]
                drawn = [chip[:, ::-1] if self.rng.random() < 0.5 else chip for chip in drawn]
                loss = self._loss(_tensor(drawn), faces[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
            self.net.eval()
            with torch.no_grad():
                now = float(self._loss(_tensor([covers[n][0] for n in held]), faces[held]))
            if now < best:
                best = now
                kept = {name: value.clone() for name, value in self.net.state_dict().items()}
        assert kept is not None
        self.net.load_state_dict(kept)
        self.net.eval()

    def embed(self, chips: list[Array]) -> Array:
        """The numbers that it takes for those of the bare faces, less their mean: float32 [N, NUMBERS]."""
        with torch.no_grad():
            out: Array = self.net(_tensor(chips)).numpy()
        return out

    def _loss(self, covers: Tensor, faces: Tensor) -> Tensor:
        guess = nn.functional.normalize(self.net(covers), dim=1)
        alike = SHARPNESS * guess @ nn.functional.normalize(faces, dim=1).T
        right = torch.arange(len(covers))
        return nn.functional.cross_entropy(alike, right)


def _tensor(chips: list[Array]) -> Tensor:
    stacked = np.ascontiguousarray(np.stack(chips).transpose(0, 3, 1, 2), np.float32)
    return torch.tensor(stacked / 127.5 - 1)
