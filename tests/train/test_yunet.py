"""YuNet's weights under SSH's modules: the same function at the start, and still the same in a larger net."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import numpy as np  # noqa: E402
from facestream.engines.errors import BadConfig, BadInput  # noqa: E402
from facestream.train.anchors import grid_anchors  # noqa: E402
from facestream.train.checkpoint import save_weights  # noqa: E402
from facestream.train.model import SSH, STRIDES, build  # noqa: E402
from facestream.train.pretrained import init_from_run  # noqa: E402
from facestream.train.yunet import init_from_yunet, is_smaller  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

# Channels into and out of the units, in the order of the file.
BACKBONE = [(16, 16), (16, 16), (16, 32), (32, 32), (32, 64), *[(64, 64)] * 6]
PYRAMID = [(64, 64)] * 3
HEADS = [*[(64, 1)] * 3, *[(64, 4)] * 3, *[(64, 1)] * 3, *[(64, 10)] * 3]  # classes, boxes, objects, landmarks


@pytest.fixture(scope="module")
def published() -> list[tuple[Tensor, Tensor]]:
    """Weights of YuNet's shapes, in the file's order; not its own, so that nothing has to be downloaded."""
    generator = torch.Generator().manual_seed(3)

    def conv(cout: int, cin: int, size: int) -> tuple[Tensor, Tensor]:
        scale = (0.7 / (cin * size * size)) ** 0.5  # small outputs: sizes are their exponentials
        kernel = torch.randn(cout, cin, size, size, generator=generator) * scale
        return kernel, torch.randn(cout, generator=generator) * 0.1

    stem, bias = conv(16, 3, 3)
    out = [(stem / 64, bias)]
    for cin, cout in BACKBONE + PYRAMID + HEADS:
        out += [conv(cout, cin, 1), conv(cout, 1, 3)]
    return out


@pytest.fixture(scope="module")
def file(published: list[tuple[Tensor, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    nodes = []
    tensors = []
    for i, pair in enumerate(published):
        for name, values in zip("wb", pair, strict=True):
            tensors.append(numpy_helper.from_array(values.numpy(), f"{name}{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}", f"b{i}"], [f"x{i + 1}"]))
    path = tmp_path_factory.mktemp("yunet") / "yunet.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "yunet", [], [], tensors)), str(path))
    return path


def reference(convs: list[tuple[Tensor, Tensor]], bgr: Tensor) -> list[tuple[Tensor, Tensor]]:
    """YuNet's (classes and objects [2, h, w], boxes [4, h, w]) of each stride, as its graph computes them."""
    rest = iter(convs)

    def unit(x: Tensor, relu: bool = True) -> Tensor:
        x = F.conv2d(x, *next(rest))
        kernel, bias = next(rest)
        x = F.conv2d(x, kernel, bias, padding=1, groups=len(kernel))
        return F.relu(x) if relu else x

    kernel, bias = next(rest)
    x = unit(F.relu(F.conv2d(bgr, kernel, bias, stride=2, padding=1)))
    x = F.max_pool2d(x, 2)
    for _ in range(4):
        x = unit(x)
    maps = []
    for _ in STRIDES:
        x = unit(unit(F.max_pool2d(x, 2)))
        maps.append(x)
    p32 = unit(maps[2])
    p16 = unit(maps[1] + F.interpolate(p32, scale_factor=2))
    p8 = unit(maps[0] + F.interpolate(p16, scale_factor=2))
    classes, boxes, objects = ([unit(p, relu=False)[0] for p in (p8, p16, p32)] for _ in range(3))
    return [(torch.cat([c, o]), b) for c, b, o in zip(classes, boxes, objects, strict=True)]


def decoded(outputs: list[tuple[Tensor, Tensor]], model: SSH, height: int, width: int) -> list[tuple[Tensor, Tensor]]:
    """Our logits [h, w] and boxes, middle and size in pixels [4, h, w], of each stride."""
    out = []
    for (scores, offsets), stride, sizes in zip(outputs, STRIDES, model.spec.sizes, strict=True):
        h, w = height // stride, width // stride
        anchors = grid_anchors(h, w, stride, sizes)
        middle = (anchors[:, :2] + anchors[:, 2:]) / 2 + offsets[0, :, :2] * sizes[0]
        size = sizes[0] * offsets[0, :, 2:].exp()
        out.append(((scores[0, :, 1] - scores[0, :, 0]).view(h, w), torch.cat([middle, size], 1).T.reshape(4, h, w)))
    return out


@pytest.mark.parametrize("name", ["plainXS16", "plainS", "plainM"])
def test_a_net_starts_as_yunet(name: str, file: Path, published: list[tuple[Tensor, Tensor]]) -> None:
    model = build(name).eval()
    init_from_yunet(file, [model])
    rgb = torch.randint(0, 256, (1, 3, 96, 160), generator=torch.Generator().manual_seed(1)).float()
    inner = np.s_[..., 1:-1, 1:-1] if name == "plainXS16" else np.s_[..., 2:-2, 2:-2]
    with torch.no_grad():
        ours = decoded(model(rgb), model, 96, 160)
        theirs = reference(published, rgb.flip(1))
    for (logit, boxes), (logits, offsets), stride in zip(ours, theirs, STRIDES, strict=True):
        h, w = logit.shape
        if min(h, w) < 5:  # all of M3's cells lie at the border, of which composed convolutions see less
            inner = np.s_[..., :, :] if name == "plainXS16" else np.s_[..., 0:0, 0:0]
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        middle = (torch.stack([x, y]) + offsets[:2]) * stride
        torch.testing.assert_close(logit[inner], logits.mean(0)[inner], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(boxes[:2][inner], middle[inner], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(boxes[2:][inner], (offsets[2:].exp() * stride)[inner], rtol=1e-3, atol=1e-2)


def test_a_larger_net_starts_as_the_smaller_one(file: Path, tmp_path: Path) -> None:
    small = build("plainS").eval()
    init_from_yunet(file, [small])
    for blocks in (small.backbone.more16, small.backbone.more32):
        torch.nn.init.normal_(blocks[0].second.weight, std=0.02, generator=torch.Generator().manual_seed(2))
    save_weights(tmp_path / "small.safetensors", small, {})
    large = build("plainM").eval()
    init_from_run(tmp_path / "small.safetensors", [large])
    picture = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(1)).float()
    with torch.no_grad():
        for ours, theirs in zip(large(picture), small(picture), strict=True):
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_smaller_net_is_not_started_from_a_larger_one(tmp_path: Path) -> None:
    large, small = build("plainM"), build("plainS")
    assert is_smaller(small.spec, large.spec)
    assert not is_smaller(large.spec, small.spec)
    save_weights(tmp_path / "large.safetensors", large, {})
    with pytest.raises(BadConfig, match="another network"):
        init_from_run(tmp_path / "large.safetensors", [small])


def test_other_files_and_other_nets_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="another backbone"):
        init_from_yunet(file, [build("mobilenet")])
    text = tmp_path / "text.onnx"
    text.write_text("not a graph")
    with pytest.raises(BadInput, match="not an ONNX file"):
        init_from_yunet(text, [build("plainS")])
    weight = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")
    bias = numpy_helper.from_array(np.zeros(8, np.float32), "b")
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    onnx.save(helper.make_model(helper.make_graph([node], "other", [], [], [weight, bias])), str(tmp_path / "o.onnx"))
    with pytest.raises(BadInput, match="not YuNet"):
        init_from_yunet(tmp_path / "o.onnx", [build("plainS")])
