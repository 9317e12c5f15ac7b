from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from facestream.engines.errors import BadConfig, BadInput
from facestream.engines.face_crops import SIDE
from facestream.train.candidates import LABEL, SAVED, labels_path
from facestream.train.verifier import (
    CropBatches,
    VerifierNet,
    command,
    distorted,
    init_body,
    load_verifier,
    rate,
    save_verifier,
    tinted,
)  # fmt: skip

RETINAFACE = (
    Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "weights/retinaface-mnet025/mobilenet0.25_Final.pth"
)


def write_crops(path: Path, count: int = 64) -> None:
    """Every second one has a bright disc in its middle, which stands for a face."""
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 90, (count, SAVED, SAVED, 3)).astype(np.uint8)
    table = np.zeros(count, LABEL)
    table["face"] = np.arange(count) % 2
    y, x = np.mgrid[:SAVED, :SAVED]
    disc = np.hypot(x - SAVED / 2, y - SAVED / 2) < SAVED / 4
    crops[1::2][:, disc] += 140
    np.save(path, crops)
    np.save(labels_path(path), table)


def test_it_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_crops(tmp_path / "crops.npy")
    flags = ["--steps", "40", "--batch", "32", "--save-every", "20", "--workers", "0", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(command, [str(tmp_path / "crops.npy"), *flags])
    assert result.exit_code == 0, result.output
    first, last = (json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert last["loss"] < first["loss"]
    net, note = load_verifier(tmp_path / "run" / "weights.safetensors")
    assert note == {"step": 40, "steps": 40}
    assert not net.training
    flags[1] = "50"
    result = CliRunner().invoke(command, [str(tmp_path / "crops.npy"), *flags, "--resume"])
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == [
        20, 40, 50,
    ]  # fmt: skip


def test_a_batch_depends_on_its_number_alone_and_every_crop_comes_once_an_epoch(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        write_crops(tmp_path / name, 32)
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    whole = CropBatches(files, 16, 5, 0, 8)
    late = CropBatches(files, 16, 5, 4, 8)
    assert (len(whole), len(late)) == (8, 4)
    assert torch.equal(whole[4][0], late[0][0])
    assert whole[0][0].shape == (16, 3, SIDE, SIDE)
    faces = torch.cat([whole[i][1] for i in range(4)])
    assert faces.sum() == 32
    indices = [whole._index(draw) for draw in range(64)]
    assert sorted(indices) == list(range(64))
    with pytest.raises(IndexError):
        late[4]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 5, 5, 3), np.uint8))
    np.save(tmp_path / "x.labels.npy", np.zeros(3, LABEL))
    with pytest.raises(BadInput, match="no file of crops"):
        CropBatches([tmp_path / "x.npy"], 1, 0, 0, 1)
    with pytest.raises(BadInput, match="not found"):
        load_verifier(tmp_path / "none.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(BadInput, match="not weights"):
        load_verifier(tmp_path / "no.safetensors")
    missing = CliRunner().invoke(command, [str(tmp_path / "gone.npy")])
    assert missing.exit_code != 0
    assert isinstance(missing.exception, BadInput)


def test_distorted_crops_are_of_the_verifiers_size_and_keep_the_middle() -> None:
    crop = np.zeros((SAVED, SAVED, 3), np.uint8)
    crop[SAVED // 2 - 12 : SAVED // 2 + 12, SAVED // 2 - 12 : SAVED // 2 + 12] = 200
    out = [distorted(crop, np.random.default_rng(i)) for i in range(60)]
    assert {o.shape for o in out} == {(SIDE, SIDE, 3)}
    assert all(o[SIDE // 2 - 5 : SIDE // 2 + 5, SIDE // 2 - 5 : SIDE // 2 + 5].mean() > 150 for o in out)
    assert len({o.tobytes() for o in out}) > 50


def test_tinted_crops_stay_in_range_and_differ() -> None:
    crops = torch.full((40, 3, 8, 8), 120.0)
    out = tinted(crops, torch.Generator().manual_seed(1))
    assert out.min() >= 0
    assert out.max() <= 255
    assert out.mean((1, 2, 3)).std() > 10
    assert torch.equal(out, tinted(crops, torch.Generator().manual_seed(1)))


def test_the_rate_rises_and_falls() -> None:
    rates = [rate(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(rates[99], rel=0.03)
    assert rates[-1] < 1e-4


def test_weights_are_written_and_read(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = VerifierNet().eval()
    save_verifier(tmp_path / "net.safetensors", net, {"step": 3})
    again, note = load_verifier(tmp_path / "net.safetensors")
    crops = torch.randint(0, 256, (2, 3, SIDE, SIDE)).float()
    assert torch.equal(net(crops), again(crops))
    assert note == {"step": 3}


def test_a_start_without_the_body_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"other.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(BadConfig, match="lacks"):
        init_body(VerifierNet(), tmp_path / "x.safetensors")


@pytest.mark.data
@pytest.mark.skipif(not RETINAFACE.is_file(), reason="RetinaFace's weights are not in FACESTREAM_DATA")
def test_its_body_is_that_of_retinaface() -> None:
    net = VerifierNet()
    init_body(net, RETINAFACE)
    weights = net.body.state_dict()["stage1.1.0.weight"]
    assert weights.abs().sum() > 0
    fresh = VerifierNet().body.state_dict()["stage1.1.0.weight"]
    assert not torch.equal(weights, fresh)
