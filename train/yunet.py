"""YuNet's backbone and pyramid (Wu et al., Machine Intelligence Research 2023), to put SSH's detection modules on.

YuNet is built from one unit: a 1x1 convolution over the channels, then a 3x3 channel by channel, then a ReLU. It has no
norms left: its published weights (OpenCV Zoo, MIT licence; trained on WIDER FACE) have them folded in. What is added
here begins as the identity, so that a net that is larger than the published one starts from its function.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from facestream.engines.errors import BadInput
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from facestream.train.model import SSH

CHANNELS = 64  # of the maps at strides 8, 16, 32 and of the pyramid


class Unit(nn.Module):
    """1x1 over the channels, 3x3 channel by channel, ReLU."""

    def __init__(self, cin: int, cout: int, relu: bool = True) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(cin, cout, 1)
        self.depthwise = nn.Conv2d(cout, cout, 3, 1, 1, groups=cout)
        nn.init.kaiming_normal_(self.pointwise.weight, mode="fan_in", nonlinearity="linear")
        nn.init.kaiming_normal_(self.depthwise.weight, mode="fan_out", nonlinearity="relu")
        for layer in (self.pointwise, self.depthwise):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.pointwise(x))
        return F.relu(x, inplace=True) if self.relu else x


class Residual(nn.Module):
    """Two 3x3 convolutions, `hidden` channels between them, added to their input; the second one starts at zero."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, hidden, 3, 1, 1)
        self.second = nn.Conv2d(hidden, channels, 3, 1, 1)
        nn.init.kaiming_normal_(self.first.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x), inplace=True)), inplace=True)


