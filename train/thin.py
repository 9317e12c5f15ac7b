"""python -m train.thin WEIGHTS --to MODEL --data DIR -o OUT: a cheaper net that starts as an imitation of another.

For nets on MobileNet with a pyramid. The backbone loses blocks of its second part, the pyramid keeps the channels from
which the others can be told best, and the convolutions behind a loss are fitted anew, by least squares, to what the
larger net computed on training crops. What remains to be learned is left to `python -m train --teacher`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from facestream.engines.boxes import Array
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig
from facestream.train.augment import AugmentRule
from facestream.train.backbones import ConvNorms, MobileNet, RepConv, _fold, fix_norms
from facestream.train.checkpoint import load_weights, save_weights
from facestream.train.data import Crops, read_split
from facestream.train.model import SPECS, SSH, Module
from scipy.linalg import qr
from torch import Tensor, nn
from torch.nn import functional as F

log = logging.getLogger("facestream.train.thin")

ROWS = 20_000  # cells that a fit sees
RIDGE = 1e-3  # of the mean square of its inputs


@dataclass(frozen=True, slots=True)
class Fit:
    """A convolution with bias, weight [O, I, k, k] and bias [O], and the share of the target's variance it misses."""

    weight: Tensor
    bias: Tensor
    missed: float


