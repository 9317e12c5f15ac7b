"""Where a run's first weights come from: an earlier run, a classifier's state dict, or any VGG-16's convolutions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from facestream.engines.errors import BadConfig, BadInput
from facestream.train.backbones import VGG16
from facestream.train.checkpoint import load_state, load_weights
from facestream.train.model import SSH
from torch import Tensor

InputFormat = Literal["auto", "rgb", "bgr255"]
CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB, subtracted from 0..255 by VGG's authors and by Keras


def init_from_run(weights: Path, models: Iterable[SSH]) -> None:
    """Take over the weights of an earlier run of the same network. BadConfig when it is another one."""
    other, _ = load_weights(weights)
    for model in models:
        if other.spec != model.spec:
            raise BadConfig(f"it holds another network ({other.spec.name})", str(weights), "same --model and branches")
        model.load_state_dict(other.state_dict())


def init_from_retinaface(weights: Path, models: Iterable[SSH]) -> None:
    """Take over all weights of RetinaFace's small net (Pytorch_Retinaface's mobilenet0.25, MIT) in a spec of its form:
    `pyramid`, heads of 32. BadConfig when the file lacks some.

    Each anchor of ours gets the head of the module's nearest anchor there, its boxes scaled by the ratio of the two:
    the function is the same at the start, whatever anchors the spec has. Landmark heads are dropped.
    """
    state = {k.removeprefix("module."): v for k, v in read_tensors(weights).items()}
    models = list(models)
    wanted = models[0].state_dict()
    try:
        taken = {ours: state[theirs] for ours, theirs in retinaface_names(wanted).items()}
        first = "backbone.stage1.0.0.weight"  # it sees BGR less the mean, not divided
        taken[first] = taken[first].flip(1) * torch.tensor(models[0].spec.std).reshape(1, 3, 1, 1)
        for i, sizes in enumerate(models[0].spec.sizes):
            taken |= {f"modules_.{i}.{k}": v for k, v in retinaface_heads(state, i, sizes).items()}
    except KeyError as e:
        raise BadConfig(f"lacks {e.args[0]}", str(weights), "mobilenet0.25_Final.pth of Pytorch_Retinaface") from None
    bad = [k for k, v in wanted.items() if taken[k].shape != v.shape]
    if bad:
        raise BadConfig(f"has another shape for {bad[0]}", str(weights), "a spec with pyramid and heads of 32")
    for model in models:
        model.load_state_dict(taken)


_RETINAFACE = (  # ours -> theirs, by prefix
    ("backbone.", "body."), ("lateral8.", "fpn.output1."), ("lateral16.", "fpn.output2."),
    ("lateral32.", "fpn.output3."), ("smooth.", "fpn.merge1."), ("smooth16.", "fpn.merge2."),
    *(
        (f"modules_.{i}.{ours}.", f"ssh{i + 1}.{theirs}.")
        for i in range(3)
        for ours, theirs in (
            ("face", "conv3X3"), ("context.shared", "conv5X5_1"), ("context.five", "conv5X5_2"),
            ("context.seven.0", "conv7X7_2"), ("context.seven.1", "conv7x7_3"),
        )
    ),
)  # fmt: skip


def retinaface_names(names: Iterable[str]) -> dict[str, str]:
    """Our parameters' names (the heads left out) -> RetinaFace's. KeyError for a name that has none there."""
    out = {}
    for name in names:
        if re.match(r"modules_\.\d\.(scores|boxes)\.", name):
            continue
        for ours, theirs in _RETINAFACE:
            if name.startswith(ours):
                rest = name.removeprefix(ours)
                out[name] = theirs + rest.replace("main_bn.", "1.").replace("main.", "0.")
                break
        else:
            raise KeyError(name)
    return out


RETINAFACE_SIZES = ((16.0, 32.0), (64.0, 128.0), (256.0, 512.0))
RETINAFACE_VARIANCES = (0.1, 0.1, 0.2, 0.2)  # its offsets are divided by these (SSD)


def retinaface_heads(state: dict[str, Tensor], module: int, sizes: tuple[float, ...]) -> dict[str, Tensor]:
    """Our two head convolutions of a module, with anchors of `sizes` in pixels, from RetinaFace's."""
    scores, boxes = ({k: state[f"{head}.{module}.conv1x1.{k}"] for k in ("weight", "bias")}
                     for head in ("ClassHead", "BboxHead"))  # fmt: skip
    variance = torch.tensor(RETINAFACE_VARIANCES)
    rows: dict[str, list[Tensor]] = {"scores.weight": [], "scores.bias": [], "boxes.weight": [], "boxes.bias": []}
    for size in sizes:
        near = min(range(2), key=lambda k: abs(math.log(size / RETINAFACE_SIZES[module][k])))
        ratio = RETINAFACE_SIZES[module][near] / size
        rows["scores.weight"].append(scores["weight"][2 * near : 2 * near + 2])
        rows["scores.bias"].append(scores["bias"][2 * near : 2 * near + 2])
        factor = variance * torch.tensor((ratio, ratio, 1.0, 1.0))
        rows["boxes.weight"].append(boxes["weight"][4 * near : 4 * near + 4] * factor.reshape(4, 1, 1, 1))
        shift = torch.tensor((0.0, 0.0, math.log(ratio), math.log(ratio)))
        rows["boxes.bias"].append(boxes["bias"][4 * near : 4 * near + 4] * factor + shift)
    return {k: torch.cat(v) for k, v in rows.items()}


