from __future__ import annotations

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.train.anchors import decode, grid_anchors  # noqa: E402
from facestream.train.backbones import RepConv, fix_norms, fuse  # noqa: E402
from facestream.train.model import SPECS, SSH, STRIDES, Deploy, build  # noqa: E402
from torch import nn  # noqa: E402


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def trained(model: nn.Module) -> nn.Module:
    """Batch norms with statistics as after training, so that folding them has something to get wrong."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features, generator=generator) * 0.1
            layer.running_var = torch.rand(layer.num_features, generator=generator) + 0.5
            layer.weight.data = torch.rand(layer.num_features, generator=generator) + 0.5
            layer.bias.data = torch.randn(layer.num_features, generator=generator) * 0.1
    return model.eval()


def test_vgg16_has_the_papers_parameters() -> None:
    assert count(build("vgg16")) == pytest.approx(19.8e6, rel=0.01)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("mobilenet", 0.071), ("retinaface", 0.423), ("plainXS16", 0.065), ("plainS", 0.228), ("plainM", 0.524)],
)
def test_light_nets_have_their_size_when_fused(name: str, millions: float) -> None:
    assert count(fuse(build(name))) == pytest.approx(millions * 1e6, rel=0.03)


def test_the_smallest_net_keeps_the_first_steps_of_each_stride_by_their_names() -> None:
    whole, part = (build(name).backbone.state_dict() for name in ("retinaface", "mobilenet"))
    assert {k: v.shape for k, v in part.items()} == {k: whole[k].shape for k in part}
    gone = {k.rsplit(".", 2)[0] for k in whole if k not in part and k.endswith("weight")}
    assert {k.split(".")[0] + "." + k.split(".")[1] for k in gone} == {
        "stage1.3", "stage2.2", "stage2.3", "stage2.4", "stage2.5", "stage3.0", "stage3.1"
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_model_gives_one_row_an_anchor(name: str) -> None:
    model = build(name).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, 64, 96))
    for (scores, boxes), stride, sizes in zip(outputs, STRIDES, model.spec.sizes, strict=True):
        anchors = len(grid_anchors(64 // stride, 96 // stride, stride, sizes))
        assert scores.shape == (2, anchors, 2)
        assert boxes.shape == (2, anchors, 4)


def test_paper_detection_module_widths() -> None:
    model = build("vgg16")
    assert [m.scores.in_channels for m in model.modules_] == [256, 512, 512]  # 2X for X = 128, 256, 256
    assert [m.scores.out_channels for m in model.modules_] == [4, 4, 4]  # 2K
    assert [m.boxes.out_channels for m in model.modules_] == [8, 8, 8]  # 4K
    assert model.smooth.conv.out_channels == 128


@pytest.mark.parametrize(("cin", "stride", "groups"), [(8, 1, 1), (4, 1, 1), (8, 2, 1), (8, 1, 8), (8, 2, 8)])
def test_a_block_with_side_branches_fuses_into_one_convolution(cin: int, stride: int, groups: int) -> None:
    block = trained(RepConv(cin, 8, 3, stride, groups=groups))
    x = torch.randn(2, cin, 13, 17)
    with torch.no_grad():
        assert torch.allclose(block(x), block.fused()(x), atol=1e-5)
    assert (block.skip_bn is not None) == (cin == 8 and stride == 1)


def test_a_whole_model_fused_says_the_same() -> None:
    model = trained(build("mobilenet"))
    x = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        for (a, b), (c, d) in zip(model(x), fuse(copy.deepcopy(model))(x), strict=True):
            assert torch.allclose(a, c, atol=1e-3)
            assert torch.allclose(b, d, atol=1e-3)


def test_early_vgg_layers_can_be_fixed() -> None:
    model = build("vgg16")
    model.backbone.freeze_early()
    frozen = [n for n, p in model.backbone.named_parameters() if not p.requires_grad and n.endswith("weight")]
    assert frozen == [f"features.{i}.weight" for i in (0, 2, 5, 7, 10)]  # conv1_1 to conv3_1


def test_deployed_boxes_are_the_decoded_anchors_best_first() -> None:
    torch.manual_seed(0)  # two margins that differ in their last bits alone would change places
    model = trained(SSH(replace(SPECS["mobilenet"], branches=False)))
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        xyxy, scores = Deploy(model)(images)
        raw = model(images.permute(0, 3, 1, 2).float())
    at = 0
    for (s, b), stride, sizes in zip(raw, STRIDES, model.spec.sizes, strict=True):
        expected = decode(grid_anchors(64 // stride, 96 // stride, stride, sizes), b)
        margin = s[..., 1] - s[..., 0]  # the softmax of a sure anchor is 1 to the last bit, and so is its neighbour's
        n = min(1000, margin.shape[1])
        order = margin.topk(n, dim=1).indices
        assert torch.allclose(scores[:, at : at + n], s.softmax(-1)[..., 1].gather(1, order), atol=1e-5)
        assert torch.allclose(xyxy[0, at : at + n], expected[0, order[0]], atol=1e-2)
        at += n
    assert xyxy.shape == (2, at, 4)


def test_fixed_norms_train_the_function_that_ships() -> None:
    """In training mode the outputs are those of eval mode, no statistic changes, and all weights get a gradient."""
    model = trained(SSH(replace(SPECS["plainS"], branches=False)))
    images = torch.rand(2, 3, 64, 96) * 255
    with torch.no_grad():
        wanted = model(images)
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    fix_norms(model)
    outputs = model.train()(images)
    for (a, b), (c, d) in zip(outputs, wanted, strict=True):
        assert torch.allclose(a, c, atol=1e-4)
        assert torch.allclose(b, d, atol=1e-4)
    sum((a.square().sum() + b.square().sum()) for a, b in outputs).backward()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if k in before)
    assert all(p.grad is not None for p in model.parameters())


def test_what_the_backbone_begins_with_may_be_given() -> None:
    model = trained(SSH(replace(SPECS["retinaface"], branches=False)))
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        c8 = model.backbone.stage1(model.normalised(images))
        for (a, b), (c, d) in zip(model(images, c8), model(images), strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)


def test_nets_on_a_pyramid_keep_more_of_the_smallest_faces() -> None:
    """Of a picture with more anchors than that, 2,000, 700 and 300 boxes, three thousand as the others."""
    assert SPECS["plainS"].top_k == (2000, 700, 300)
    assert SPECS["vgg16"].top_k == (1000, 1000, 1000)
    deploy = Deploy(trained(SSH(replace(SPECS["retinaface"], branches=False))))
    with torch.no_grad():
        xyxy, scores = deploy(torch.zeros(1, 512, 512, 3, dtype=torch.uint8))
    assert xyxy.shape == (1, 3000, 4)
    assert scores.shape == (1, 3000)
    assert deploy.coarsest_boxes == 300
