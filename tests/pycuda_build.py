"""Builds PyCUDA without a GPU, a driver or the CUDA toolkit: its headers come as wheels from PyPI, and what it is
linked against is an empty library. Takes a few minutes; what was built is kept in build/pycuda.

    python -m tests.pycuda_build        prints the folder to put on PYTHONPATH
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "2026.1"
HEADERS = ("nvidia-cuda-runtime==13.0.*", "nvidia-cuda-crt==13.0.*", "nvidia-cuda-profiler-api==13.0.*")
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "pycuda" / f"{VERSION}-{sys.implementation.cache_tag}"
# Where PyCUDA's setup looks for its settings: the home folder.
SETTINGS = """CUDA_ROOT = {cuda!r}
CUDA_ENABLE_CURAND = False
CUDA_ENABLE_GL = False
CUDADRV_LIB_DIR = [{stub!r}]
CUDADRV_LIBNAME = ["cuda"]
"""


def built() -> Path:
    """The folder that holds the package pycuda. CalledProcessError where it cannot be built."""
    if (FOLDER / "pycuda").is_dir():
        return FOLDER
    with tempfile.TemporaryDirectory(prefix="facestream-pycuda-") as name:
        work = Path(name)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--no-deps", "--target", str(work / "headers"), *HEADERS], check=True)
        (work / "stub").mkdir()
        (work / "stub.c").write_text("void cuInit(void) {}\n")
        stub = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", str(work / "stub.c"), "-o"]
        subprocess.run([*stub, str(work / "stub/libcuda.so")], check=True)
        cuda = work / "headers/nvidia/cu13"
        (work / ".aksetup-defaults.py").write_text(SETTINGS.format(cuda=str(cuda), stub=str(work / "stub")))
        part = FOLDER.with_name(FOLDER.name + ".part")
        asked = [f"pycuda=={VERSION}", "--no-binary", "pycuda", "--target", str(part), "--upgrade"]
        subprocess.run([*pip, "install", *asked], env=os.environ | {"HOME": name}, check=True)
        part.replace(FOLDER)
    return FOLDER


if __name__ == "__main__":
    print(built())
