"""YuNet's backbone and pyramid (Wu et al., Machine Intelligence Research 2023), which SSH's detection modules sit on.

YuNet is built from one unit: a 1x1 convolution over the channels, then a 3x3 channel by channel, then a ReLU. It has no
norms left: its published weights (OpenCV Zoo, MIT licence; trained on WIDER FACE) have them folded in. What is added
here begins as the identity, so that a net that is larger than the published one starts from its function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from facestream.engines.errors import BadConfig, BadInput
from facestream.train.backbones import ConvRelu
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from facestream.train.model import SSH, ModelSpec

CHANNELS = 64  # of the maps at strides 8, 16, 32 and of the pyramid


class Unit(nn.Module):
    """1x1 over the channels, 3x3 channel by channel, ReLU."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(cin, cout, 1)
        self.depthwise = nn.Conv2d(cout, cout, 3, 1, 1, groups=cout)
        nn.init.kaiming_normal_(self.pointwise.weight, mode="fan_in", nonlinearity="linear")
        nn.init.kaiming_normal_(self.depthwise.weight, mode="fan_out", nonlinearity="relu")
        for layer in (self.pointwise, self.depthwise):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.depthwise(self.pointwise(x)), inplace=True)


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


def init_from_yunet(weights: Path, models: Iterable[SSH]) -> None:
    """Give nets on YuNet's backbone all of its published weights but the landmarks (face_detection_yunet_2023mar.onnx).

    Those of the backbone and of the pyramid stay as they are. Each module's scores and boxes become channels of its
    first convolution, one for what is above zero and one for what is below, since a ReLU follows. A face's score is the
    geometric mean of two probabilities there; near zero its logit is the mean of their logits, which one sum gives.
    Raises BadInput for another file, BadConfig for a net on another backbone.
    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(weights)).graph
    except Exception as e:
        raise BadInput(f"not an ONNX file ({type(e).__name__})", str(weights)) from None
    stored = {t.name: torch.from_numpy(np.array(numpy_helper.to_array(t))) for t in graph.initializer}
    convs = [[stored[name] for name in node.input[1:3]] for node in graph.node if node.op_type == "Conv"]
    if [tuple(kernel.shape) for kernel, _ in convs[:3]] != [(16, 3, 3, 3), (16, 16, 1, 1), (16, 1, 3, 3)]:
        raise BadInput("not YuNet", str(weights), "give face_detection_yunet_2023mar.onnx of OpenCV Zoo")
    for model in models:
        if not isinstance(model.backbone, YuNet):
            raise BadConfig(f"{model.spec.name} has another backbone", "--yunet", "plainXS16, plainS or plainM")
        _take_over(model, model.backbone, iter(convs))


def _take_over(model: SSH, backbone: YuNet, convs: Iterator[list[Tensor]]) -> None:
    kernel, bias = next(convs)
    std = torch.tensor(model.spec.std).reshape(1, 3, 1, 1)
    mean = torch.tensor(model.spec.mean).reshape(1, 3, 1, 1)
    stem = kernel.flip(1)  # it sees BGR
    _set(backbone.stem, stem * std, bias + (stem * mean).sum((1, 2, 3)))
    stages = (backbone.stage4, backbone.stage8, backbone.stage16, backbone.stage32)
    units = [backbone.stage2, *(unit for stage in stages for unit in stage)]
    for unit in (*units, model.lateral32, model.lateral16, model.lateral8):
        assert isinstance(unit, Unit)
        _set(unit.pointwise, *next(convs))
        _set(unit.depthwise, *next(convs))
    # classes, boxes, objects, each of three modules: a 1x1 over the channels, then a 3x3 channel by channel
    heads = [[(next(convs), next(convs)) for _ in range(3)] for _ in range(3)]
    for i, module in enumerate(model.modules_):
        classes, boxes, objects = (kind[i] for kind in heads)
        _take_over_heads(module, [classes, objects, boxes], model.spec.sizes[i][0] / model.spec.strides[i])


def _take_over_heads(module: nn.Module, heads: list[tuple[list[Tensor], list[Tensor]]], size: float) -> None:
    """size: of the module's anchor, in strides."""
    point, deep = (torch.cat([head[at][0] for head in heads]) for at in range(2))
    point_bias, deep_bias = (torch.cat([head[at][1] for head in heads]) for at in range(2))
    count = len(point)  # two scores, then four offsets
    face = module.face
    if isinstance(face, Unit):
        _set(face.pointwise, torch.cat([point, point]), torch.cat([point_bias, point_bias]))
        _set(face.depthwise, torch.cat([deep, -deep]), torch.cat([deep_bias, -deep_bias]))
    else:
        assert isinstance(face, ConvRelu)
        bias = deep_bias + point_bias * deep.sum((1, 2, 3))  # not at the border, where the 3x3 sees less of it
        _set(face.conv, torch.cat([point * deep, -point * deep]), torch.cat([bias, -bias]))
    scores, boxes = module.scores, module.boxes
    assert isinstance(scores, nn.Conv2d)
    assert isinstance(boxes, nn.Conv2d)
    polarity = torch.tensor((1.0, -1.0)).repeat_interleave(count)
    weight = torch.zeros_like(scores.weight)
    for channel in (0, 1, count, count + 1):  # face less background is the mean of both scores
        weight[1, channel] = polarity[channel] / 4
        weight[0, channel] = -polarity[channel] / 4
    _set(scores, weight, torch.zeros(2))
    weight = torch.zeros_like(boxes.weight)
    for k in range(4):
        for channel in (2 + k, count + 2 + k):
            weight[k, channel] = polarity[channel] / (size if k < 2 else 1.0)
    # YuNet's offsets count from a cell's corner in strides, ours from its middle in anchors
    shift = torch.tensor((-0.5 / size, -0.5 / size, -math.log(size), -math.log(size)))
    _set(boxes, weight, shift)


def _set(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Give the layer's first output channels these weights; a net that is wider keeps its own in the others."""
    assert layer.bias is not None
    assert layer.weight.shape[1:] == weight.shape[1:]
    layer.weight.data[: len(weight)] = weight
    layer.bias.data[: len(bias)] = bias


def is_smaller(small: ModelSpec, large: ModelSpec) -> bool:
    """Whether `grow` may fill the one from the other."""
    same = replace(small, name=large.name, depths=large.depths, widths=large.widths) == large
    pairs = (*zip(small.depths, large.depths, strict=False), *zip(small.widths, large.widths, strict=False))
    return large.backbone == "yunet" and same and all(a <= b for a, b in pairs)


def grow(small: SSH, large: SSH) -> None:
    """Give a net the weights of one on the same backbone with fewer or narrower residual blocks: its function.

    The blocks that are new add nothing at first, nor do the new channels of those that are wider.
    """
    known = small.state_dict()
    for name, own in large.state_dict().items():
        if name not in known:
            continue
        part = tuple(slice(n) for n in known[name].shape)
        if name.endswith("second.weight"):
            own.zero_()
        own[part] = known[name]
