"""python -m train.verifier CROPS.npy...: train the verifier, a classifier of crops around what a detector has found.

A cascade's second stage (Viola and Jones, CVPR 2001; Zhang et al., MTCNN, 2016): it sees each box at one size with
its surroundings, so it tells hands, cloth and letters from faces where a detector, which sees all of a frame at once,
cannot. Its body is MobileNetV1 of a quarter width; --retinaface starts it from a net that was trained on WIDER FACE.
`train.candidates` writes the crops; `train.fuse` joins its score to a detector's and writes the graph that ships.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from facestream.engines.boxes import Array
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig, BadInput
from facestream.engines.face_crops import SIDE, bordered
from facestream.train.backbones import MobileNet, fix_norms
from facestream.train.candidates import SAVED, labels_path
from facestream.train.checkpoint import load_state, save_state
from facestream.train.loop import warmed_ema
from facestream.train.pretrained import read_tensors, retinaface_names
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

STD = (58.4, 57.1, 57.4)  # of RGB in pictures (ImageNet): by which RetinaFace's inputs are larger than ours
FLAT = 4.0  # deviation that counts as nothing: what a flat crop shows is noise
DARK = 0.25  # share of the training crops that are shown as in a dark room or against light
EDGES = 0.3  # share of the training crops that an edge cuts
LAST = SIDE // 32 + (SIDE % 32 > 0)  # side of the body's last map


class VerifierNet(nn.Module):
    """uint8 or float crops [N, 3, SIDE, SIDE], RGB in 0..255 -> logits [N] of "this is a face".

    Each crop is shown with a mean of 0 and about the same contrast, so that a face in the dark looks like one in light.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = MobileNet()
        width = MobileNet.WIDTHS[-1]
        self.pool = nn.Conv2d(width, width, LAST, groups=width)  # a mean that may weigh the middle more
        self.score = nn.Linear(width, 1)
        nn.init.constant_(self.pool.weight, 1 / LAST**2)
        nn.init.zeros_(self.pool.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)

    def forward(self, crops: Tensor) -> Tensor:
        x = crops.float()
        x = x - x.mean((1, 2, 3), keepdim=True)
        x = x / (x.square().mean((1, 2, 3), keepdim=True).sqrt() + FLAT)
        c32 = self.body(x)[2]
        logits: Tensor = self.score(F.relu(self.pool(c32)).flatten(1)).flatten()
        return logits


def init_body(net: VerifierNet, weights: Path) -> None:
    """Take the body of RetinaFace's small net (Pytorch_Retinaface's mobilenet0.25_Final.pth, MIT). BadConfig when the
    file lacks some of it."""
    state = {k.removeprefix("module."): v for k, v in read_tensors(weights).items()}
    names = retinaface_names(f"backbone.{name}" for name in net.body.state_dict())
    try:
        taken = {ours.removeprefix("backbone."): state[theirs] for ours, theirs in names.items()}
    except KeyError as e:
        raise BadConfig(f"lacks {e.args[0]}", str(weights), "mobilenet0.25_Final.pth of Pytorch_Retinaface") from None
    first = "stage1.0.0.weight"  # it sees BGR less the mean, not divided
    taken[first] = taken[first].flip(1) * torch.tensor(STD).reshape(1, 3, 1, 1)
    net.body.load_state_dict(taken)


