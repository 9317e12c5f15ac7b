"""Several processes train like one: torchrun starts two on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig  # noqa: E402
from facestream.train.config import recipe  # noqa: E402
from facestream.train.data import read_split  # noqa: E402
from facestream.train.distributed import World  # noqa: E402
from facestream.train.loop import Run  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from tests.pack import make_pack  # noqa: E402

VIEWS = {
    "crops": ["--set", "sizes=[64]", "--set", "batch=4"],
    "whole": ["--set", "view=whole_images", "--set", "shortest=90", "--set", "longest=160", "--set", "batch=4"],
}
# One large step of plain gradient descent: the weights move by the gradient itself.
STEP = ["--steps", "1", "--set", "lr=1.0", "--set", "momentum=0.0", "--set", "warmup=0", "--set", "clip=0.0"]


def train(pack: Path, out: Path, view: str, processes: int) -> dict[str, torch.Tensor]:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [
        *launch, "-m", "facestream.train", "--data", str(pack), "--model", "narrow", "--out", str(out),
        "--threads", "1", "--workers", "0", "--device", "cpu", *STEP, *VIEWS[view],
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(out / "weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("view", sorted(VIEWS))
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, view: str) -> None:
    pack = make_pack(tmp_path / "pack")
    start = Run(
        recipe("narrow", sizes=(64,)), read_split(pack, "train"), tmp_path / "zero", False, 0
    ).model.state_dict()
    one, two = (train(pack, tmp_path / str(n), view, n) for n in (1, 2))
    moved = 0
    for name, before in start.items():
        a, b = one[name] - before, two[name] - before
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max()) + 1e-9), name
        moved += bool(a.abs().max() > 0)
    assert moved > 20
    logs = [[json.loads(x) for x in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("1", "2")]
    assert len(logs[0]) == len(logs[1]) == 1  # one process writes
    assert logs[0][0]["loss"] == pytest.approx(logs[1][0]["loss"], rel=1e-3)


def test_a_batch_is_dealt_out_to_the_processes(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path / "pack", 2), "train")
    config = recipe("narrow", batch=5, sizes=(64,))
    keys = [Run(config, images, tmp_path / "r", False, 0, world=World(rank, 2)).batches.keys(3) for rank in (0, 1)]
    assert sorted(keys[0] + keys[1]) == [(3, slot, 64) for slot in range(5)]
    with pytest.raises(BadConfig, match="does not go round 8 processes"):
        Run(config, images, tmp_path / "r", False, 0, world=World(0, 8))


def test_one_process_shares_with_nobody() -> None:
    assert World().share(torch.tensor([0, 7])).tolist() == [1, 7]
    assert World().mean(torch.tensor(2.5)).item() == 2.5
