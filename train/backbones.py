"""Feature extractors for SSH: the paper's VGG-16 and light plain nets for the CPU.

Each backbone is a module `[N, 3, H, W] -> (c8, c16, c32 | None)`: the feature maps at strides 8 and
16, and at 32 where the backbone has a stage of its own there (else SSH pools c16, as the paper does).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvRelu(nn.Module):
    """3x3 (or 1x1) convolution with bias and an optional (leaky) ReLU: what every net becomes when fused."""

    def __init__(
        self,
        cin: int,
        cout: int,
        size: int = 3,
        stride: int = 1,
        relu: bool = True,
        groups: int = 1,
        leaky: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, size, stride, size // 2, groups=groups)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.relu = relu
        self.leaky = leaky

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return _rectified(x, self.leaky) if self.relu else x


def _rectified(x: Tensor, leaky: float) -> Tensor:
    return F.leaky_relu(x, leaky, inplace=True) if leaky else F.relu(x, inplace=True)


class RepConv(nn.Module):
    """3x3 convolution + batch norm, with 1x1 and identity branches beside it while training.

    RepVGG (Ding et al., CVPR 2021): all branches are linear, so `fused()` folds them into one 3x3
    convolution with bias that gives the same output. `branches=False` trains the 3x3 branch alone.
    groups is 1, or as many as there are channels. leaky: slope of the ReLU below zero.
    fixed: the batch norm keeps its statistics and runs as part of the convolution (see `fix_norms`).
    """

    fixed = False

    def __init__(
        self,
        cin: int,
        cout: int,
        size: int = 3,
        stride: int = 1,
        relu: bool = True,
        branches: bool = True,
        groups: int = 1,
        leaky: float = 0.0,
    ) -> None:
        super().__init__()
        self.leaky = leaky
        self.cin = cin
        self.cout = cout
        self.size = size
        self.stride = stride
        self.relu = relu
        self.groups = groups
        self.main = nn.Conv2d(cin, cout, size, stride, size // 2, groups=groups, bias=False)
        self.main_bn = nn.BatchNorm2d(cout)
        pointwise = branches and size == 3
        self.point = nn.Conv2d(cin, cout, 1, stride, groups=groups, bias=False) if pointwise else None
        self.point_bn = nn.BatchNorm2d(cout) if pointwise else None
        self.skip_bn = nn.BatchNorm2d(cin) if pointwise and cin == cout and stride == 1 else None
        for conv in (self.main, self.point):
            if conv is not None:
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        y = _folded(x, self.main, self.main_bn) if self.fixed else self.main_bn(self.main(x))
        if self.point is not None and self.point_bn is not None:
            y = y + self.point_bn(self.point(x))
        if self.skip_bn is not None:
            y = y + self.skip_bn(x)
        return _rectified(y, self.leaky) if self.relu else y

    def fused(self) -> ConvRelu:
        """The same function (in eval mode) as one convolution."""
        weight, bias = _fold(self.main.weight, self.main_bn)
        if self.point is not None and self.point_bn is not None:
            w, b = _fold(self.point.weight, self.point_bn)
            weight = weight + F.pad(w, (1, 1, 1, 1))
            bias = bias + b
        if self.skip_bn is not None:
            eye = torch.eye(self.cin, dtype=weight.dtype, device=weight.device)
            same = eye.diagonal()[:, None] if self.groups > 1 else eye
            w, b = _fold(same[:, :, None, None], self.skip_bn)
            weight = weight + F.pad(w, (1, 1, 1, 1))
            bias = bias + b
        out = ConvRelu(self.cin, self.cout, self.size, self.stride, self.relu, self.groups, self.leaky)
        out.conv.weight = nn.Parameter(weight.detach().clone())
        out.conv.bias = nn.Parameter(bias.detach().clone())
        return out


def _folded(x: Tensor, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> Tensor:
    """bn(conv(x)) in eval mode as one convolution; gradients reach the weights of both."""
    weight, bias = _fold(conv.weight, bn)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def fix_norms(module: nn.Module) -> None:
    """Train with the batch norms' stored statistics, each norm folded into its convolution at every step.

    A quarter of a step is saved, and what is trained is the function that ships. Only for nets without side branches
    whose statistics mean something, that is trained ones.
    """
    for child in module.modules():
        if isinstance(child, (RepConv, ConvNorms)):
            child.fixed = True


def _fold(weight: Tensor, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert bn.running_mean is not None
    assert bn.running_var is not None
    gain = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return weight * gain[:, None, None, None], bn.bias - bn.running_mean * gain


def fuse(module: nn.Module) -> nn.Module:
    """Replace every RepConv below `module` by its single convolution, in place; returns it in eval mode."""
    module.eval()
    for name, child in list(module.named_children()):
        if isinstance(child, RepConv):
            setattr(module, name, child.fused())
        else:
            fuse(child)
    return module


class VGG16(nn.Module):
    """The thirteen convolutions of VGG-16, without its head (paper section 3.1).

    Layer names count as torchvision's `features` do, so an ImageNet state dict loads by key.
    c8 is conv4_3, c16 is conv5_3, both after their ReLU. shrink: every width is divided by this, for a net of the
    same geometry that a CPU can train.
    """

    PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)

    def __init__(self, shrink: int = 1) -> None:
        super().__init__()
        self.channels = (512 // shrink, 512 // shrink, None)
        layers: list[nn.Module] = []
        cin = 3
        for item in self.PLAN:
            if item == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                conv = nn.Conv2d(cin, int(item) // shrink, 3, padding=1)
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
                layers += [conv, nn.ReLU(inplace=True)]
                cin = conv.out_channels
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        c8 = self.features[:23](x)
        return c8, self.features[23:](c8), None

    def convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.features.children() if isinstance(layer, nn.Conv2d)]

    def freeze_early(self, count: int = 5) -> None:
        """Fix the first `count` convolutions: five are those up to conv3_1 (paper section 4.1)."""
        for layer in self.convolutions()[:count]:
            for p in layer.parameters():
                p.requires_grad_(False)


class MobileNet(nn.Module):
    """MobileNetV1 of a quarter width (Howard et al., 2017) with leaky ReLUs, as RetinaFace's small net uses it.

    depths: how many of its 1, 2, 2, 6, 2 steps at the strides 2, 4, 8, 16, 32 are kept; the later ones of a stride
    go. Layer names count as in its ImageNet weights, so that those load by key.
    """

    WIDTHS = (16, 32, 64, 128, 256)
    DEPTHS = (1, 2, 2, 6, 2)
    STAGES = ((0, 1, 2), (3,), (4,))  # strides, by their number, in each of its three parts

    def __init__(self, depths: tuple[int, ...] = DEPTHS) -> None:
        super().__init__()
        self.stage1, self.stage2, self.stage3 = (self._stage(strides, depths) for strides in self.STAGES)
        self.channels = (64, 128, 256 if depths[4] else None)

    def freeze_early(self, count: int) -> None:
        """Fix the first `count` of its three parts, which end at the strides 8, 16 and 32."""
        for part in (self.stage1, self.stage2, self.stage3)[:count]:
            for p in part.parameters():
                p.requires_grad_(False)

    def _stage(self, strides: tuple[int, ...], depths: tuple[int, ...]) -> nn.Sequential:
        steps: OrderedDict[str, nn.Module] = OrderedDict({"0": _conv_norm(3, 8, 2)} if 0 in strides else {})
        index = len(steps)
        for at in strides:
            before = (8, *self.WIDTHS)[at]
            width = self.WIDTHS[at]
            for i in range(self.DEPTHS[at]):
                cin, stride = (before, 2 if at else 1) if i == 0 else (width, 1)
                if i < depths[at]:
                    steps[str(index)] = ConvNorms(
                        *_conv_norm(cin, cin, stride, groups=cin), *_conv_norm(cin, width, size=1)
                    )
                index += 1
        return nn.Sequential(steps)

    def forward(self, x: Tensor, c8: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """c8: what its first part makes of x, where that is known."""
        c8 = self.stage1(x) if c8 is None else c8
        c16 = self.stage2(c8)
        return c8, c16, self.stage3(c16) if len(self.stage3) else None


class ConvNorms(nn.Sequential):
    """Convolution, batch norm and activation, once or more in a row; `fixed` as in `RepConv`."""

    fixed = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.fixed:
            out: Tensor = super().forward(x)
            return out
        layers = list(self.children())
        for conv, bn, activation in zip(layers[::3], layers[1::3], layers[2::3], strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(bn, nn.BatchNorm2d)
            x = activation(_folded(x, conv, bn))
        return x


def _conv_norm(cin: int, cout: int, stride: int = 1, size: int = 3, groups: int = 1) -> ConvNorms:
    conv = nn.Conv2d(cin, cout, size, stride, size // 2, groups=groups, bias=False)
    return ConvNorms(conv, nn.BatchNorm2d(cout), nn.LeakyReLU(0.1, inplace=True))


def separable(cin: int, cout: int, branches: bool = True, leaky: float = 0.0) -> nn.Sequential:
    """A 3x3 convolution channel by channel, then a 1x1 over the channels (Howard et al., 2017): an eighth of
    the multiplications of a full 3x3, in a third of its time on a CPU."""
    return nn.Sequential(
        RepConv(cin, cin, 3, 1, True, branches, cin, leaky), RepConv(cin, cout, 1, 1, True, branches, 1, leaky)
    )


class Plain(nn.Module):
    """A straight stack of 3x3 convolutions: one stage a stride, its first convolution strided.

    widths, depths: channels and number of convolutions of the stages at stride 2, 4, 8, 16 (, 32).
    """

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], branches: bool = True) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        cin = 3
        for width, depth in zip(widths, depths, strict=True):
            convs = [
                RepConv(cin if i == 0 else width, width, 3, 2 if i == 0 else 1, True, branches) for i in range(depth)
            ]
            self.stages.append(nn.Sequential(*convs))
            cin = width
        self.channels = (widths[2], widths[3], widths[4] if len(widths) > 4 else None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        maps = []
        for stage in self.stages.children():
            x = stage(x)
            maps.append(x)
        return maps[2], maps[3], maps[4] if len(maps) > 4 else None
