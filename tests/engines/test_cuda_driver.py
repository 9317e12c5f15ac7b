"""The driver calls through NVIDIA's own bindings, into a stand-in for libcuda that works on the CPU (cpu_driver.cpp):
the tests for a GPU run against it, in a process of their own, where the bindings find no other driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda import needs_compiler, stand_in_driver

ROOT = Path(__file__).parents[2]
LOOP = """
from pathlib import Path
import numpy as np
from facestream.engines.cuda.pipeline import GpuPipeline
from facestream.engines.types import HostFrame
from facestream.engines.cuda.driver import CudaDevice
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.build.sidecar import Profile
from tests.lazy_device import view

class Constant:
    nms_inside = False
    def canvas(self, pictures, width, height): return width, height
    def prepare(self, slot, pictures, width, height, stream): return 40
    def capturable(self, slot, stream): return True
    def enqueue(self, slot, images, first, second, stream):
        int(stream)
        at = np.arange(40, dtype=np.float32) * 20
        rows = np.stack([at, at, at + 9, at + 9], 1)
        view(first, np.float32, (40, 4))[:] = rows
        view(second, np.float32, (40,))[:] = np.linspace(0.9, 0.5, 40)

device = CudaDevice()
loop = GpuPipeline(device, Constant(), Normalisation((0.0,) * 3, (1.0,) * 3), 0.3, 0.3, slots=2)
picture = HostFrame("rgb24", (np.zeros((32, 32, 3), np.uint8),), (32, 32), 32, 32)
for found in [loop.result(t) for t in [loop.submit([picture]) for _ in range(6)]]:
    assert len(found[0][1]) == 40, found
assert all(slot.graph is not None for slot in loop.slots)
print("six batches")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return stand_in_driver(tmp_path_factory.mktemp("driver"))


@needs_compiler
def test_the_tests_for_a_card_pass_on_the_stand_in(environment: dict[str, str]) -> None:
    chosen = ["tests/engines/test_gpu.py", "-k", "65 or odd or chain or preprocessing or covers"]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "skipped" not in done.stdout
    assert int(done.stdout.splitlines()[-1].split()[0]) > 20


@needs_compiler
def test_graphs_are_captured_and_replayed_through_the_bindings(environment: dict[str, str]) -> None:
    words = [sys.executable, "-c", LOOP]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "six batches" in done.stdout


@needs_compiler
@pytest.mark.parametrize(("more", "words"), [
    ({"FACESTREAM_CUINIT": "100"}, "no NVIDIA GPU here"),
    ({"FACESTREAM_DRIVER": "12080"}, "the driver knows CUDA 12.8, the libraries here are for CUDA 13"),
    ({"FACESTREAM_CUINIT": "999"}, "cuInit failed: CUDA_ERROR_UNKNOWN"),
    ({"LD_LIBRARY_PATH": ""}, "no NVIDIA driver here"),
])  # fmt: skip
def test_what_is_wrong_with_card_or_driver_is_one_line(
    environment: dict[str, str], tmp_path: Path, more: dict[str, str], words: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the rtx extra")
    command = [sys.executable, "build_engine.py", "engines/weights/plainS.onnx", "--backend", "rtx", "--verify"]
    command += ["-o", str(tmp_path / "x.plan")]
    done = subprocess.run(command, cwd=ROOT, env=environment | more, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())
