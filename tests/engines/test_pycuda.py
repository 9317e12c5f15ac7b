"""PyCUDA itself, built for this, on the stand-in for the driver (cpu_driver.cpp): each test in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pycuda_build
from tests.cuda import needs_compiler, stand_in_driver

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, needs_compiler, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if shutil.which("nm") is None or shutil.which("gcc") is None:
        pytest.skip("building PyCUDA needs gcc and nm")
    try:
        folder = pycuda_build.built()
    except subprocess.CalledProcessError as e:
        pytest.skip(f"PyCUDA could not be built: {e}")
    (library,) = (folder / "pycuda").glob("_driver*.so")
    settings = stand_in_driver(tmp_path_factory.mktemp("driver"), library)
    return settings | {"PYTHONPATH": str(folder), "FACESTREAM_GPUS": "2"}


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("index", ["0", "1"])
def test_threads_that_used_the_gpu_end_well(environment: dict[str, str], index: str) -> None:
    """PyCUDA aborts the process when a thread ends whose stack holds a context."""
    done = run(environment, "-m", "tests.gpu_loop", "pycuda", index)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "done"
    assert not done.stderr, "PyCUDA prints what it could not clean up"


def test_a_device_made_in_another_thread_than_the_main_one_is_left_well(environment: dict[str, str]) -> None:
    code = """
import threading
from facestream.engines.cuda.devices import current_device
made = []
thread = threading.Thread(target=lambda: made.append(current_device(1)))
thread.start(), thread.join()
made[0].enter()
made[0].free(made[0].alloc(10))
print(made[0].gpu.name, type(made[0]).__name__)
"""
    done = run(environment, "-c", code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "CPU stand-in 1 PycudaDevice", "")


def test_pycudas_own_stack_holds_the_gpu_that_was_asked_for(environment: dict[str, str]) -> None:
    """Not only the driver's: PyCUDA puts what its stack holds back on top whenever it has worked in another context."""
    code = """
from facestream.engines.cuda.devices import current_device
from facestream.engines.cuda.driver import context_index
device = current_device(1)
stack = device.cuda.Context
stack.pop()
device._primary.push()
print(context_index(), device.index)
"""
    done = run(environment, "-c", code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1 1", "")


def test_what_pycuda_refuses_is_one_line(environment: dict[str, str]) -> None:
    code = """
from facestream.engines.cuda.devices import current_device
from facestream.engines.errors import EngineMismatch
device = current_device()
device._primary.pop()
try:
    device.alloc(1)
except EngineMismatch as e:
    print(e)
device._primary.push()
"""
    done = run(environment, "-c", code)
    assert done.stdout.startswith("cuda: PyCUDA: cuMemAlloc failed"), (done.stdout, done.stderr)
    assert len(done.stdout.strip().splitlines()) == 1
    assert done.returncode == 0


def test_the_tests_for_a_gpu_pass_on_it(environment: dict[str, str]) -> None:
    chosen = ["tests/engines/test_gpu.py", "-k", "odd or chain or preprocessing"]
    done = run(environment, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *chosen)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "skipped" not in done.stdout
