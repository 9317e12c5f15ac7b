"""The training loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from facestream.engines.boxes import F32
from facestream.engines.checked import Wrong
from facestream.engines.errors import BadConfig, BadInput, UserError
from facestream.train.backbones import VGG16, MobileNet, fix_norms
from facestream.train.checkpoint import load_state, save_state, save_weights
from facestream.train.config import TrainConfig, stored_config
from facestream.train.data import Batches, CropParamsDataset, Crops, Labelled, Part, collate, load
from facestream.train.distributed import World
from facestream.train.loss import Loss, distilled_loss, mined_loss, quality_loss, single_process
from facestream.train.model import SSH
from facestream.train.render_torch import GpuImageCache
from facestream.train.targets import TargetAssigner
from facestream.train.whole_image_dataset import WholeImageDataset, collate_separately
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm


class NotFinite(UserError):
    """The loss became infinite or NaN."""

    exit_code = 1


def learning_rate(step: int, c: TrainConfig) -> float:
    """The learning rate at a step: linear warm-up, then cosine decay to 1 %, or x0.1 at 6/7 of the run (paper: 18k of
    21k)."""
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
    """A training run in a folder: log.jsonl, state.pt (to resume) and weights.safetensors (the average).

    images: as `train.data.usable` gives them. world: the processes that share each batch; only the first one writes.
    """

    def __init__(
        self, config: TrainConfig, images: list[Labelled], out: Path, resume: bool, workers: int, device: str = "cpu",
        world: World | None = None, mined: dict[Path, F32] | None = None,
    ) -> None:  # fmt: skip
        self.config, self.out, self.workers, self.world = config, out, workers, world or World()
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self.model = SSH(config.spec())
        if config.loss == "quality":
            self.model.expect_background()
        if isinstance(self.model.backbone, (VGG16, MobileNet)):
            self.model.backbone.freeze_early(config.frozen)
        if config.norms == "fixed":
            fix_norms(self.model)
        # Twice as fast; on the CPU, with side branches, torch 2.13 crashes in its backward pass.
        crashes = config.branches and self.device.type == "cpu"
        self.layout = torch.contiguous_format if crashes else torch.channels_last
        if self.world.size > 1 and self.device.type == "cuda":  # on the CPU each process norms by its own crops
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.model = self.model.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.model.layout = self.layout
        self.network: nn.Module = self.model  # what runs; train() spreads it over the processes
        self.average = AveragedModel(self.model, multi_avg_fn=warmed_ema(config.ema), use_buffers=True)
        self.optimizer = make_optimizer(self.model, config)
        self.step = 0
        out.mkdir(parents=True, exist_ok=True)
        if resume:
            self._resume()
        elif self.first:
            (out / "log.jsonl").unlink(missing_ok=True)
        self.batches = self._plan_batches()
        self.data: Crops | WholeImageDataset
        self.gpu_images = None
        if config.view == "whole_images":
            self.data = WholeImageDataset(images, config)
        else:
            self.data = Crops(images, config.augment, config.seed, config.batch, config.cache_gb, mined)
            # Pixels are made where they are used; a batch on the CPU is made by the workers, crop by crop.
            if self.device.type != "cpu":
                self.gpu_images = GpuImageCache([self.data.picture(i) for i in range(len(self.data))], self.device)
        self.targets = TargetAssigner(config, self.device)
        self.teacher: SSH | None = None
        self.shares_first = False

    def learn_from(self, teacher: SSH) -> None:
        """Distil a net with the same anchors into this one. BadConfig when its anchors are others."""
        spec = self.model.spec
        if (teacher.spec.strides, teacher.spec.sizes) != (spec.strides, spec.sizes):
            raise BadConfig("the teacher has other anchors", "--teacher", "give a net with the same strides and sizes")
        self.teacher = teacher.eval().to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.teacher.layout = self.layout
        for p in self.teacher.parameters():
            p.requires_grad_(False)
        fix_norms(self.teacher)
        ours = self.model.backbone
        theirs = self.teacher.backbone
        fixed = self.config.frozen and self.config.norms == "fixed"
        if fixed and isinstance(ours, MobileNet) and isinstance(theirs, MobileNet):
            own = ours.stage1.state_dict()
            other = theirs.stage1.state_dict()
            same_input = torch.equal(self.model.mean, teacher.mean) and torch.equal(self.model.std, teacher.std)
            self.shares_first = same_input and all(torch.equal(v, other[k]) for k, v in own.items() if k in other)

    @property
    def first(self) -> bool:
        """Whether this process writes what the run leaves."""
        return self.world.rank == 0

    def _plan_batches(self) -> Batches:
        c = self.config
        w = self.world
        sizes = c.sizes if c.view == "crops" else (c.shortest,)
        batches = Batches(self.step, c.steps, c.batch, sizes, c.seed, (w.rank, w.size))
        fewest = max(1, round(c.batch * (min(sizes) / max(sizes)) ** 2))
        if fewest < w.size:
            raise BadConfig(f"a batch of {fewest} does not go round {w.size} processes", "training setting batch")
        return batches

    def models(self) -> tuple[SSH, SSH]:
        """The network and its average, for weights to start from."""
        averaged = self.average.module
        assert isinstance(averaged, SSH)
        return self.model, averaged

    def _resume(self) -> None:
        if not (self.out / "state.pt").is_file():
            raise BadInput("there is nothing to resume", str(self.out / "state.pt"), "start without --resume")
        state = load_state(self.out / "state.pt")
        try:
            same = stored_config(state["config"]) == self.config
        except Wrong:
            same = False
        if not same:
            raise BadConfig("the run was started with other settings", str(self.out / "state.pt"), "use the same ones")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        if not self.first:
            return
        log = self.out / "log.jsonl"  # lines after the state was saved will be written again
        kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
        log.write_text("".join(line + "\n" for line in kept))

    def save(self) -> None:
        if not self.first:
            return
        config = self.config.plain()
        save_weights(self.out / "weights.safetensors", self.models()[1], {"config": config, "step": self.step})
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
        if self.world.size > 1:
            self.network = DistributedDataParallel(self.model, find_unused_parameters=c.only_m2)
        bar = tqdm(total=c.steps, initial=self.step, unit="step", dynamic_ncols=True, disable=not self.first)
        seen: list[Loss] = []
        try:
            for parts in self._batches():
                seen.append(self._step(parts))
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

    def _batches(self) -> Iterator[list[Part]]:
        c = self.config
        self.batches.start = self.step
        if self.gpu_images is None or isinstance(self.data, WholeImageDataset):
            yield from load(
                self.data, self.batches, collate_separately if c.view == "whole_images" else collate, self.workers
            )
            return
        for step, batch in enumerate(load(CropParamsDataset(self.data), self.batches, list, self.workers), self.step):
            pixels = self.gpu_images.render(batch, seed=hash((c.seed, step)))
            yield [(pixels, [p.faces for p in batch], [p.ignores for p in batch])]

    def _step(self, parts: list[Part]) -> Loss:
        """One update from all parts of the batch: the one stack of crops, or whole pictures one after the other."""
        torch.manual_seed(
            hash((self.config.seed, self.step)) % (1 << 31)
        )  # for anchors chosen at random (ohem = false)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        each = []
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            wait = nullcontext() if last or self.world.size == 1 else self.network.no_sync()  # type: ignore[operator]
            with wait:
                loss = self._loss(part)
                if not torch.isfinite(loss.total):
                    raise self._not_finite(loss, i, len(parts))
                # The gradient is the mean over all parts of all processes, and DDP takes the mean over processes.
                weight = 1.0 if self.config.view == "crops" else self.world.size / self.config.batch
                (weight * loss.total).backward()
            each.append(loss)
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return each[0] if len(each) == 1 else mean_loss(each)

    def _loss(self, part: Part) -> Loss:
        images, faces, ignores = part
        c = self.config
        truth = self.targets(images.shape[-2], images.shape[-1], faces, ignores)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.amp):
            pixels = images.to(self.device)
            c8 = None
            if self.shares_first:  # the frozen first part is the teacher's, too: run it once
                with torch.no_grad():
                    c8 = self.model.backbone.stage1(self.model.normalised(pixels))  # type: ignore[operator, union-attr]
            outputs = self.network(pixels) if c8 is None else self.network(pixels, c8)
            if self.teacher is not None:
                with torch.no_grad():
                    taught = [(s.float(), o.float()) for s, o in self.teacher(pixels, c8)]
        outputs = [(scores.float(), offsets.float()) for scores, offsets in outputs]
        share = self.world.share if c.view == "crops" else single_process
        if c.loss == "mined":
            loss = mined_loss(outputs, truth, replace(c.hard_anchors, hard=c.ohem), c.box_weight, share=share)
        else:
            loss = quality_loss(outputs, truth, c.box_weight, share)
        if self.teacher is None:
            return loss
        soft = distilled_loss(outputs, taught, truth, c.box_weight, share)
        return replace(loss, total=loss.total + c.distill * soft.total)

    def _not_finite(self, loss: Loss, at: int, parts: int) -> NotFinite:
        """Names the pictures of the batch, of which one may be what is wrong."""
        keys = self.batches.keys(self.step)
        if parts > 1:
            keys = keys[at : at + 1]
        paths = list(dict.fromkeys(path for key in keys for path in self.data.paths(key)))
        names = ", ".join(f"{p.parent.name}/{p.name}" for p in paths[:8])
        more = f" and {len(paths) - 8} more" if len(paths) > 8 else ""
        what = f"the loss is {loss.total.item()} at step {self.step}, in the batch of {names}{more}"
        return NotFinite(what, str(self.out), "lower lr, or look at these pictures")

    def _log(self, seen: list[Loss]) -> dict[str, str]:
        values = torch.stack([torch.stack([x.total.detach(), x.classes, x.boxes]) for x in seen]).mean(0)
        total, classes, boxes = self.world.mean(values).tolist()
        lr = learning_rate(self.step - 1, self.config)
        row = {"step": self.step, "loss": total, "classes": classes, "boxes": boxes, "lr": lr}
        if self.first:
            with (self.out / "log.jsonl").open("a") as f:
                f.write(json.dumps(row) + "\n")
        return {k: f"{v:.4g}" for k, v in row.items() if k != "step"}


def mean_loss(losses: list[Loss]) -> Loss:
    """Of the parts of a batch, for the log."""
    return Loss(*(torch.stack([getattr(x, k).detach() for x in losses]).mean() for k in ("total", "classes", "boxes")))