def distorted(crop: Array, rng: np.random.Generator) -> Array:
    """A training crop [SAVED, SAVED, 3] -> [SIDE, SIDE, 3]: shifted, scaled, mirrored, blurred, coarse, compressed; or
    cut by an edge, as of the picture or of a mosaic's crop."""
    side = int(rng.integers(SIDE - 8, SAVED + 1))
    x, y = (int(v) for v in rng.integers(0, SAVED - side + 1, 2))
    out: Any = crop[y : y + side, x : x + side]
    if rng.random() < 0.5:
        out = out[:, ::-1]
    out = np.ascontiguousarray(out)
    if side != SIDE:
        out = cv2.resize(out, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.25:
        size = int(rng.integers(14, 56))
        small = cv2.resize(out, (size, size), interpolation=cv2.INTER_AREA)
        out = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    elif rng.random() < 0.2:
        size = int(rng.integers(3, 8))
        kernel = np.zeros((size, size), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (size - 1) / 2
        middle = (size - 1) / 2
        a, b = (tuple(round(v) for v in middle + sign * reach) for sign in (-1, 1))
        cv2.line(kernel, a, b, 1.0)
        out = cv2.filter2D(out, -1, kernel / kernel.sum())
    if rng.random() < 0.3:
        ok, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 90))])
        assert ok
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if rng.random() < EDGES:
        edges = [0, 0, 0, 0]  # top, bottom, left, right
        for axis in rng.permutation(2)[: int(rng.integers(1, 3))]:
            edges[2 * axis + int(rng.integers(2))] = int(rng.integers(1, SIDE // 4 + SIDE // 10))
        top, bottom, left, right = edges
        out = bordered(out[top : SIDE - bottom, left : SIDE - right], top, bottom, left, right)
    return np.asarray(out)


def tinted(crops: Tensor, draw: torch.Generator) -> Tensor:
    """Crops [N, 3, S, S] with other light, colours and noise, some darkened: floats, whole numbers as in pictures."""
    n = len(crops)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=draw) * (high - low) + low

    grey = (uniform(0, 1, 1, 1, 1) < 0.2).float()
    crops = crops * (1 - grey) + crops.mean(1, keepdim=True) * grey
    coloured = (uniform(0, 1, 1, 1, 1) < 0.6).float()
    gain = torch.exp(uniform(-0.5, 0.4, 1, 1, 1)) * torch.exp(uniform(-0.25, 0.25, 3, 1, 1) * coloured)
    mean = crops.mean((1, 2, 3), keepdim=True)
    contrast = uniform(0.6, 1.3, 1, 1, 1)
    crops = ((crops - mean) * contrast + mean) * gain + uniform(-15, 15, 1, 1, 1)
    noise = (uniform(0, 1, 1, 1, 1) < 0.25).float() * uniform(0, 14, 1, 1, 1)
    crops = (crops + noise * torch.randn(crops.shape, generator=draw)).clamp(0, 255)
    dark = (uniform(0, 1, 1, 1, 1) < DARK).float()
    return (
        (crops * torch.exp(-dark * darkness(crops.shape[2], uniform)) - dark * uniform(0, 8, 1, 1, 1)).clamp(0).round()
    )


def darkness(side: int, uniform: Callable[..., Tensor]) -> Tensor:
    """Logarithms [N, 1, side, side] of by how much light is less: all over, and on one side more than on the other."""
    angle = uniform(0, 2 * math.pi, 1, 1, 1)
    place = torch.linspace(-1, 1, side)
    across = torch.cos(angle) * place.reshape(1, 1, 1, -1) + torch.sin(angle) * place.reshape(1, 1, -1, 1)
    return (uniform(0.2, 3.0, 1, 1, 1) + uniform(0, 1.2, 1, 1, 1) * across).clamp(min=0)


class CropBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batch number i of a run: crops uint8 [batch, 3, SIDE, SIDE] and whether each is a face, float [batch].

    It depends on the seed and its number alone. Every crop comes once an epoch.
    """

    def __init__(self, files: list[Path], batch: int, seed: int, start: int, stop: int) -> None:
        self.crops = [np.load(path, mmap_mode="r") for path in files]
        for path, crops in zip(files, self.crops, strict=True):
            if crops.ndim != 4 or crops.shape[1:] != (SAVED, SAVED, 3) or crops.dtype != np.uint8:
                raise BadInput("no file of crops", str(path), "python -m train.candidates writes one")
        self.faces = np.concatenate([np.load(labels_path(path))["face"] for path in files])
        self.starts = np.cumsum([0, *(len(crops) for crops in self.crops)])
        self.batch = batch
        self.seed = seed
        self.first = start
        self.stop = stop
        self._order: tuple[int, Array] = (-1, np.zeros(0, np.intp))

    def __len__(self) -> int:
        return self.stop - self.first

    def _index(self, draw: int) -> int:
        epoch, at = divmod(draw, len(self.faces))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.faces))
        return int(self._order[1][at])

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if number >= len(self):
            raise IndexError(number)
        step = self.first + number
        rng = np.random.default_rng((self.seed, 1, step))
        indices = [self._index(step * self.batch + slot) for slot in range(self.batch)]
        out = np.empty((self.batch, SIDE, SIDE, 3), np.uint8)
        for slot, index in enumerate(indices):
            file = int(np.searchsorted(self.starts, index, "right")) - 1
            out[slot] = distorted(self.crops[file][index - self.starts[file]], rng)
        crops = torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()
        return crops, torch.from_numpy(self.faces[indices].astype(np.float32))


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: a linear warm-up, then half a cosine."""
    warm_up = min(1.0, (step + 1) / max(1, min(200, steps // 10)))
    return peak * warm_up * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


def train_verifier(
    net: VerifierNet, files: list[Path], folder: Path, steps: int, batch: int, peak: float, seed: int, save_every: int,
    resume: bool, workers: int,
) -> nn.Module:  # fmt: skip
    """Train in place; returns the moving average of the weights. Writes log.jsonl and state.pt into `folder`."""
    average = AveragedModel(net, multi_avg_fn=warmed_ema(0.999), use_buffers=True)
    solver = torch.optim.AdamW(net.parameters(), lr=peak, weight_decay=0.01)
    start = 0
    if resume:
        state = load_state(folder / "state.pt")
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        solver.load_state_dict(state["solver"])
        start = int(state["step"])
    fix_norms(net)  # the body's statistics are those of a trained net; three quarters of a step remain
    net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = CropBatches(files, batch, seed, start, steps)
    loader = DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None)
    recent: list[float] = []
    wrong: list[float] = []
    since = time.perf_counter()
    with (folder / "log.jsonl").open("a" if resume else "w") as log:
        for step, (crops, faces) in enumerate(_endless(loader), start):
            for group in solver.param_groups:
                group["lr"] = rate(step, steps, peak)
            pixels = tinted(crops.float(), torch.Generator().manual_seed(seed * 1_000_003 + step))
            logits = net(pixels.contiguous(memory_format=torch.channels_last))
            loss = F.binary_cross_entropy_with_logits(logits, faces)
            solver.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            solver.step()
            average.update_parameters(net)
            recent.append(float(loss.detach()))
            wrong.append(float(((logits.detach() > 0) != (faces > 0.5)).float().mean()))
            if (step + 1) % save_every == 0 or step + 1 == steps:
                speed = len(recent) * batch / (time.perf_counter() - since)
                row = {"step": step + 1, "loss": round(float(np.mean(recent)), 4),
                       "wrong": round(float(np.mean(wrong)), 4), "crops_a_second": round(speed)}  # fmt: skip
                log.write(json.dumps(row) + "\n")
                log.flush()
                print(row, flush=True)
                recent.clear()
                wrong.clear()
                since = time.perf_counter()
                state = {"net": net.state_dict(), "average": average.state_dict(), "solver": solver.state_dict()}
                save_state(folder / "state.pt", state | {"step": step + 1})
                save_verifier(folder / "weights.safetensors", average.module, {"step": step + 1, "steps": steps})
    trained: nn.Module = average.module
    return trained.eval()


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    yield from loader


def save_verifier(path: Path, net: nn.Module, note: dict[str, Any]) -> None:
    """Write its weights and a note to a .safetensors file."""
    part = path.with_name(path.name + ".part")
    save_file({k: v.cpu().contiguous() for k, v in net.state_dict().items()}, part, {"note": json.dumps(note)})
    os.replace(part, path)


def load_verifier(path: Path) -> tuple[VerifierNet, dict[str, Any]]:
    """The net and the note of a file by `save_verifier`. BadInput when it is not one."""
    if not path.is_file():
        raise BadInput("not found", str(path), "train one with: python -m train.verifier CROPS.npy")
    net = VerifierNet()
    try:
        with safe_open(path, "pt") as f:
            note = json.loads((f.metadata() or {}).get("note", "{}"))
            net.load_state_dict({k: f.get_tensor(k) for k in f.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, RuntimeError, json.JSONDecodeError) as e:
        raise BadInput(f"not weights of a verifier ({type(e).__name__})", str(path)) from None
    return net.eval(), note


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--retinaface", type=click.Path(path_type=Path), help="start the body from RetinaFace's small net")
@click.option("--init", type=click.Path(path_type=Path), help="start from an earlier verifier")
@click.option("--out", default=Path("runs/verifier"), show_default=True, type=click.Path(path_type=Path))
@click.option("--steps", default=12_000, show_default=True)
@click.option("--batch", default=128, show_default=True)
@click.option("--rate", "peak", default=1.5e-3, show_default=True, help="the highest learning rate")
@click.option("--seed", default=0, show_default=True)
@click.option("--save-every", default=250, show_default=True)
@click.option("--threads", default=1, show_default=True, help="two train hardly faster, and stall beside other work")
@click.option("--workers", default=1, show_default=True)
@click.option("--resume", is_flag=True, help="go on from the run folder's state")
def command(
    files: tuple[Path, ...], retinaface: Path | None, init: Path | None, out: Path, steps: int, batch: int,
    peak: float, seed: int, save_every: int, threads: int, workers: int, resume: bool,
) -> None:  # fmt: skip
    """Train the verifier; writes weights.safetensors, state.pt and log.jsonl into the run folder."""
    for path in files:
        for one in (path, labels_path(path)):
            if not one.is_file():
                raise BadInput("not found", str(one), "python -m train.candidates writes it")
    cv2.setNumThreads(0)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    net = VerifierNet()
    if init is not None:
        net, _ = load_verifier(init)
    elif retinaface is not None:
        init_body(net, retinaface)
    train_verifier(net, list(files), out, steps, batch, peak, seed, save_every, resume, workers)
    print(f"wrote {out / 'weights.safetensors'}")


if __name__ == "__main__":
    finish(command, "verifier")
