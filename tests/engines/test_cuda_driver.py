"""The driver calls through NVIDIA's own bindings, into a stand-in for libcuda that works on the CPU (cpu_driver.cpp):
the tests for a GPU run against it, in a process of their own, where the bindings find no other driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda import needs_compiler, stand_in_driver

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return stand_in_driver(tmp_path_factory.mktemp("driver"))


@needs_compiler
def test_the_tests_for_a_gpu_pass_on_the_stand_in(environment: dict[str, str]) -> None:
    chosen = ["tests/engines/test_gpu.py", "-k", "65 or odd or chain or preprocessing or covers"]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "skipped" not in done.stdout
    assert int(done.stdout.splitlines()[-1].split()[0]) > 20


def run_loop(environment: dict[str, str], kind: str, index: int, **more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tests.gpu_loop", kind, str(index)]
    settings = environment | {"FACESTREAM_GPUS": "2"} | more
    return subprocess.run(words, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)


@needs_compiler
@pytest.mark.parametrize("index", [0, 1])
def test_graphs_are_captured_replayed_and_given_back_through_the_bindings(
    environment: dict[str, str], index: int
) -> None:
    """In three threads, on the GPU that was asked for."""
    done = run_loop(environment, "cuda", index)
    assert done.returncode == 0, done.stderr[-2000:]
    replayed, _, of = done.stdout.split()[1:4]
    assert int(replayed) > 0.8 * int(of)
    assert "done" in done.stdout
    assert not done.stderr


@needs_compiler
def test_a_driver_that_captures_nothing_is_said_once_and_worked_around(environment: dict[str, str]) -> None:
    done = run_loop(environment, "cuda", 0, FACESTREAM_REFUSE_CAPTURE="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("replayed 0 of")
    said = done.stderr.strip().splitlines()
    assert {line.split(" (")[0] for line in said} == {f"no CUDA graph for inputs of {n}x32x32" for n in (1, 2, 4)}
    assert len(said) == 3
    assert all("cuStreamEndCapture failed" in line for line in said)


@needs_compiler
@pytest.mark.parametrize(("refuse", "first"), [("0", "the first"), ("1", "cuMemAlloc failed")])
def test_what_first_goes_wrong_in_a_capture_is_said_and_the_capture_ended(
    environment: dict[str, str], refuse: str, first: str
) -> None:
    """Twice, since a stream that is still being captured takes no second capture."""
    code = """
from facestream.engines.cuda.devices import current_device
from facestream.engines.errors import EngineMismatch
from tests.gpu_loop import alive
device = current_device()
stream = device.stream()
def work():
    device.alloc(1)
    raise EngineMismatch("the first", "x")
for _ in range(2):
    try:
        device.capture(stream, work)
    except EngineMismatch as e:
        print(e)
print(alive()[4])
"""
    settings = environment | {"FACESTREAM_REFUSE_CAPTURE": refuse}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *said, graphs = done.stdout.splitlines()
    assert len(said) == 2
    assert all(first in line for line in said)
    assert graphs == "0"


@needs_compiler
@pytest.mark.parametrize(("more", "words"), [
    ({"FACESTREAM_CUINIT": "100"}, "no NVIDIA GPU here"),
    ({"FACESTREAM_DRIVER": "12080"}, "the driver knows CUDA 12.8, the libraries here are for CUDA 13"),
    ({"FACESTREAM_GPUS": "0"}, "no NVIDIA GPU here"),
    ({"FACESTREAM_CUINIT": "999"}, "cuInit failed: CUDA_ERROR_UNKNOWN"),
    ({"LD_LIBRARY_PATH": ""}, "no NVIDIA driver here"),
])  # fmt: skip
def test_what_is_wrong_with_gpu_or_driver_is_one_line(
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


@needs_compiler
def test_a_gpu_of_a_number_that_is_not_there_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the rtx extra")
    command = [sys.executable, "build_engine.py", "engines/weights/plainS.onnx", "--backend", "rtx", "--verify"]
    (tmp_path / "no pictures").mkdir()  # said before anything is read or built
    command += ["--device", "cuda:2", "--calibrate", str(tmp_path / "no pictures"), "-o", str(tmp_path / "x.plan")]
    settings = environment | {"FACESTREAM_GPUS": "2"}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "there is no GPU 2 (cuda:0 to cuda:1 are here)" in line
    assert [path.name for path in tmp_path.iterdir()] == ["no pictures"]
