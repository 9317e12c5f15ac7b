"""SSH, the Single Stage Headless face detector (Najibi et al., ICCV 2017), over any backbone.

Three detection modules predict from strides 8, 16 and 32 (paper section 3.1, figure 2); each is a 3x3
convolution beside a context module of stacked 3x3 convolutions (figures 3 and 4), followed by two
1x1 convolutions: 2K class scores and 4K box offsets for K square anchors a cell.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from facestream.train.anchors import decode
from facestream.train.backbones import VGG16, ConvRelu, MobileNet, Plain, RepConv, fuse, separable
from facestream.train.yunet import Unit, YuNet
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)
TOP_K = 1000  # boxes a module keeps before NMS (paper section 4.1)
# The same number in all, shared out by how many faces a crowd shows each module: a tenth of the faces of 8 to 16 px in
# pictures with hundreds of them have no box among the best 1000.
PYRAMID_TOP_K = (2000, 700, 300)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A network by its numbers.

    strides: of the detection modules; (8, 16, 32) are M1, M2, M3 and (16,) is M2 alone (section 4.6).
    sizes: anchor sides in pixels, a tuple for each module. heads: X of each module (figure 3).
    fusion: channels in which M1 adds the stride-8 map and the up-sampled stride-16 map (figure 2); 0: M1 sits on
    the stride-8 map itself (section 4.9). context: whether the modules have a context module (section 3.3).
    shrink: divides the widths of VGG-16.
    separable: the 3x3 convolutions of the detection modules and of the fusion go channel by channel.
    pyramid: all modules sit on a feature pyramid of `fusion` channels (Lin et al., CVPR 2017), as in RetinaFace's small
    net and YuNet; else only M1 has a fusion. leaky: slope below zero of the ReLUs inside the pyramid and the context
    modules.
    mean, std: input normalisation, RGB in 0..255.
    """

    name: str
    backbone: str
    sizes: tuple[tuple[float, ...], ...]
    heads: tuple[int, ...]
    fusion: int
    widths: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()
    separable: bool = False
    pyramid: bool = False
    leaky: float = 0.0
    branches: bool = True
    strides: tuple[int, ...] = STRIDES
    context: bool = True
    shrink: int = 1
    mean: tuple[float, float, float] = (128.0, 128.0, 128.0)
    std: tuple[float, float, float] = (64.0, 64.0, 64.0)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def top_k(self) -> tuple[int, ...]:
        """Boxes that each module keeps before NMS."""
        return PYRAMID_TOP_K if self.pyramid else (TOP_K,) * len(self.strides)

    @staticmethod
    def from_dict(d: dict[str, Any]) -> ModelSpec:
        return ModelSpec(**{k: _tuples(v) for k, v in d.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


# The paper's anchors double from 16 to 512 px, two a module, which leaves faces between two sizes
# without a match. The light nets have less depth to bridge that gap: three a module, 1.6 apart,
# starting at the smallest face that the training labels hold.
_DENSE = ((10.0, 16.0, 26.0), (40.0, 64.0, 104.0), (168.0, 270.0, 432.0))
PAPER_SIZES = ((16.0, 32.0), (64.0, 128.0), (256.0, 512.0))
FINER_SIZES = (  # section 4.10: scales {0.25 .. 3}, {4 .. 12}, {16 .. 32} of 16 px
    (4.0, 8.0, 16.0, 32.0, 48.0),
    (64.0, 96.0, 128.0, 160.0, 192.0),
    (256.0, 320.0, 384.0, 448.0, 512.0),
)

_IMAGENET_MEAN = (123.68, 116.78, 103.94)
_IMAGENET_STD = (58.4, 57.1, 57.4)


def _yunet(
    name: str, depths: tuple[int, ...] = (0, 0, 0, 0), widths: tuple[int, ...] = (0, 0, 0, 0), separable: bool = False
) -> ModelSpec:
    """SSH's modules on YuNet's backbone and pyramid, one anchor a cell."""
    return ModelSpec(
        name,
        "yunet",
        ((16.0,), (64.0,), (256.0,)),
        (32, 32, 32),
        64,
        widths,
        depths,
        separable=separable,
        pyramid=True,
        branches=False,
        mean=(0.0, 0.0, 0.0),
        std=(64.0, 64.0, 64.0),
    )


SPECS = {
    spec.name: spec
    for spec in (
        ModelSpec("vgg16", "vgg16", PAPER_SIZES, (128, 256, 256), 128, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
        ModelSpec("narrow", "vgg16", PAPER_SIZES, (16, 32, 32), 16, shrink=8, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
        _yunet("plainXS16", separable=True),
        _yunet("plainS", (0, 0, 1, 1), (0, 0, 32, 32)),
        _yunet("plainM", (0, 2, 2, 1), (0, 64, 64, 64)),
        # A straight stack, to be trained from nothing.
        ModelSpec("stack", "plain", _DENSE, (32, 64, 64), 32, (16, 32, 64, 128), (1, 2, 3, 3)),
        # The first steps of MobileNet, without a pyramid, to be trained from a classifier's weights.
        ModelSpec(
            "mobilenet",
            "mobilenet",
            _DENSE,
            (32, 32, 32),
            32,
            depths=(1, 1, 2, 2, 0),
            separable=True,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
        ),
        # RetinaFace's small net (Deng et al., CVPR 2020), SSH's modules on a pyramid: takes all of its weights.
        ModelSpec(
            "retinaface",
            "mobilenet",
            _DENSE,
            (32, 32, 32),
            64,
            depths=MobileNet.DEPTHS,
            pyramid=True,
            leaky=0.1,
            mean=(123.0, 117.0, 104.0),
            std=_IMAGENET_STD,
        ),
    )
}


def conv(spec: ModelSpec, cin: int, cout: int, size: int = 3, relu: bool = True, leaky: float = 0.0) -> nn.Module:
    """The spec's convolution: bare with bias beside VGG (as in the paper), with batch norm in the light nets."""
    if spec.backbone == "vgg16":
        return ConvRelu(cin, cout, size, 1, relu)
    if spec.backbone == "yunet":
        return Unit(cin, cout) if spec.separable else ConvRelu(cin, cout, size, 1, relu)
    if spec.separable and size == 3:
        return separable(cin, cout, spec.branches, leaky)
    return RepConv(cin, cout, size, 1, relu, spec.branches, leaky=leaky)


class Context(nn.Module):
    """Context module (figure 4): a shared 3x3, then one 3x3 (5x5 field) beside two 3x3 (7x7 field); X out."""

    def __init__(self, spec: ModelSpec, cin: int, x: int) -> None:
        super().__init__()
        self.shared = conv(spec, cin, x // 2, leaky=spec.leaky)
        self.five = conv(spec, x // 2, x // 2)
        self.seven = nn.Sequential(conv(spec, x // 2, x // 2, leaky=spec.leaky), conv(spec, x // 2, x // 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        return torch.cat([self.five(x), self.seven(x)], 1)


class Module(nn.Module):
    """Detection module (figure 3): (class scores [N, 2K, h, w], box offsets [N, 4K, h, w])."""

    def __init__(self, spec: ModelSpec, cin: int, x: int, k: int) -> None:
        super().__init__()
        self.face = conv(spec, cin, x)
        self.context = Context(spec, cin, x) if spec.context else None
        width = 2 * x if spec.context else x
        self.scores = nn.Conv2d(width, 2 * k, 1)
        self.boxes = nn.Conv2d(width, 4 * k, 1)
        for layer in (self.scores, self.boxes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.face(x) if self.context is None else torch.cat([self.face(x), self.context(x)], 1)
        return self.scores(x), self.boxes(x)


def _backbone(spec: ModelSpec) -> VGG16 | MobileNet | Plain | YuNet:
    if spec.backbone == "vgg16":
        return VGG16(spec.shrink)
    if spec.backbone == "mobilenet":
        return MobileNet(spec.depths)
    if spec.backbone == "yunet":
        return YuNet(spec.depths, spec.widths)
    return Plain(spec.widths, spec.depths, spec.branches)


class SSH(nn.Module):
    """images, float RGB 0..255 [N, 3, H, W] with H and W multiples of 32 ->
    one (scores [N, A, 2], offsets [N, A, 4]) a module, in the order of `grid_anchors`;
    class 0 is background, class 1 face."""

    mean: Tensor
    std: Tensor
    layout = torch.contiguous_format  # of the weights, and so of the maps

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = _backbone(spec)
        c8, c16, c32 = self.backbone.channels
        self.sums_first = isinstance(self.backbone, YuNet)
        self.lateral8: nn.Module
        self.lateral16: nn.Module
        self.lateral32: nn.Module
        self.fuses = bool(spec.fusion) and 8 in spec.strides and not self.sums_first
        if self.fuses:
            self.lateral8 = conv(spec, c8, spec.fusion, 1, leaky=spec.leaky)
            self.lateral16 = conv(spec, c16, spec.fusion, 1, leaky=spec.leaky)
            self.smooth = conv(spec, spec.fusion, spec.fusion, leaky=spec.leaky)
        inputs = {8: spec.fusion or c8, 16: c16, 32: c32 or c16}
        if self.sums_first:
            self.lateral8, self.lateral16, self.lateral32 = (Unit(spec.fusion, spec.fusion) for _ in range(3))
            inputs = dict.fromkeys(STRIDES, spec.fusion)
        elif spec.pyramid:
            assert c32 is not None
            self.lateral32 = conv(spec, c32, spec.fusion, 1, leaky=spec.leaky)
            self.smooth16 = conv(spec, spec.fusion, spec.fusion, leaky=spec.leaky)
            inputs = dict.fromkeys(STRIDES, spec.fusion)
        self.modules_ = nn.ModuleList(
            Module(spec, inputs[stride], x, len(sizes))
            for stride, x, sizes in zip(spec.strides, spec.heads, spec.sizes, strict=True)
        )
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).reshape(shape), persistent=False)

    def expect_background(self, face: float = 0.01) -> None:
        """Let every anchor start with this face probability, so that the many backgrounds do not drown the
        first steps of a loss that uses them all (Lin et al., ICCV 2017, section 3.3)."""
        for module in self.modules_:
            assert isinstance(module, Module)
            assert module.scores.bias is not None
            half = math.log(face / (1 - face)) / 2
            module.scores.bias.data = torch.tensor([-half, half]).repeat(len(module.scores.bias) // 2)

    def features(self, x: Tensor, c8: Tensor | None = None) -> list[Tensor]:
        """Inputs of the modules, from normalised images; c8: MobileNet's map at stride 8, where it is known."""
        c8, c16, c32 = self.backbone(x) if c8 is None else self.backbone(x, c8)
        if self.spec.pyramid:
            assert c32 is not None
            return self._pyramid(c8, c16, c32)
        out = []
        for stride in self.spec.strides:
            if stride == 8:
                out.append(self._fused(c8, c16) if self.fuses else c8)
            elif stride == 16:
                out.append(c16)
            else:
                out.append(c32 if c32 is not None else F.max_pool2d(c16, 2))
        return out

    def _pyramid(self, c8: Tensor, c16: Tensor, c32: Tensor) -> list[Tensor]:
        """Each map with the coarser ones added from the top down, `fusion` channels each."""
        p32 = self.lateral32(c32)
        if self.sums_first:
            p16 = self.lateral16(c16 + F.interpolate(p32, scale_factor=2, mode="nearest"))
            return [self.lateral8(c8 + F.interpolate(p16, scale_factor=2, mode="nearest")), p16, p32]
        p16 = self.smooth16(self.lateral16(c16) + F.interpolate(p32, scale_factor=2, mode="nearest"))
        p8 = self.smooth(self.lateral8(c8) + F.interpolate(p16, scale_factor=2, mode="nearest"))
        return [p8, p16, p32]

    def _fused(self, c8: Tensor, c16: Tensor) -> Tensor:
        mode = "bilinear" if self.spec.backbone == "vgg16" else "nearest"
        up = F.interpolate(self.lateral16(c16), scale_factor=2, mode=mode)
        fused: Tensor = self.smooth(self.lateral8(c8) + up)
        return fused

    def maps(self, x: Tensor, c8: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """Raw output maps of the modules, channels first, from normalised images; c8 as in `features`."""
        features = self.features(x, c8)
        return [module(x) for module, x in zip(self.modules_, features, strict=True)]

    def normalised(self, images: Tensor) -> Tensor:
        """What the backbone sees of images, uint8 or float RGB 0..255 [N, 3, H, W], in `layout`.

        Computed plane by plane: beside channels last, three channels of arithmetic take ten times as long.
        """
        x: Tensor = (images.float() - self.mean) * (1 / self.std)
        return x.contiguous(memory_format=self.layout)

    def forward(self, images: Tensor, c8: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """c8: MobileNet's map at stride 8, where it is known; the images are not looked at then."""
        x = images if c8 is not None else self.normalised(images)
        return [(_rows(s, 2), _rows(b, 4)) for s, b in self.maps(x, c8)]


def _rows(x: Tensor, width: int) -> Tensor:
    """[N, K*width, h, w] -> [N, h*w*K, width]"""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


class Deploy(nn.Module):
    """SSH as it ships: uint8 RGB images in, boxes out, all in one graph with dynamic N, H, W.

    images: uint8 [N, H, W, 3], H and W multiples of 32. Returns xyxy float32 [N, K, 4] in input
    pixels and scores float32 [N, K] (softmax face probability), the best spec.top_k of each module,
    or all of a module that has fewer anchors, unsuppressed. Decoding happens after the top-k, so
    its cost does not grow with the picture.
    calibration: gain and shift of the scores' logits (`train.calibrate`), which become part of the last convolutions.
    """

    def __init__(self, model: SSH, calibration: tuple[float, float] = (1.0, 0.0)) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        fuse(self.model)
        for module in self.model.modules_:
            assert isinstance(module, Module)
            module.scores = _margin(module.scores, *calibration)
        self.top_k = model.spec.top_k
        # Where M3's boxes are in the output, for whoever wants to leave them out.
        self.coarsest_anchors = len(model.spec.sizes[-1]) if model.spec.strides == STRIDES else 0
        self.coarsest_boxes = self.top_k[-1]
        self.zero = tuple(round(m) for m in model.spec.mean)
        first = next(layer for layer in self.model.backbone.modules() if isinstance(layer, nn.Conv2d))
        if first.bias is None:
            first.bias = nn.Parameter(first.weight.new_zeros(first.out_channels))
        # What rounding the mean took goes into the bias.
        rest = (torch.tensor(self.zero).reshape(1, 3, 1, 1) - self.model.mean) / self.model.std
        first.bias.data += (first.weight * rest).sum((1, 2, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = Normalise.apply(images.permute(0, 3, 1, 2), self.zero, self.model.spec.std)
        out = [
            self._best(s, b, stride, sizes, count)
            for (s, b), stride, sizes, count in zip(
                self.model.maps(x), self.model.spec.strides, self.model.spec.sizes, self.top_k, strict=True
            )
        ]
        return torch.cat([xyxy for xyxy, _ in out], 1), torch.cat([score for _, score in out], 1)

    def _best(
        self, margin: Tensor, boxes: Tensor, stride: int, sizes: tuple[float, ...] | Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """margin [N, K, h, w], boxes [N, 4K, h, w] -> xyxy [N, top, 4], scores [N, top]"""
        width = margin.shape[3]
        k = len(sizes)
        margin = margin.permute(0, 2, 3, 1).flatten(1)
        offsets = _rows(boxes, 4)
        top = torch.minimum(torch.tensor(count), torch.as_tensor(margin.shape[1]))  # a tensor: traced, not fixed
        best, index = torch.topk(margin, top, dim=1)  # type: ignore[arg-type]
        cell = torch.div(index, k, rounding_mode="trunc")  # "floor" is eight nodes of ONNX
        y = torch.div(cell, width, rounding_mode="trunc")
        centre = (torch.stack([cell - y * width, y], -1).float() + 0.5) * stride
        half = torch.as_tensor(sizes, device=best.device)[index - cell * k].unsqueeze(-1) / 2
        anchors = torch.cat([centre - half, centre + half], -1)
        picked = torch.gather(offsets, 1, index.unsqueeze(-1).expand(-1, -1, 4))
        return decode(anchors, picked), torch.sigmoid(best)


class Normalise(torch.autograd.Function):
    """(x - zero) / std of uint8 [N, 3, H, W], whole numbers zero; one node in ONNX instead of three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, zero: tuple[int, ...], std: tuple[float, ...]) -> Tensor:
        shift = torch.tensor(zero)
        scale = torch.tensor(std)
        return (x.float() - shift.to(x.device).reshape(-1, 1, 1)) / scale.to(x.device).reshape(-1, 1, 1)

    @staticmethod
    def symbolic(g: Any, x: Any, zero: tuple[int, ...], std: tuple[float, ...]) -> Any:
        scale = g.op("Constant", value_t=1 / torch.tensor(std))
        return g.op(
            "DequantizeLinear", x, scale, g.op("Constant", value_t=torch.tensor(zero, dtype=torch.uint8)), axis_i=1
        )


def _margin(scores: nn.Conv2d, gain: float = 1.0, shift: float = 0.0) -> nn.Conv2d:
    """The 1x1 convolution to `gain` times face minus background, plus `shift`; with neither, the sigmoid of that is the
    two-class softmax."""
    out = nn.Conv2d(scores.in_channels, scores.out_channels // 2, 1)
    assert scores.bias is not None
    assert out.bias is not None
    out.weight.data = gain * (scores.weight.data[1::2] - scores.weight.data[0::2])
    out.bias.data = gain * (scores.bias.data[1::2] - scores.bias.data[0::2]) + shift
    return out


def build(name: str) -> SSH:
    """A fresh network of a named spec; KeyError when there is no such name."""
    return SSH(SPECS[name])
