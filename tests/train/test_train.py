from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig, BadInput  # noqa: E402
from facestream.train.__main__ import settings  # noqa: E402
from facestream.train.augment import AugmentRule  # noqa: E402
from facestream.train.checkpoint import load_weights, save_weights  # noqa: E402
from facestream.train.config import recipe  # noqa: E402
from facestream.train.data import read_split  # noqa: E402
from facestream.train.loop import NotFinite, Run, learning_rate  # noqa: E402
from facestream.train.model import build  # noqa: E402
from facestream.train.pretrained import init_backbone  # noqa: E402
from facestream.train.render_torch import GpuImageCache  # noqa: E402

from tests.pack import make_pack  # noqa: E402

torch.set_num_threads(1)  # crops of 64 pixels are not worth two

FACES = AugmentRule(empty=0.0)  # what little is trained here is all about faces
TINY = {"batch": 2, "sizes": (64, 96), "warmup": 2}


def losses(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def last_step(log: Path) -> int:
    """-1 while nothing is written yet: the file is made before its first line is."""
    return losses(log.parent)[-1][0] if log.exists() and log.read_text() else -1


def test_a_run_that_is_cut_and_resumed_ends_like_one_that_is_not(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path / "pack"), "train")
    config = recipe("mobilenet", steps=6, **TINY)
    Run(config, images, tmp_path / "whole", resume=False, workers=0).train(log_every=1)

    cut = Run(config, images, tmp_path / "cut", resume=False, workers=0)
    step = cut._step

    def stop_at_four(*args: object) -> object:
        if cut.step == 4:
            raise KeyboardInterrupt
        return step(*args)  # type: ignore[arg-type]

    cut._step = stop_at_four  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        cut.train(log_every=1)
    Run(config, images, tmp_path / "cut", resume=True, workers=0).train(log_every=1)

    assert [s for s, _ in losses(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    a, b = (load_weights(tmp_path / name / "weights.safetensors")[0].state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path / "pack"), "train")
    config = recipe("retinaface", steps=100, branches=False, lr=5e-3, batch=4, sizes=(128,), warmup=4, augment=FACES)
    Run(config, images, tmp_path / "run", resume=False, workers=0).train(log_every=5)
    values = [loss for _, loss in losses(tmp_path / "run")]
    assert values[-1] < 0.85 * values[0]


def test_crops_made_by_the_batch_in_half_precision_train_as_well(tmp_path: Path) -> None:
    """What a GPU does, on the CPU: parameters from workers, pixels from the image cache, bfloat16."""
    images = read_split(make_pack(tmp_path / "pack"), "train")
    config = recipe(
        "retinaface", steps=40, branches=False, lr=5e-3, batch=4, sizes=(128,), warmup=4, amp=True, augment=FACES
    )
    run = Run(config, images, tmp_path / "run", resume=False, workers=1)
    run.gpu_images = GpuImageCache([run.data.picture(i) for i in range(len(images))], torch.device("cpu"))
    run.train(log_every=5)
    values = [loss for _, loss in losses(tmp_path / "run")]
    assert values[-1] < 0.9 * values[0]


@pytest.mark.gpu
def test_a_run_on_the_gpu_learns_and_its_weights_load_anywhere(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = read_split(make_pack(tmp_path / "pack"), "train")
    config = recipe("mobilenet", steps=60, lr=5e-3, batch=8, sizes=(128,), warmup=4, amp=True, loss="quality")
    Run(config, images, tmp_path / "run", resume=False, workers=1, device="cuda").train(log_every=10)
    values = [loss for _, loss in losses(tmp_path / "run")]
    assert values[-1] < 0.85 * values[0]
    model, _ = load_weights(tmp_path / "run" / "weights.safetensors")
    assert next(model.parameters()).device.type == "cpu"
    Run(config, images, tmp_path / "run", resume=True, workers=0, device="cpu")


def test_the_command_trains_survives_a_kill_and_resumes(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack")
    command = [
        sys.executable, "-m", "facestream.train", "--data", str(pack), "--model", "mobilenet",
        "--out", str(tmp_path / "run"),
        "--set", "batch=2", "--set", "sizes=[64]", "--steps", "100000", "--threads", "1", "--workers", "0",
        "--save-every", "30",
    ]  # fmt: skip
    state = tmp_path / "run" / "state.pt"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert state.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    at = torch.load(state, weights_only=True)["step"]
    assert at % 30 == 0 < at
    resumed = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and last_step(log) <= at:
        time.sleep(0.2)
    resumed.send_signal(signal.SIGINT)
    _, error = resumed.communicate(timeout=30)
    assert resumed.returncode == 130
    assert b"--resume" in error.splitlines()[-1]
    steps = [s for s, _ in losses(tmp_path / "run")]
    assert steps == sorted(set(steps))  # nothing logged twice
    assert torch.load(state, weights_only=True)["step"] > at


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path / "pack"), "train")
    Run(recipe("mobilenet", steps=1, **TINY), images, tmp_path / "run", resume=False, workers=0).train()
    with pytest.raises(BadConfig, match="other settings"):
        Run(recipe("mobilenet", steps=2, **TINY), images, tmp_path / "run", resume=True, workers=0)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path / "pack"), "train")
    run = Run(recipe("mobilenet", steps=2, **TINY), images, tmp_path / "run", resume=False, workers=0)
    torch.nn.init.constant_(run.model.modules_[0].scores.bias, float("nan"))
    batch = {path.name for key in run.batches.keys(0) for path in run.data.paths(key)}
    with pytest.raises(NotFinite, match="step 0, in the batch of ") as stopped:
        run.train()
    assert all(f"demo/{name}" in str(stopped.value) for name in batch)


