"""Every kernel file compiles for every GPU that is supported, with NVRTC and nvcc; neither needs a GPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from facestream.engines.cuda import kernels
from facestream.engines.cuda.kernels import ARCHITECTURES, FOLDER, KERNELS, compile_kernels, nms_workspace
from facestream.engines.errors import EngineMismatch


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


def test_kernel_files_stand_alone_and_ship() -> None:
    assert sorted(p.name for p in FOLDER.glob("*.cu")) == sorted([*KERNELS, "nms_plugin.cu"]), (
        "the last wraps nms.cu for TensorRT's SDK"
    )
    for file, names in KERNELS.items():
        text = (FOLDER / file).read_text()
        assert "#include" not in text
        assert text.count("__global__") == len(names)


def test_the_plugin_for_programs_without_python_compiles_and_answers(tmp_path: Path) -> None:
    """With declarations of our own in the place of TensorRT's headers, which no package holds: it has not met
    TensorRT. The launches are those of kernels.nms, which run elsewhere."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc here")
    folder, program = Path(__file__).parents[1] / "nvinfer", tmp_path / "check"
    words = ["nvcc", "-O1", "--fmad=false", "-gencode=arch=compute_90,code=sm_90", "-Werror=all-warnings"]
    done = subprocess.run(
        [*words, f"-I{folder}", f"-I{FOLDER}", "-o", program, folder / "check.cu"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = subprocess.run([program], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
    assert told.stdout == f"workspace {nms_workspace(8)}\n"
