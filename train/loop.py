"""The training loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from engines.boxes import F32
from engines.errors import BadConfig, BadInput, UserError
from train.anchors import grid_anchors
from train.assign import assign
from train.checkpoint import load_state, load_weights, save_state, save_weights
from train.config import TrainConfig
from train.data import Batch, Crops, Labelled, loader, planner
from train.loss import Loss, Truth, mined_loss, quality_loss
from train.model import SPECS, SSH, STRIDES
from train.render_torch import Album


class NotFinite(UserError):
    """The loss became infinite or NaN."""

    exit_code = 1


class Targets:
    """What each anchor should say, for crops of any size; the anchors of a size are computed once."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, self.sizes = config, device, SPECS[config.model].sizes
        self.grids: dict[int, list[Tensor]] = {}

    def __call__(self, side: int, faces: list[F32], ignores: list[F32]) -> list[Truth]:
        """The truth of each module, from the boxes of each crop of side x side: xyxy [G, 4], [I, 4]."""
        if side not in self.grids:
            cells = [(side // stride, stride, sizes) for stride, sizes in zip(STRIDES, self.sizes, strict=True)]
            self.grids[side] = [grid_anchors(n, n, stride, sizes).to(self.device) for n, stride, sizes in cells]
        grid = self.grids[side]
        anchors = torch.cat(grid)
        # A batch in one go spares launches on a GPU; on the CPU the padding would cost more than it saves.
        n = 1 if self.device.type == "cpu" else len(faces)
        labels, boxes = [], []
        for i in range(0, len(faces), n):
            face = padded(faces[i : i + n]).to(self.device)
            label, match = assign(anchors, face, padded(ignores[i : i + n]).to(self.device), self.config.assign)
            rows = torch.arange(len(match), device=self.device)[:, None]
            labels.append(label)
            boxes.append(face[rows, match] if face.shape[1] else anchors.expand(len(match), -1, -1))
        counts = [len(g) for g in grid]
        split = zip(grid, torch.cat(labels).split(counts, 1), torch.cat(boxes).split(counts, 1), strict=True)
        return [Truth(*parts) for parts in split]


def padded(boxes: list[F32]) -> Tensor:
    """Boxes of several images as one float32 [N, G, 4], filled up with zeros."""
    out = torch.zeros(len(boxes), max((len(b) for b in boxes), default=0), 4)
    for row, b in zip(out, boxes, strict=True):
        row[: len(b)] = torch.from_numpy(b)
    return out


def learning_rate(step: int, c: TrainConfig) -> float:
    """Linear warm-up, then cosine to 1 % or a division by 10 at 6/7 of the run (paper: 18k of 21k)."""
    if step < c.warmup:
        return c.lr * (step + 1) / c.warmup
    if c.schedule == "step":
        return c.lr * (0.1 if step >= c.steps * 6 / 7 else 1.0)
    done = (step - c.warmup) / max(1, c.steps - c.warmup)
    return c.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def make_optimizer(model: nn.Module, c: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay on convolution weights only, not on norms and biases."""
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": c.weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if c.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=c.lr, momentum=c.momentum)
    return torch.optim.AdamW(groups, lr=c.lr)


def warmed_ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """The exponential moving average of torch with a decay that starts low, so that the first weights, which know
    nothing, are soon forgotten: min(decay, (1 + n) / (10 + n)) after n steps (TensorFlow's rule)."""

    def update(averaged: Any, current: Any, n: Any) -> None:
        n = int(n)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, n)

    return update


class Run:
    """A training run in a folder: log.jsonl, state.pt (to resume) and weights.safetensors (the average)."""

    def __init__(
        self, config: TrainConfig, images: list[Labelled], out: Path, resume: bool, workers: int, device: str = "cpu"
    ) -> None:
        self.config, self.out, self.workers = config, out, workers
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self.model = SSH(replace(SPECS[config.model], branches=config.branches))
        if config.loss == "quality":
            self.model.expect_background()
        if config.model == "vgg16":
            self.model.backbone.freeze_early()  # type: ignore[operator, union-attr]
        # Twice as fast; on the CPU, with side branches, torch 2.13 crashes in its backward pass.
        crashes = config.branches and self.device.type == "cpu"
        self.layout = torch.contiguous_format if crashes else torch.channels_last
        self.model = self.model.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.average = AveragedModel(self.model, multi_avg_fn=warmed_ema(config.ema), use_buffers=True)
        self.optimizer = make_optimizer(self.model, config)
        self.step = 0
        out.mkdir(parents=True, exist_ok=True)
        if resume:
            self._resume()
        else:
            (out / "log.jsonl").unlink(missing_ok=True)
        self.crops = Crops(images, config.augment, config.seed, config.batch, config.cache_gb)
        self.targets = Targets(config, self.device)
        # Pixels are made where they are used; a batch on the CPU is made by the workers, crop by crop.
        self.album = None
        if self.device.type != "cpu":
            self.album = Album([self.crops.picture(i) for i in range(len(self.crops))], self.device)

    def start_from(self, weights: Path) -> None:
        """Take over the weights of an earlier run of the same network. BadConfig when it is another one."""
        other, _ = load_weights(weights)
        if other.spec != self.model.spec:
            raise BadConfig(f"it holds another network ({other.spec.name})", str(weights), "same --model and branches")
        self.model.load_state_dict(other.state_dict())
        self.average.module.load_state_dict(other.state_dict())

    def start_backbone(self, weights: Path) -> None:
        """Take the backbone's weights, by name, from a classifier's state dict (a .tar or .pth of tensors) or from
        another trained net (.safetensors).

        BadInput when it is none, BadConfig when it does not hold every convolution of the backbone.
        """
        if weights.suffix == ".safetensors":
            state = load_weights(weights)[0].backbone.state_dict()
        else:
            state = load_state(weights, "a state dict")
            state = {k.removeprefix("module."): v for k, v in state.get("state_dict", state).items()}
        mine = self.model.backbone.state_dict()
        there = {k: v for k, v in state.items() if k in mine and v.shape == mine[k].shape}
        lacking = sorted(k for k in mine if k not in there and not k.endswith("num_batches_tracked"))
        if lacking:
            raise BadConfig(f"lacks {lacking[0]} and {len(lacking) - 1} more of the backbone", str(weights))
        self.model.backbone.load_state_dict(there, strict=False)
        averaged = self.average.module
        assert isinstance(averaged, SSH)
        averaged.backbone.load_state_dict(there, strict=False)

    def _resume(self) -> None:
        if not (self.out / "state.pt").is_file():
            raise BadInput("there is nothing to resume", str(self.out / "state.pt"), "start without --resume")
        state = load_state(self.out / "state.pt")
        if state["config"] != _plain(self.config):
            raise BadConfig("the run was started with other settings", str(self.out / "state.pt"), "use the same ones")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        log = self.out / "log.jsonl"  # lines after the state was saved will be written again
        kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
        log.write_text("".join(line + "\n" for line in kept))

    def save(self) -> None:
        config = _plain(self.config)
        averaged = self.average.module
        assert isinstance(averaged, SSH)
        save_weights(self.out / "weights.safetensors", averaged, {"config": config, "step": self.step})
        save_state(
            self.out / "state.pt",
            {
                "config": config, "step": self.step, "model": self.model.state_dict(),
                "average": self.average.state_dict(), "optimizer": self.optimizer.state_dict(),
            },
        )  # fmt: skip

    def train(self, log_every: int = 20, save_every: int = 500) -> None:
        """Run to the last step; the state is saved on the way, at the end and on Ctrl-C."""
        c = self.config
        self.model.train()
        bar = tqdm(total=c.steps, initial=self.step, unit="step", dynamic_ncols=True)
        seen: list[Loss] = []
        try:
            for images, faces, ignores in self._batches():
                seen.append(self._step(images, faces, ignores))
                self.step += 1
                bar.update()
                if self.step % log_every == 0 or self.step == c.steps:
                    bar.set_postfix(self._log(seen))
                    seen.clear()
                if self.step % save_every == 0:
                    self.save()
        finally:
            bar.close()
            self.save()

    def _batches(self) -> Iterator[Batch]:
        c = self.config
        if self.album is None:
            yield from loader(self.crops, self.step, c.steps, c.sizes, self.workers)
            return
        for step, plans in enumerate(planner(self.crops, self.step, c.steps, c.sizes, self.workers), self.step):
            pixels = self.album.render(plans, seed=hash((c.seed, step)))
            yield pixels, [p.faces for p in plans], [p.ignores for p in plans]

    def _step(self, images: Tensor, faces: list[F32], ignores: list[F32]) -> Loss:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        truth = self.targets(images.shape[-1], faces, ignores)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
            outputs = self.model(images.float().contiguous(memory_format=self.layout))
        outputs = [(scores.float(), offsets.float()) for scores, offsets in outputs]
        if self.config.loss == "mined":
            loss = mined_loss(outputs, truth, self.config.mine, self.config.box_weight)
        else:
            loss = quality_loss(outputs, truth, self.config.box_weight)
        if not torch.isfinite(loss.total):
            raise NotFinite(f"the loss is {loss.total.item()} at step {self.step}", str(self.out), "lower lr")
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return loss

    def _log(self, seen: list[Loss]) -> dict[str, str]:
        row = {
            "step": self.step,
            "loss": float(np.mean([x.total.item() for x in seen])),
            "classes": float(np.mean([x.classes.item() for x in seen])),
            "boxes": float(np.mean([x.boxes.item() for x in seen])),
            "lr": learning_rate(self.step - 1, self.config),
        }
        with (self.out / "log.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
        return {k: f"{v:.4g}" for k, v in row.items() if k != "step"}


def _plain(config: TrainConfig) -> dict[str, Any]:
    """Settings as JSON-like values, so that a loaded state compares equal."""
    rules = {"assign": asdict(config.assign), "mine": asdict(config.mine), "augment": asdict(config.augment)}
    plain: dict[str, Any] = json.loads(json.dumps({**config.model_dump(), **rules}))
    return plain
