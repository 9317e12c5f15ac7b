"""Every kernel file compiles for every supported GPU, with NVRTC and nvcc; neither needs a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from facestream.engines.cuda import kernels
from facestream.engines.cuda.frame import preprocess
from facestream.engines.cuda.kernels import (
    ARCHITECTURES,
    FOLDER,
    KERNELS,
    Dim3,
    compile_kernels,
    nms,
    nms_workspace,
    source,
)
from facestream.engines.errors import EngineMismatch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", sorted(KERNELS))
def test_nvrtc_compiles_the_kernels(file: str, architecture: int) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="compiling needs the rtx or gpu extra")
    cubin = compile_kernels(file, architecture)
    assert cubin.startswith(b"\x7fELF")
    assert all(name.encode() in cubin for name in KERNELS[file])


@pytest.mark.parametrize("file", sorted(KERNELS))
def test_nvcc_compiles_the_kernels(file: str, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc here")
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in (75, 120)]
    out = tmp_path / "kernels.fatbin"
    subprocess.run(["nvcc", "-fatbin", *targets, "-Werror=all-warnings", "-o", out, FOLDER / file], check=True)
    assert out.stat().st_size > 1000


def test_an_error_in_a_kernel_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="compiling needs the rtx or gpu extra")
    monkeypatch.setattr(kernels, "source", lambda file: "__global__ void broken() { nothing(); }")
    with pytest.raises(EngineMismatch, match="nothing") as caught:
        compile_kernels.__wrapped__("nms.cu", 90)
    assert "\n" not in str(caught.value)


def test_nvrtc_and_bindings_of_two_cudas_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="compiling needs the rtx or gpu extra")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "12.9.1")
    with pytest.raises(EngineMismatch, match=r"NVRTC is of CUDA 13, cuda-bindings is 12\.9\.1.*nvrtc==12"):
        compile_kernels.__wrapped__("nms.cu", 90)


def test_extras_install_one_cuda_and_pycuda_alone_is_compiled() -> None:
    """A code of NVRTC's that is of another CUDA than the bindings may not load; PyCUDA needs nvcc's headers."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    cuda = {name: [w for w in asked if "cuda-bindings" in w or "nvrtc" in w] for name, asked in extras.items()}
    users = {name for name, asked in cuda.items() if asked}
    assert users == {"gpu", "pycuda", "rtx", "torch"}
    pinned = {re.sub("^[a-z-]+", "", asked) for name in users for asked in cuda[name]}
    assert pinned == {">=13,<14"}
    assert all(len(cuda[name]) == 2 for name in users)
    assert [name for name, asked in extras.items() if any(w.startswith("pycuda") for w in asked)] == ["pycuda"]


def test_kernel_files_stand_alone_and_ship() -> None:
    assert sorted(p.name for p in FOLDER.glob("*.cu")) == sorted([*KERNELS, "nms_plugin.cu"]), (
        "the last wraps nms.cu for TensorRT's SDK"
    )
    for file, names in KERNELS.items():
        text = (FOLDER / file).read_text()
        assert "#include" not in text
        assert text.count("__global__") == len(names)
        # Whoever includes the file, as nms_plugin.cu does, may have functions of the same names.
        functions = [line for line in text.splitlines() if "__device__" in line and line.rstrip().endswith(("{", "}"))]
        assert len(functions) >= 4
        assert all(line.startswith("static ") for line in functions)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_the_plugin_for_programs_without_python_compiles_and_answers(version: str, tmp_path: Path) -> None:
    """Against NVIDIA's own headers (tests/nvinfer), the oldest and the newest; launches go nowhere without a GPU."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc here")
    folder, program = ROOT / "tests/nvinfer", tmp_path / "check"
    words = ["nvcc", "-O1", "-std=c++17", "--fmad=false", "-gencode=arch=compute_90,code=sm_90"]
    words += ["-Werror=all-warnings", f"-isystem={folder / version / 'include'}", f"-I{FOLDER}"]
    done = subprocess.run([*words, "-o", program, folder / "check.cu"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = subprocess.run([program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout == f"workspace {nms_workspace(8)}\n"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_make_plugin_builds_a_library_that_is_found(version: str, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None or shutil.which("make") is None:
        pytest.skip("no nvcc or make here")
    out = tmp_path / "nms.so"
    words = ["make", "plugin", f"TENSORRT=tests/nvinfer/{version}", "ARCHITECTURES=120", f"PLUGIN={out}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    defined = subprocess.run(["nm", "-D", "--defined-only", out], capture_output=True, text=True, check=True).stdout
    assert {"getCreators", "setLoggerFinder"} <= {line.split()[-1] for line in defined.splitlines()}
    assert not any(name in defined for name in ("area", "overlap", "sort_key", "finite")), "only what is asked for"


@pytest.mark.parametrize("architecture", [75, 90, 120])
def test_preprocessing_spills_nothing_to_memory(architecture: int, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc here")
    words = ["nvcc", "-cubin", f"-arch=sm_{architecture}", "--fmad=false", "-Xptxas", "-v", "-o", tmp_path / "k.cubin"]
    done = subprocess.run([*words, FOLDER / "preprocess.cu"], capture_output=True, text=True, check=True)
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in done.stderr
    (registers,) = re.findall(r"Used (\d+) registers", done.stderr)
    assert int(registers) <= 64


def test_kernels_are_launched_with_as_many_threads_as_they_are_compiled_for() -> None:
    """A GPU refuses more than __launch_bounds__ says."""
    launched: dict[str, int] = {}

    def launch(name: str, grid: Dim3, block: Dim3, arguments: Sequence[Any]) -> None:
        launched[name] = block[0] * block[1] * block[2]

    nms(launch, 1, 100, 0.1, 0.3, 0, 0, 0, 0, 0)
    preprocess(launch, 1, 0, 0, 0, 0, (64, 32))
    bounds: dict[str, str] = {}
    for file in KERNELS:
        kernels_of = re.findall(r"__global__ void __launch_bounds__\((\w+)(?:, \d+)?\)\s*(\w+)\(", source(file))
        bounds |= {name: threads for threads, name in kernels_of}
    assert bounds == {"nms_sort": "THREADS", "nms_mask": "64", "nms_scan": "THREADS", "preprocess": "256"}
    assert "#define THREADS 1024 " in source("nms.cu")
    assert launched == {"nms_sort": 1024, "nms_mask": 64, "nms_scan": 1024, "preprocess": 256}
