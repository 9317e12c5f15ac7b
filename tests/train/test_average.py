"""Averaging a net with its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from facestream.train.checkpoint import load_weights, save_weights  # noqa: E402
from facestream.train.model import build  # noqa: E402


def test_the_file_lies_between_the_two_and_says_so(tmp_path: Path) -> None:
    torch.manual_seed(1)
    start, trained = build("plainXS16"), build("plainXS16")
    save_weights(tmp_path / "start.safetensors", start, {})
    save_weights(tmp_path / "trained.safetensors", trained, {"step": 7})
    words = [str(tmp_path / name) for name in ("start.safetensors", "trained.safetensors")]
    out = tmp_path / "out.safetensors"
    command = [sys.executable, "-m", "facestream.train.average", *words, "--share", "0.25", "-o", str(out)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    made, note = load_weights(out)
    assert note == {"step": 7, "average": {"start": "start.safetensors", "share": 0.25}}
    for a, b, c in zip(start.parameters(), trained.parameters(), made.parameters(), strict=True):
        torch.testing.assert_close(c, 0.75 * a + 0.25 * b)


def test_other_networks_and_norms_are_refused(tmp_path: Path) -> None:
    for name in ("plainXS16", "plainS", "stack"):
        save_weights(tmp_path / f"{name}.safetensors", build(name), {})
    for first, second, why in (("plainXS16", "plainS", "another network"), ("stack", "stack", "batch norms")):
        words = [str(tmp_path / f"{name}.safetensors") for name in (first, second)]
        command = [sys.executable, "-m", "facestream.train.average", *words, "-o", str(tmp_path / "out.safetensors")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        assert done.returncode == 2
        assert why in done.stderr
        assert not (tmp_path / "out.safetensors").exists()
