"""python -m train.paper: SSH layer by layer, with its strides, sizes, parameters and receptive fields.

The content of the paper's figures 2, 3 and 4, from the network that is built here. Nothing is computed on images:
shapes come from torch's meta device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import click
import torch
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig
from facestream.train.model import SPECS, SSH
from torch import Tensor, nn

NAMES = {  # of VGG-16's layers in the paper, by their number in torchvision's `features`
    f"backbone.features.{number}": name
    for number, name in zip(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        ["1-1", "1-2", "2-1", "2-2", "3-1", "3-2", "3-3", "4-1", "4-2", "4-3", "5-1", "5-2", "5-3"],
        strict=True,
    )
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution: its name, kernel, channels in and out, the stride of its output, the output's height and
    width, and its parameters."""

    name: str
    kernel: int
    cin: int
    cout: int
    stride: int
    height: int
    width: int
    parameters: int


def layers(name: str = "vgg16", height: int = 1200, width: int = 1600) -> list[Layer]:
    """The convolutions of a network in the order in which they run on a picture of height x width."""
    with torch.device("meta"):
        model = SSH(replace(SPECS[name], branches=False)).eval()
    out: list[Layer] = []

    def record(label: str) -> Callable[[nn.Module, Any, Tensor], None]:
        short = f"conv{NAMES[label]}" if label in NAMES else label.removesuffix(".conv")
        for i, module in enumerate(("M1", "M2", "M3")):
            short = short.replace(f"modules_.{i}.", f"{module}.")

        def hook(conv: nn.Module, _: Any, y: Tensor) -> None:
            assert isinstance(conv, nn.Conv2d)
            count = sum(p.numel() for p in conv.parameters())
            stride = height // y.shape[2]
            size, (high, wide) = conv.kernel_size[0], y.shape[2:]
            out.append(Layer(short, size, conv.in_channels, conv.out_channels, stride, high, wide, count))

        return hook

    for label, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record(label))
    with torch.no_grad():
        model(torch.empty(1, 3, height, width, device="meta"))
    return out


def anchor_counts(name: str = "vgg16", height: int = 1200, width: int = 1600) -> list[int]:
    """W x H x K of each module (section 3.1), for a picture that is padded to multiples of 32."""
    spec = SPECS[name]
    high = -(-height // 32) * 32
    wide = -(-width // 32) * 32
    return [high // s * (wide // s) * len(sizes) for s, sizes in zip(spec.strides, spec.sizes, strict=True)]


def receptive_fields(model: SSH, side: int = 512) -> list[dict[str, int]]:
    """Receptive fields, px, of the middle cell of each branch of each module: {"face", "five", "seven"} for M1, M2, M3.

    Measured with positive weights and mean pooling: the gradient of one cell's sum is non-zero exactly inside its
    receptive field. The network cannot be used afterwards.
    """
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(2, 2))
            if isinstance(child, nn.Conv2d):
                child.weight.data = torch.full_like(child.weight, 1 / child.weight[0].numel())
    picture = torch.ones(1, 3, side, side, requires_grad=True)
    c8, c16, _ = model.backbone(picture)
    m1 = model._fused(c8, c16) if model.fuses else c8
    out = []
    for module, x in zip(model.modules_, (m1, c16, nn.functional.avg_pool2d(c16, 2)), strict=True):
        shared = module.context.shared(x)  # type: ignore[operator, union-attr]
        branches = {
            "face": module.face(x),  # type: ignore[operator]
            "five": module.context.five(shared),  # type: ignore[operator, union-attr]
            "seven": module.context.seven(shared),  # type: ignore[operator, union-attr]
        }
        fields = {}
        for name, y in branches.items():
            middle = y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum()
            (gradient,) = torch.autograd.grad(middle, picture, retain_graph=True)
            seen = torch.nonzero(gradient[0].abs().sum(0).any(0))
            fields[name] = int(seen.max() - seen.min()) + 1
        out.append(fields)
    return out


@click.command()
@click.option("--model", default="vgg16", show_default=True)
@click.option("--size", default="1200x1600", show_default=True, help="height x width of the picture")
def command(model: str, size: str) -> None:
    """Every convolution with its output, and the anchors of each module."""
    if model not in SPECS:
        raise BadConfig(f"unknown model {model!r}", "--model", "one of " + ", ".join(SPECS))
    height, width = (int(v) for v in size.split("x"))
    rows = layers(model, height, width)
    for r in rows:
        print(f"{r.name:32} {r.kernel}x{r.kernel} {r.cin:4} -> {r.cout:4}  /{r.stride:<3} "
              f"{r.height:4} x {r.width:4} {r.parameters:10,}")  # fmt: skip
    anchors = " / ".join(f"{count:,}" for count in anchor_counts(model, height, width))
    print(f"{sum(r.parameters for r in rows):,} parameters; anchors, with sides padded to multiples of 32: {anchors}")
    if SPECS[model].backbone == "vgg16":
        narrow = SSH(SPECS["narrow"])  # the same geometry at an eighth of the width
        for name, fields in zip(("M1", "M2", "M3"), receptive_fields(narrow), strict=True):
            print(f"{name} sees {fields['face']} px, with 5x5 context {fields['five']}, with 7x7 {fields['seven']}")


if __name__ == "__main__":
    finish(command, "paper")
