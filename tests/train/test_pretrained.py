from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig, BadInput  # noqa: E402
from facestream.train.anchors import decode, grid_anchors  # noqa: E402
from facestream.train.backbones import VGG16  # noqa: E402
from facestream.train.model import SPECS, SSH, STRIDES  # noqa: E402
from facestream.train.pretrained import (  # noqa: E402
    CAFFE_MEAN,
    RETINAFACE_SIZES,
    RETINAFACE_VARIANCES,
    init_backbone,
    init_from_retinaface,
    retinaface_names,
)
from safetensors.torch import save_file  # noqa: E402

NARROW = SPECS["narrow"].shrink


def other() -> VGG16:
    torch.manual_seed(5)
    net = VGG16(NARROW)
    for conv in net.convolutions():
        torch.nn.init.normal_(conv.bias)
    return net.eval()


def test_vgg_starts_from_torchvisions_names(tmp_path: Path) -> None:
    """features.N.weight as torchvision has them, with the classifier that is not wanted."""
    net, model = other(), SSH(SPECS["narrow"])
    torch.save({**net.state_dict(), "classifier.0.weight": torch.zeros(8, 8)}, tmp_path / "vgg16.pth")
    assert init_backbone(tmp_path / "vgg16.pth", [model]) == "by name"
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in model.backbone.state_dict().items())


def test_any_vgg_is_taken_by_the_shapes_of_its_convolutions(tmp_path: Path) -> None:
    """Names that sort wrongly as text, and other convolutions before and behind."""
    net, model = other(), SSH(SPECS["narrow"])
    state = {f"net.layer{i}.{k}": v.detach() for i, c in enumerate(net.convolutions()) for k, v in c.named_parameters()}
    state |= {"net.score.weight": torch.zeros(1, 8, 1, 1), "net.score.bias": torch.zeros(1)}
    state |= {"net.zlast.weight": torch.zeros(4, 8, 3, 3), "net.zlast.bias": torch.zeros(4)}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "v.safetensors")
    assert init_backbone(tmp_path / "v.safetensors", [model]) == "by shape"
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in model.backbone.state_dict().items())


def test_a_keras_vgg_sees_the_same_picture_the_same_way(tmp_path: Path) -> None:
    """HWIO kernels made for BGR in 0..255 less the mean give the same feature from our normalised RGB."""
    net, model = other(), SSH(SPECS["narrow"])
    at = {"block1": 2, "block2": 2, "block3": 3, "block4": 3, "block5": 3}
    convs = iter(net.convolutions())
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for block, count in at.items():
            for i in range(count):
                conv = next(convs)
                group = f"{block}/layers/conv2d{f'_{i}' if i else ''}/vars"
                file[f"{group}/0"] = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
                file[f"{group}/1"] = conv.bias.detach().numpy()
        file["dsn1/vars/0"] = np.zeros((1, 1, 8, 1), np.float32)
    assert init_backbone(tmp_path / "w.h5", [model]) == "by shape, made for BGR, turned"
    rgb = torch.rand(1, 3, 64, 64) * 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (SPECS["narrow"].mean, SPECS["narrow"].std))
    first = torch.nn.functional.conv2d(
        (rgb - torch.tensor(CAFFE_MEAN).reshape(1, 3, 1, 1)).flip(1), net.features[0].weight, net.features[0].bias
    )
    folded = torch.nn.functional.conv2d(
        (rgb - mean) / std, model.backbone.features[0].weight, model.backbone.features[0].bias
    )
    assert torch.allclose(first, folded, rtol=1e-3, atol=1e-2)


def test_what_is_no_vgg_is_refused(tmp_path: Path) -> None:
    model = SSH(SPECS["narrow"])
    save_file({"a.weight": torch.zeros(8, 3, 3, 3), "a.bias": torch.zeros(8)}, tmp_path / "one.safetensors")
    with pytest.raises(BadConfig, match="lacks features"):
        init_backbone(tmp_path / "one.safetensors", [model])
    (tmp_path / "noise.h5").write_bytes(b"noise")
    with pytest.raises(BadInput, match="HDF5"):
        init_backbone(tmp_path / "noise.h5", [model])


PYRAMID = replace(SPECS["plainM"], branches=False)


def retinaface(path: Path) -> dict[str, torch.Tensor]:
    """A file as Pytorch_Retinaface's authors have it, with random weights."""
    torch.manual_seed(3)
    net = SSH(replace(PYRAMID, sizes=RETINAFACE_SIZES)).train()
    net(torch.rand(2, 3, 64, 64) * 255)  # its norms have statistics
    ours = net.state_dict()
    state = {f"module.{theirs}": ours[name] for name, theirs in retinaface_names(ours).items()}
    for i in range(3):
        for ours_head, theirs_head in (("scores", "ClassHead"), ("boxes", "BboxHead")):
            weight = torch.randn_like(ours[f"modules_.{i}.{ours_head}.weight"]) * 0.05
            state[f"module.{theirs_head}.{i}.conv1x1.weight"] = weight
            state[f"module.{theirs_head}.{i}.conv1x1.bias"] = torch.randn(len(weight)) * 0.1
        state[f"module.LandmarkHead.{i}.conv1x1.weight"] = torch.zeros(20, 64, 1, 1)
    torch.save(state, path)
    return state


def test_retinaface_is_taken_whole_whatever_the_anchors(tmp_path: Path) -> None:
    """With its own anchors and with ours every anchor gives the score and the box of its nearest one there."""
    state = retinaface(tmp_path / "final.pth")
    own, dense = SSH(replace(PYRAMID, sizes=RETINAFACE_SIZES)).eval(), SSH(PYRAMID).eval()
    init_from_retinaface(tmp_path / "final.pth", [own])
    init_from_retinaface(tmp_path / "final.pth", [dense])
    first = state["module.body.stage1.0.0.weight"].flip(1) * torch.tensor(PYRAMID.std).reshape(1, 3, 1, 1)
    assert torch.equal(own.backbone.state_dict()["stage1.0.0.weight"], first)  # it saw BGR that was not divided
    raw = state["module.BboxHead.0.conv1x1.bias"] * torch.tensor(RETINAFACE_VARIANCES * 2)
    assert torch.allclose(own.modules_[0].boxes.bias, raw)
    images = torch.rand(1, 3, 64, 96) * 255
    with torch.no_grad():
        theirs, ours = own(images), dense(images)
    for i, stride in enumerate(STRIDES):
        grids = [grid_anchors(64 // stride, 96 // stride, stride, s.sizes[i]) for s in (own.spec, dense.spec)]
        boxes = [decode(g, o[i][1][0]).reshape(-1, k, 4) for g, o, k in zip(grids, (theirs, ours), (2, 3), strict=True)]
        scores = [o[i][0][0].reshape(-1, k, 2) for o, k in ((theirs, 2), (ours, 3))]
        for k, near in enumerate((0, 0, 1)):  # 10, 16, 26 px are nearest to 16, 16 and 32, and so on
            assert torch.allclose(scores[1][:, k], scores[0][:, near], atol=1e-5)
            assert torch.allclose(boxes[1][:, k], boxes[0][:, near], atol=1e-2)


def test_a_file_that_is_not_retinaface_is_refused(tmp_path: Path) -> None:
    torch.save({"body.stage1.0.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(BadConfig, match="lacks"):
        init_from_retinaface(tmp_path / "other.pth", [SSH(PYRAMID)])