def init_backbone(weights: Path, models: Iterable[SSH], input_format: InputFormat = "auto") -> str:
    """Take the backbones' weights from a classifier's file or another trained net's, and say how.

    BadInput when it is not read, BadConfig when it lacks some.

    A classifier's state dict (.pth, .tar, .safetensors) is taken by its names, torchvision's for VGG-16. Failing that,
    VGG-16's thirteen convolutions are looked for by shape, in the order of their names, in such a file or in
    .h5 and .npz, in either memory layout. input_format: what those convolutions expect: `rgb` over 0..255 normalised as
    ours, `bgr255` the mean taken off BGR in 0..255, as of Caffe and Keras; auto: bgr255 for .h5 and .npz.
    """
    state = {k.removeprefix("module.").removeprefix("backbone."): v for k, v in read_tensors(weights).items()}
    models = list(models)
    ours = models[0].backbone.state_dict()
    taken = {k: v for k, v in state.items() if k in ours and v.shape == ours[k].shape}
    lacking = sorted(k for k in ours if k not in taken and not k.endswith("num_batches_tracked"))
    how = "by name"
    if input_format == "auto":
        input_format = "bgr255" if weights.suffix in (".h5", ".hdf5", ".npz") else "rgb"
    if lacking and isinstance(models[0].backbone, VGG16):
        found = vgg_by_shape(state, models[0].backbone)
        if found is not None:
            taken = found
            lacking = []
            how = "by shape"
    if lacking:
        raise BadConfig(f"lacks {lacking[0]} and {len(lacking) - 1} more of the backbone", str(weights))
    if input_format == "bgr255":
        taken = fold_bgr_to_rgb(taken, models[0])
        how += ", made for BGR, turned"
    for model in models:
        model.backbone.load_state_dict(taken, strict=False)
    return how


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .pth, .tar, .safetensors, .h5 or .npz file by name."""
    if path.suffix in (".h5", ".hdf5"):
        return _read_h5(path)
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {k: torch.from_numpy(np.asarray(file[k])) for k in file.files if file[k].dtype.kind == "f"}
        except (OSError, ValueError) as e:
            raise BadInput(f"not a file of arrays ({type(e).__name__})", str(path)) from None
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as e:
            raise BadInput(f"not a safetensors file ({type(e).__name__})", str(path)) from None
    state = load_state(path, "a state dict")
    state = state.get("state_dict", state)
    return {k: v for k, v in state.items() if isinstance(v, Tensor)}


def _read_h5(path: Path) -> dict[str, Tensor]:
    import h5py

    found: dict[str, Tensor] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            found[name] = torch.from_numpy(np.asarray(item, np.float32))

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except OSError as e:
        raise BadInput(f"not an HDF5 file ({type(e).__name__})", str(path)) from None
    return found


def vgg_by_shape(state: dict[str, Tensor], backbone: VGG16) -> dict[str, Tensor] | None:
    """The backbone's state from a file's 3x3 kernels, OIHW or HWIO, in the natural order of their names: the first run
    of them whose shapes are VGG-16's; None when there is none. A bias lies under its kernel's name but for the end."""
    kernels = [(name, _oihw(t)) for name, t in sorted(state.items(), key=lambda kv: _natural(kv[0])) if t.ndim == 4]
    threes = [(name, k) for name, k in kernels if k.shape[2:] == (3, 3)]
    wanted = backbone.convolutions()
    for first in range(len(threes) - len(wanted) + 1):
        run = threes[first : first + len(wanted)]
        if all(k.shape == conv.weight.shape for (_, k), conv in zip(run, wanted, strict=True)):
            break
    else:
        return None
    out: dict[str, Tensor] = {}
    names = [k for k in backbone.state_dict() if k.endswith("weight")]
    for (name, kernel), key in zip(run, names, strict=True):
        stem = re.sub(r"[^/.]*$", "", name)
        biases = [t for k, t in state.items() if k != name and k.startswith(stem) and t.shape == kernel.shape[:1]]
        beside = [t for k, t in state.items() if k.replace("bias", "weight") == name or k.replace("_b", "_w") == name]
        bias = next((t for t in (*beside, *biases) if t.shape == kernel.shape[:1]), None)
        if bias is None:
            return None
        out[key], out[key.replace("weight", "bias")] = kernel, bias
    return out


def _oihw(kernel: Tensor) -> Tensor:
    """A kernel [O, I, 3, 3], whichever of OIHW and HWIO it was stored in."""
    if kernel.shape[:2] == (3, 3) and kernel.shape[2:] != (3, 3):
        return kernel.permute(3, 2, 0, 1).contiguous()
    return kernel


def _natural(name: str) -> list[list[tuple[int, str]]]:
    """conv2d before conv2d_1 before conv2d_10, features.2 before features.10, wherever in a path."""
    return [
        [
            (int(part), "") if part.isdigit() else (-1, part)
            for part in re.split(r"(\d+)", word.replace("_", ""))
            if part
        ]
        for word in re.split(r"[/.]", name)
    ]


def fold_bgr_to_rgb(state: dict[str, Tensor], model: SSH) -> dict[str, Tensor]:
    """The same function of our normalised RGB as of BGR in 0..255 less its mean, but for the picture's padding."""
    out = dict(state)
    weight = state["features.0.weight"].flip(1)
    std = torch.tensor(model.spec.std)
    mean = torch.tensor(model.spec.mean)
    rest: Tensor = (mean - torch.tensor(CAFFE_MEAN)).reshape(1, 3, 1, 1)
    out["features.0.bias"] = state["features.0.bias"] + (weight * rest).sum((1, 2, 3))
    out["features.0.weight"] = weight * std.reshape(1, 3, 1, 1)
    return out
