"""What gpu_check works out without a card; the rest is for one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engines.cuda_driver import find_card
from engines.detector import WEIGHTS, DetectorOptions
from engines.half import HalfDetector, halve
from engines.sidecar import Profile
from tests.cuda import needs_compiler
from tests.lazy_device import CpuNet, LazyDevice
from tools import gpu_check

ROOT = Path(__file__).parent.parent


def test_arithmetic_is_counted_as_torch_runs_it() -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from train.checkpoint import load_weights
    from train.model import Deploy

    weights = ROOT / "train/checkpoints/plainS.safetensors"
    if not weights.is_file():
        pytest.skip("the checkpoint is not in this checkout")
    net, counted = Deploy(load_weights(weights)[0]).eval(), [0.0]

    def watch(layer, inputs, output):  # type: ignore[no-untyped-def]
        counted[0] += 2 * output.numel() * layer.weight[0].numel()

    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(watch)
    with torch.no_grad():
        net(torch.zeros(1, 192, 320, 3, dtype=torch.uint8))
    flop, traffic = gpu_check.gflop(WEIGHTS / "plainS.onnx", 320, 192)
    assert flop == pytest.approx(counted[0] / 1e9, rel=1e-6)
    assert traffic > 0


def test_the_ideal_is_the_slower_of_arithmetic_and_memory() -> None:
    assert gpu_check.ideal_ms("NVIDIA H200", (790.0, 0.43), 2) == pytest.approx(2.0)
    assert gpu_check.ideal_ms("NVIDIA H200", (7.9, 4.3), 1) == pytest.approx(1.0)
    assert gpu_check.ideal_ms("Another", (1.0, 1.0), 1) is None


def test_the_table_holds_every_figure() -> None:
    figure = {"backend": "rtx", "model": "plainS", "width": 640, "height": 384, "batch": 4, "net_ms": 1.0}
    figure |= {"card_ms": 2.0, "ideal_ms": None, "fps": 99.0, "down_bytes": 644}
    report = {"card": {"name": "A Card", "capability": 89, "driver": 13000}, "versions": {"numpy": "2"}}
    report |= {"tests": "not run", "nms_ms": {"clusters": 0.1}, "figures": [figure], "problems": ["torch is left out"]}
    text = gpu_check.table(report)
    assert "| rtx | plainS | 640x384 | 4 | 1.000 | 2.000 | 0.500 | - | 99 | 644 |" in text
    assert "A Card, compute capability 8.9" in text
    assert "- torch is left out" in text


@needs_compiler
def test_measuring_goes_through_on_a_stand_in() -> None:
    """Not for its figures: so that the time on a card is not spent on slips of the pen."""
    data, normalisation, _ = halve(WEIGHTS / "plainS.onnx")
    device = LazyDevice(1)
    profiles = (Profile((1, 32, 32), (2, 64, 64), (2, 64, 64)),)
    net = CpuNet(device, HalfDetector(data, normalisation, DetectorOptions()), profiles, False)
    found = gpu_check.measure(device, net, normalisation, (64, 32), 2, 1)
    assert set(found) == {"net_ms", "card_ms", "fps", "down_bytes", "runs"}
    assert found["down_bytes"] == 644
    assert set(gpu_check.nms_ms(device, 1, 100)) == {"clusters", "all kept"}


def test_without_a_card_it_says_so_in_one_line(tmp_path: Path) -> None:
    if find_card() is not None:
        pytest.skip("there is a card")
    words = [sys.executable, str(ROOT / "tools/gpu_check.py"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