def test_a_whole_picture_whose_loss_is_not_finite_is_named_alone(tmp_path: Path) -> None:
    images = [i for i in read_split(make_pack(tmp_path / "pack"), "train") if len(i.xyxy)]
    config = recipe("narrow", steps=2, view="whole_images", batch=3, shortest=64, longest=96)
    run = Run(config, images, tmp_path / "run", resume=False, workers=0)
    loss_of, seen = run._loss, []

    def spoilt(part: object) -> object:
        seen.append(part)
        loss = loss_of(part)  # type: ignore[arg-type]
        return replace(loss, total=loss.total * float("nan")) if len(seen) == 2 else loss

    run._loss = spoilt  # type: ignore[method-assign, assignment]
    with pytest.raises(NotFinite) as stopped:
        run.train()
    (second,) = run.data.paths(run.batches.keys(0)[1])
    assert f"in the batch of demo/{second.name} (" in str(stopped.value)


def test_a_state_from_before_a_setting_existed_is_resumed(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path / "pack"), "train")
    config = recipe("narrow", steps=1, **TINY)
    Run(config, images, tmp_path / "run", resume=False, workers=0).train()
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    for name in ("view", "snip", "levels", "on_bad"):
        del state["config"][name]
    torch.save(state, tmp_path / "run" / "state.pt")
    assert Run(config, images, tmp_path / "run", resume=True, workers=0).step == 1


def test_snip_trains_any_model_on_whole_pictures(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path / "pack"), "train")
    levels = [[128, 256, 0, 40], [64, 128, 20, 80], [32, 64, 60, 1e9]]
    levels = [dict(zip(("shortest", "longest", "low", "high"), x, strict=True)) for x in levels]
    config = recipe("mobilenet", steps=2, snip=True, levels=levels, branches=False)
    Run(config, images, tmp_path / "run", resume=False, workers=0).train(log_every=1)
    assert all(np.isfinite(loss) for _, loss in losses(tmp_path / "run"))


def test_a_backbone_starts_from_a_classifiers_weights(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path / "pack"), "train")
    run = Run(recipe("retinaface", steps=1, **TINY), images, tmp_path / "run", resume=False, workers=0)
    other = build("retinaface").backbone.state_dict()
    state = {"module." + k: v for k, v in other.items()} | {"module.fc.bias": torch.zeros(1000)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "classifier.tar")
    assert init_backbone(tmp_path / "classifier.tar", run.models()) == "by name"
    for model in (run.model, run.average.module):
        assert torch.equal(model.backbone.stage2[3][0].weight, other["stage2.3.0.weight"])
    torch.save({k: v for k, v in state.items() if "stage3" not in k}, tmp_path / "half.pth")
    with pytest.raises(BadConfig, match=r"lacks stage3"):
        init_backbone(tmp_path / "half.pth", run.models())
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(BadInput, match="not a state dict"):
        init_backbone(tmp_path / "noise.pth", run.models())


def test_a_backbone_starts_from_another_nets(tmp_path: Path) -> None:
    small = build("mobilenet")
    save_weights(tmp_path / "small.safetensors", small, {})
    images = read_split(make_pack(tmp_path / "pack"), "train")
    run = Run(recipe("mobilenet", steps=1, **TINY), images, tmp_path / "run", resume=False, workers=0)
    assert init_backbone(tmp_path / "small.safetensors", run.models()) == "by name"
    assert torch.equal(run.model.backbone.stage2[1][3].weight, small.backbone.stage2[1][3].weight)
    dense = Run(recipe("retinaface", steps=1, **TINY), images, tmp_path / "dense", resume=False, workers=0)
    with pytest.raises(BadConfig, match="lacks"):
        init_backbone(tmp_path / "small.safetensors", dense.models())


def test_learning_rate_warms_up_and_falls() -> None:
    c = recipe("plainS", steps=1000, warmup=100, lr=1.0)
    rates = [learning_rate(s, c) for s in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    paper = recipe("vgg16")
    assert [learning_rate(s, paper) for s in (17_999, 18_000)] == pytest.approx([0.004, 0.0004])


@pytest.mark.parametrize(
    ("changes", "named"), [({"modle": 1}, "modle"), ({"lr": "fast"}, "lr"), ({"schedule": "never"}, "schedule")]
)
def test_bad_settings_are_named(changes: dict, named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        recipe("plainS", **changes)


def test_an_unknown_model_lists_the_known() -> None:
    with pytest.raises(BadConfig, match="plainS"):
        recipe("resnet")


def test_settings_of_the_command_line() -> None:
    assert settings(("lr=0.1", "branches=false", "sizes=[64, 96]", "schedule=step")) == {
        "lr": 0.1, "branches": False, "sizes": [64, 96], "schedule": "step",
    }  # fmt: skip
    with pytest.raises(BadConfig):
        settings(("lr",))


def test_weights_keep_their_spec_and_note(tmp_path: Path) -> None:
    model = build("mobilenet")
    save_weights(tmp_path / "w.safetensors", model, {"step": 7})
    loaded, note = load_weights(tmp_path / "w.safetensors")
    assert loaded.spec == model.spec
    assert note == {"step": 7}
    x = torch.from_numpy(np.zeros((1, 3, 32, 32), np.float32))
    assert torch.equal(model.eval()(x)[0][0], loaded(x)[0][0])


def test_something_else_is_not_weights(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(os.urandom(100))
    with pytest.raises(BadInput, match="not weights"):
        load_weights(tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match="not found"):
        load_weights(tmp_path / "none.safetensors")
