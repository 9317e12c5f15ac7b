"""Builds the CUDA sources for the CPU with cuda_shim.cpp, and launches them on numpy arrays."""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facestream.engines.boxes import Array
from facestream.engines.cuda.driver import find_gpu
from facestream.engines.cuda.kernels import FOLDER, KERNELS, Dim3, Launch, nms, nms_workspace, source

SHIM = Path(__file__).parent / "cuda_shim.cpp"
FLAGS = ["-O1", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="running the kernels on the CPU needs g++")


@cache
def folder() -> Path:
    made = tempfile.TemporaryDirectory(prefix="facestream-kernels-")
    _kept.append(made)
    return Path(made.name)


_kept: list[Any] = []


def build(text: str, names: Sequence[str], *flags: str) -> Path:
    """A shared library of a CUDA source's kernels."""
    key = hashlib.sha256((text + repr((names, flags))).encode()).hexdigest()[:16]
    code, library = folder() / f"{key}.cu", folder() / f"{key}.so"
    if not library.is_file():
        code.write_text(text)
        words = [f'-DSOURCE="{code}"', "-DKERNELS=" + " ".join(f"K({name})" for name in names), *flags]
        subprocess.run(["g++", *FLAGS, *words, str(SHIM), "-o", str(library)], check=True)
    return library


class Cpu:
    """A `kernels.Launch` on the CPU, from what `build` made. AssertionError when a kernel breaks a rule of CUDA."""

    def __init__(self, library: Path, seed: int = 0) -> None:
        self.library, self.seed = library, seed
        self.launch = ctypes.CDLL(str(library)).launch
        self.launch.restype = ctypes.c_char_p

    def __reduce__(self) -> tuple[type[Cpu], tuple[Path, int]]:
        return Cpu, (self.library, self.seed)

    def __call__(self, name: str, grid: Dim3, block: Dim3, arguments: Sequence[Any]) -> None:
        self.seed += 1
        sizes = (ctypes.c_uint * 5)(*grid, *block[:2])
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        problem = self.launch(name.encode(), sizes, ctypes.c_uint64(self.seed), pointers)
        assert problem is None, f"{name}: {problem.decode()}"


def cpu(file: str, text: str | None = None, seed: int = 0) -> Cpu:
    return Cpu(build(source(file) if text is None else text, KERNELS[file]), seed)


def every_kernel() -> Launch:
    """All kernels behind one launcher."""
    files = {name: cpu(file) for file, names in KERNELS.items() for name in names}

    def launch(name: str, grid: Dim3, block: Dim3, arguments: Sequence[Any]) -> None:
        files[name](name, grid, block, arguments)

    return launch


def stand_in_driver(folder: Path, user: Path | None = None) -> dict[str, str]:
    """The environment of a process that finds cpu_driver.cpp in the place of NVIDIA's driver. user: a library whose
    every symbol of the driver must be there for it to load; those that the stand-in lacks fail when called."""
    pytest.importorskip("cuda.bindings.driver", reason="needs the rtx or gpu extra")
    if find_gpu() is not None:
        pytest.skip("there is a GPU: tests/engines/test_gpu.py runs on it")
    words = ["g++", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", str(SHIM.with_name("cpu_driver.cpp"))]
    library = folder / "libcuda.so.1"
    subprocess.run([*words, "-o", str(library), "-ldl"], check=True)
    if user is not None and (missing := symbols(user, "--undefined-only") - symbols(library, "--defined-only")):
        stubs = folder / "stubs.cpp"
        stubs.write_text("".join(f'extern "C" int {name}() {{ return 801; }}\n' for name in sorted(missing)))
        subprocess.run([*words, str(stubs), "-o", str(library), "-ldl"], check=True)
    kernels = [str(build((FOLDER / file).read_text(), names)) for file, names in KERNELS.items()]
    return os.environ | {"LD_LIBRARY_PATH": str(folder), "FACESTREAM_KERNELS": ":".join(kernels)}


def symbols(library: Path, which: str) -> set[str]:
    """Names of the driver's functions that a library has or asks for."""
    done = subprocess.run(["nm", "-D", which, str(library)], capture_output=True, text=True, check=True)
    return {name for line in done.stdout.splitlines() if (name := line.split()[-1].split("@")[0]).startswith("cu")}


def survives(work: Callable[..., object], *given: object) -> bool:
    """Whether work ends well in a process of its own: broken kernels may crash it or never end.

    Not a fork of this one: other tests leave threads behind, and a lock that one of them holds in that moment (numpy
    has some) would never be free in the child. A server that runs nothing else is forked instead.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engines.test_nms_kernel", "tests.engines.test_gpu_frame"])
    process = context.Process(target=_alone, args=(work, *given))
    process.start()
    process.join(200)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("it waits for something that never comes")
    return process.exitcode == 0


def _alone(work: Callable[..., object], *given: object) -> None:
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # of the CPU, not of the clock: the machine may be busy
    try:
        work(*given)
    except BaseException:
        os._exit(1)
    os._exit(0)


def run_nms(launch: Cpu, xyxy: Array, scores: Array, threshold: float, iou: float) -> list[tuple[Array, Array]]:
    """What `kernels.nms` leaves of each image: boxes [n, 4] and scores [n]. All memory starts as noise."""
    images, boxes = scores.shape
    rng = np.random.default_rng(1)
    sizes = nms_workspace(images), 4 * images, images * boxes * 20
    workspace, counts, faces = (np.frombuffer(rng.bytes(size), np.uint8).copy() for size in sizes)
    nms(launch, images, boxes, threshold, iou, *(a.ctypes.data for a in (xyxy, scores, workspace, counts, faces)))
    found, n = faces.view(np.float32).reshape(images, boxes, 5), counts.view(np.int32)
    assert all(not found[i, n[i] :].any() for i in range(images)), "rows behind the kept boxes are not zero"
    return [(found[i, : n[i], :4], found[i, : n[i], 4]) for i in range(images)]
