from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig, BadInput  # noqa: E402
from facestream.train.backbones import VGG16  # noqa: E402
from facestream.train.model import SPECS, SSH  # noqa: E402
from facestream.train.start import CAFFE_MEAN, start_backbone  # noqa: E402
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
    assert start_backbone(tmp_path / "vgg16.pth", [model]) == "by name"
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in model.backbone.state_dict().items())


def test_any_vgg_is_taken_by_the_shapes_of_its_convolutions(tmp_path: Path) -> None:
    """Names that sort wrongly as text, and other convolutions before and behind."""
    net, model = other(), SSH(SPECS["narrow"])
    state = {f"net.layer{i}.{k}": v.detach() for i, c in enumerate(net.convolutions()) for k, v in c.named_parameters()}
    state |= {"net.score.weight": torch.zeros(1, 8, 1, 1), "net.score.bias": torch.zeros(1)}
    state |= {"net.zlast.weight": torch.zeros(4, 8, 3, 3), "net.zlast.bias": torch.zeros(4)}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "v.safetensors")
    assert start_backbone(tmp_path / "v.safetensors", [model]) == "by shape"
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
    assert start_backbone(tmp_path / "w.h5", [model]) == "by shape, made for BGR, turned"
    rgb = torch.rand(1, 3, 64, 64) * 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (SPECS["narrow"].mean, SPECS["narrow"].std))
    first = torch.nn.functional.conv2d(
        (rgb - torch.tensor(CAFFE_MEAN).reshape(1, 3, 1, 1)).flip(1), net.features[0].weight, net.features[0].bias
    )
    mine = torch.nn.functional.conv2d(
        (rgb - mean) / std, model.backbone.features[0].weight, model.backbone.features[0].bias
    )
    assert torch.allclose(first, mine, rtol=1e-3, atol=1e-2)


def test_what_is_no_vgg_is_refused(tmp_path: Path) -> None:
    model = SSH(SPECS["narrow"])
    save_file({"a.weight": torch.zeros(8, 3, 3, 3), "a.bias": torch.zeros(8)}, tmp_path / "one.safetensors")
    with pytest.raises(BadConfig, match="lacks features"):
        start_backbone(tmp_path / "one.safetensors", [model])
    (tmp_path / "noise.h5").write_bytes(b"noise")
    with pytest.raises(BadInput, match="HDF5"):
        start_backbone(tmp_path / "noise.h5", [model])