class YuNet(nn.Module):
    """images [N, 3, H, W] -> maps at strides 8, 16 and 32, 64 channels each.

    depths, widths: how many residual blocks each of the strides 4, 8, 16 and 32 has beyond YuNet's units, and their
    hidden channels.
    """

    def __init__(self, depths: tuple[int, ...] = (0, 0, 0, 0), widths: tuple[int, ...] = (0, 0, 0, 0)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.stage2 = Unit(16, 16)
        self.stage4 = nn.Sequential(Unit(16, 16), Unit(16, 32), Unit(32, 32), Unit(32, 64))
        self.stage8, self.stage16, self.stage32 = (
            nn.Sequential(Unit(CHANNELS, CHANNELS), Unit(CHANNELS, CHANNELS)) for _ in range(3)
        )
        self.more4, self.more8, self.more16, self.more32 = (
            nn.Sequential(*(Residual(CHANNELS, width) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.channels = (CHANNELS, CHANNELS, CHANNELS)

    def freeze_early(self, count: int) -> None:
        """Fix the first `count` parts, which end at the strides 4, 8, 16 and 32."""
        parts = ((self.stem, self.stage2, self.stage4), (self.stage8,), (self.stage16,), (self.stage32,))
        for layers in parts[:count]:
            for layer in layers:
                for p in layer.parameters():
                    p.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(self.stage2(F.relu(self.stem(x), inplace=True)), 2)
        c8 = self.more8(self.stage8(F.max_pool2d(self.more4(self.stage4(x)), 2)))
        c16 = self.more16(self.stage16(F.max_pool2d(c8, 2)))
        c32 = self.more32(self.stage32(F.max_pool2d(c16, 2)))
        return c8, c16, c32


def init_from_yunet(path: Path, models: list[SSH]) -> str:
    """Give nets on YuNet's backbone its published weights (an ONNX file); returns what was done, for the log.

    All of them are used: those of the backbone and of the pyramid as they are, and each module's scores and boxes as
    channels of its first convolution, one for what is above zero and one for what is below, since a ReLU follows. A
    face's score is the geometric mean of two probabilities there; its logit is near the mean of their logits, which
    one sum can give. Raises BadInput for another file.
    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(path)).graph
    except Exception as e:
        raise BadInput(f"not an ONNX file ({type(e).__name__})", str(path)) from None
    stored = {t.name: torch.from_numpy(np.array(numpy_helper.to_array(t))) for t in graph.initializer}
    convs = [[stored[name] for name in node.input[1:3]] for node in graph.node if node.op_type == "Conv"]
    if len(convs) != 1 + 2 * (5 + 6 + 3 + 12) or convs[0][0].shape != (16, 3, 3, 3):
        raise BadInput("not YuNet's graph of March 2023", str(path), "give face_detection_yunet_2023mar.onnx")
    for model in models:
        _fill(model, convs)
    return f"YuNet's weights of {path.name}"


def _fill(model: SSH, convs: list[list[Tensor]]) -> None:
    from facestream.train.model import Module

    backbone = model.backbone
    assert isinstance(backbone, YuNet)
    std = torch.tensor(model.spec.std).reshape(1, 3, 1, 1)
    weight = convs[0][0].flip(1) * std
    backbone.stem.weight.data = weight
    shift = (torch.tensor(model.spec.mean).reshape(1, 3, 1, 1) / std * weight).sum((1, 2, 3))
    assert backbone.stem.bias is not None
    backbone.stem.bias.data = convs[0][1] + shift
    units = [backbone.stage2, *backbone.stage4, *backbone.stage8, *backbone.stage16, *backbone.stage32]
    units += [model.lateral32, model.lateral16, model.lateral8]
    for unit, pointwise, depthwise in zip(units, convs[1::2], convs[2::2], strict=False):
        for layer, (kernel, bias) in ((unit.pointwise, pointwise), (unit.depthwise, depthwise)):
            assert layer.weight.shape == kernel.shape
            layer.weight.data = kernel.clone()
            layer.bias.data = bias.clone()
    heads = convs[1 + 2 * len(units) :]
    for level, module in enumerate(model.modules_):
        assert isinstance(module, Module)
        score, box, face = (heads[2 * (kind * 3 + level) : 2 * (kind * 3 + level) + 2] for kind in range(3))
        _fill_module(module, [score, face, box], model.spec.sizes[level][0] / model.spec.strides[level])


def _fill_module(module: nn.Module, parts: list[list[list[Tensor]]], size: float) -> None:
    """size: of the anchor, in strides."""
    point = torch.cat([p[0][0] for p in parts])
    point_bias = torch.cat([p[0][1] for p in parts])
    deep = torch.cat([p[1][0] for p in parts])
    deep_bias = torch.cat([p[1][1] for p in parts])
    count = len(point)  # two scores, four offsets
    face = module.face
    if isinstance(face, Unit):
        face.pointwise.weight.data[: 2 * count] = torch.cat([point, point])
        face.pointwise.bias.data[: 2 * count] = torch.cat([point_bias, point_bias])
        face.depthwise.weight.data[: 2 * count] = torch.cat([deep, -deep])
        face.depthwise.bias.data[: 2 * count] = torch.cat([deep_bias, -deep_bias])
    else:
        # the bias of the 1x1 is missing where the 3x3 reaches over the border; inside, it is a part of the bias
        kernel = point * deep
        bias = deep_bias + point_bias * deep.sum((1, 2, 3))
        face.conv.weight.data[: 2 * count] = torch.cat([kernel, -kernel])
        face.conv.bias.data[: 2 * count] = torch.cat([bias, -bias])
    scores = module.scores
    boxes = module.boxes
    for layer in (scores, boxes):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    for k in range(2):  # half of each logit for face, so that face less background is their mean
        scores.weight.data[1, k] += 0.25
        scores.weight.data[1, count + k] -= 0.25
        scores.weight.data[0, k] -= 0.25
        scores.weight.data[0, count + k] += 0.25
    for k in range(4):
        gain = 1 / size if k < 2 else 1.0
        boxes.weight.data[k, 2 + k] = gain
        boxes.weight.data[k, count + 2 + k] = -gain
    # YuNet's offsets count from a cell's corner, an anchor's from its centre
    boxes.bias.data[:2] = -0.5 / size
    boxes.bias.data[2:] = -float(np.log(size))