def fit_conv(x: Tensor, wanted: Tensor, size: int) -> Fit:
    """The convolution of x [N, I, h, w] that comes nearest to `wanted` [N, O, h, w], in the least squares sense."""
    channels = x.shape[1]
    columns = F.unfold(x, size, padding=size // 2).transpose(1, 2).reshape(-1, channels * size * size)
    target = wanted.permute(0, 2, 3, 1).reshape(-1, wanted.shape[1])
    if len(columns) > ROWS:
        chosen = torch.randperm(len(columns), generator=torch.Generator().manual_seed(0))[:ROWS]
        columns = columns[chosen]
        target = target[chosen]
    a = torch.cat([columns, torch.ones(len(columns), 1)], 1).double()
    gram = a.T @ a
    ridge = RIDGE * gram.diagonal()[:-1].mean()
    gram[:-1, :-1] += ridge * torch.eye(len(gram) - 1, dtype=gram.dtype)
    solution = torch.linalg.solve(gram, a.T @ target.double())
    missed = float((a @ solution - target).square().sum() / (target - target.mean(0)).square().sum().clamp(min=1e-12))
    weight = solution[:-1].T.reshape(-1, channels, size, size).float().contiguous()
    return Fit(weight, solution[-1].float(), missed)


def best_channels(samples: Array, count: int) -> list[int]:
    """`count` columns of samples [rows, channels] from which the others follow best (QR with pivoting), in order."""
    _, _, order = qr(samples - samples.mean(0), mode="economic", pivoting=True)
    return sorted(int(i) for i in order[:count])


def put(conv: RepConv, weight: Tensor, bias: Tensor, scale: Tensor) -> None:
    """Make `conv` compute this convolution; its weights are stored divided by `scale` [O], its norm multiplies."""
    bn = conv.main_bn
    assert bn.running_mean is not None
    assert bn.running_var is not None
    with torch.no_grad():
        conv.main.weight.copy_(weight / scale[:, None, None, None])
        bn.weight.copy_(scale)
        bn.bias.copy_(bias)
        bn.running_mean.zero_()
        bn.running_var.fill_(1 - bn.eps)


def folded(conv: RepConv) -> tuple[Tensor, Tensor]:
    weight, bias = _fold(conv.main.weight, conv.main_bn)
    return weight.detach(), bias.detach()


@torch.no_grad()
def thinned(teacher: SSH, student: SSH, images: Tensor) -> dict[str, float]:
    """Give `student` the weights that imitate `teacher` on images, float RGB 0..255 [N, 3, H, W].

    Returns the share of each fitted convolution's variance that was missed. BadConfig when the two are too unlike.
    """
    if not (teacher.spec.pyramid and student.spec.pyramid) or teacher.spec.heads != student.spec.heads:
        raise BadConfig("both need a pyramid and the same heads", student.spec.name)
    teacher.eval()
    fix_norms(teacher)
    student.eval()
    fix_norms(student)
    missed: dict[str, float] = {}
    x = (images - teacher.mean) / teacher.std
    t8, t16, t32 = teacher.backbone(x)
    student.backbone.stage1.load_state_dict(teacher.backbone.stage1.state_dict())  # type: ignore[operator, union-attr]
    missed |= _shorter(teacher.backbone, student.backbone, t8)  # type: ignore[arg-type]
    student.backbone.stage3.load_state_dict(teacher.backbone.stage3.state_dict())  # type: ignore[operator, union-attr]
    s8, s16, s32 = student.backbone(x)

    lateral = {k: getattr(teacher, f"lateral{k}") for k in (8, 16, 32)}
    p32 = lateral[32](t32)
    sum16 = lateral[16](t16) + F.interpolate(p32, scale_factor=2, mode="nearest")
    p16 = teacher.smooth16(sum16)
    sum8 = lateral[8](t8) + F.interpolate(p16, scale_factor=2, mode="nearest")
    p8 = teacher.smooth(sum8)

    width = student.spec.fusion
    kept16 = best_channels(np.concatenate([_rows(sum16), _rows(p32)]), width)
    kept8 = best_channels(np.concatenate([_rows(sum8), _rows(p16)]), width)
    kept = best_channels(_rows(p8), width)
    for key, source, channels in ((32, s32, kept16), (16, s16, kept16), (8, s8, kept8)):
        layer = getattr(student, f"lateral{key}")
        wanted = _before(lateral[key], {8: t8, 16: t16, 32: t32}[key])[:, channels]
        missed[f"lateral{key}"] = _refit(layer, source, wanted)
    q32 = student.lateral32(s32)
    student16 = student.lateral16(s16) + F.interpolate(q32, scale_factor=2, mode="nearest")
    missed["smooth16"] = _refit(student.smooth16, student16, _before(teacher.smooth16, sum16)[:, kept8])
    q16 = student.smooth16(student16)
    student8 = student.lateral8(s8) + F.interpolate(q16, scale_factor=2, mode="nearest")
    missed["smooth"] = _refit(student.smooth, student8, _before(teacher.smooth, sum8)[:, kept])
    q8 = student.smooth(student8)
    for i, (wide, narrow) in enumerate(((p8, q8), (p16, q16), (p32, q32))):
        big = teacher.modules_[i]
        small = student.modules_[i]
        assert isinstance(big, Module)
        assert isinstance(small, Module)
        small.load_state_dict({k: v for k, v in big.state_dict().items() if not _reads_pyramid(k)}, strict=False)
        missed[f"face{i}"] = _refit(small.face, narrow, _before(big.face, wide))
        missed[f"shared{i}"] = _refit(small.context.shared, narrow, _before(big.context.shared, wide))  # type: ignore[union-attr]
    return missed


def _reads_pyramid(key: str) -> bool:
    return key.startswith(("face.", "context.shared."))


def _rows(x: Tensor, count: int = 8000) -> Array:
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    out: Array = rows[:: max(1, len(rows) // count)].numpy()
    return out


def _before(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer computes before its activation."""
    assert isinstance(layer, RepConv)
    weight, bias = folded(layer)
    return F.conv2d(x, weight, bias, padding=layer.size // 2)


def _refit(layer: nn.Module, x: Tensor, wanted: Tensor) -> float:
    assert isinstance(layer, RepConv)
    fit = fit_conv(x, wanted, layer.size)
    put(layer, fit.weight, fit.bias, wanted.std((0, 2, 3)).clamp(min=1e-3))
    return round(fit.missed, 4)


def _shorter(big: MobileNet, small: MobileNet, x: Tensor) -> dict[str, float]:
    """Leave one block of the second part out, the one that is missed least, if `small` has one less.

    The pointwise convolution of the block before the gap's end is fitted to what came out there.
    """
    blocks = [b for b in big.stage2.children() if isinstance(b, ConvNorms)]
    places = [b for b in small.stage2.children() if isinstance(b, ConvNorms)]
    if len(blocks) == len(places):
        small.stage2.load_state_dict(big.stage2.state_dict())
        return {}
    if len(blocks) != len(places) + 1:
        raise BadConfig("can leave out one block only", "depths", "in several steps")
    maps = [x]
    for block in blocks:
        maps.append(block(maps[-1]))
    tries = []
    for dropped in range(1, len(blocks)):  # the first one halves the map
        last = dropped if dropped == len(blocks) - 1 else dropped + 1  # whose output is imitated
        reader = dropped - 1 if last == dropped else last  # whose depthwise part reads the map before the gap
        source = maps[reader] if last == dropped else maps[dropped]
        layers = list(blocks[reader].children())
        weight, bias = _fold(layers[0].weight, layers[1])  # type: ignore[arg-type]
        stride: Any = layers[0].stride
        between = layers[2](F.conv2d(source, weight, bias, stride, 1, 1, len(weight)))  # type: ignore[arg-type]
        target = list(blocks[last].children())
        inside = list(blocks[last].children())[:3]
        w1, b1 = _fold(inside[0].weight, inside[1])  # type: ignore[arg-type]
        w2, b2 = _fold(target[3].weight, target[4])  # type: ignore[arg-type]
        wanted = F.conv2d(inside[2](F.conv2d(maps[last], w1, b1, 1, 1, 1, len(w1))), w2, b2)
        tries.append((fit_conv(between, wanted, 1), dropped, reader, wanted.std((0, 2, 3)).clamp(min=1e-3)))
    fit, dropped, reader, scale = min(tries, key=lambda t: t[0].missed)
    order = [i for i in range(len(blocks)) if i != dropped]
    for place, i in zip(places, order, strict=True):
        place.load_state_dict(blocks[i].state_dict())
        if i == reader:
            conv, bn = list(place.children())[3:5]
            assert isinstance(bn, nn.BatchNorm2d)
            conv.weight.copy_(fit.weight / scale[:, None, None, None])  # type: ignore[operator, union-attr]
            bn.weight.copy_(scale)
            bn.bias.copy_(fit.bias)
            bn.running_mean.zero_()  # type: ignore[union-attr]
            bn.running_var.fill_(1 - bn.eps)  # type: ignore[union-attr]
    return {f"without block {t[1]}": round(t[0].missed, 4) for t in tries}


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--to", "model", required=True, help="the cheaper net's name")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="folder in WIDER FACE's layout")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="weights to write")
@click.option("--crops", default=96, show_default=True, help="training crops of 256 px that it is fitted on")
def command(weights: Path, model: str, data: Path, out: Path, crops: int) -> None:
    """Write the weights of a cheaper net that imitates a trained one, to go on with: python -m train --init."""
    teacher, note = load_weights(weights)
    student = SSH(replace(SPECS[model], branches=False))
    images = read_split(data, "train")[::8]
    made = Crops(images, AugmentRule(), 0, crops, cache_gb=0)
    pictures = torch.stack([made[0, i, 256][0] for i in range(crops)]).float()
    for name, share in thinned(teacher, student, pictures).items():
        log.info("%s: %.1f %% of the variance missed", name, 100 * share)
    save_weights(out, student, {"thinned": str(weights.name), "from": note})


if __name__ == "__main__":
    finish(command, "thin")
