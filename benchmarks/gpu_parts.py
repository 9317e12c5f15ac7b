"""What benchmarks/gpu_check.py does on a GPU, part by part; each writes down what it has after every figure."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facestream.benchmarks.gpu_nets import Skipped, plan_net, torch_net
from facestream.benchmarks.gpu_times import covered_fps, ideal_ms, measure, nms_ms, picture_ms
from facestream.engines.cuda.devices import current_device
from facestream.engines.errors import UserError

ROOT = Path(__file__).parent.parent
SIZES = {"vgg16": ((640, 640), (1280, 736), (1600, 1216)), "plainS": ((640, 384), (640, 640), (1280, 736)),
         "plainM": ((640, 384), (640, 640), (1280, 736))}  # fmt: skip
BATCHES = (1, 4, 8, 16)
SANITIZED = "test_nms_on_the_gpu or test_preprocessing_on_the_gpu or test_covers_on_the_gpu"
Save = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """Milliseconds are medians of `runs` a batch; fps counts pictures. ideal_ms: what arithmetic and memory allow."""

    backend: str
    model: str
    width: int
    height: int
    batch: int
    net_ms: float
    gpu_ms: float
    fps: float
    gflop: float
    ideal_ms: float | None
    down_bytes: int
    runs: int


@dataclass(frozen=True, slots=True)
class Settings:
    """folder: for plans and graphs, kept from part to part. runs: of which a median is taken."""

    folder: Path
    batches: tuple[int, ...] = BATCHES
    runs: int = 50


def gpu(settings: Settings, save: Save) -> None:
    """Which GPU, driver and libraries."""
    save({"gpu": asdict(current_device().gpu), "versions": versions()})


def tests(settings: Settings, save: Save) -> None:
    """The tests marked gpu."""
    save({"tests": run_tests([])})


def sanitizer(settings: Settings, save: Save) -> None:
    """The kernels' tests under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        raise Skipped("compute-sanitizer is not installed")
    words = [tool, "--error-exitcode", "3", "--target-processes", "all"]
    save({"sanitizer": run_tests(words, "-k", SANITIZED)})


def run_tests(before: list[str], *more: str) -> str:
    """The last line that pytest prints, and how it ended."""
    # Without conftest.py, which makes videos: PyAV need not be here.
    words = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-n", "0", "-p", "no:cacheprovider", "-rfE"]
    words += ["-m", "gpu", str(ROOT / "tests/engines/test_gpu.py"), *more]
    done = subprocess.run([*before, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    told = [line for line in lines if " in " in line and ("passed" in line or "failed" in line or "skipped" in line)]
    wrong = [line[:200] for line in lines if line.startswith(("FAILED", "ERROR", "========= Invalid", "E  "))][:12]
    last = told[-1].strip("= ") if told else f"did not run: {(done.stderr.strip() or 'no word').splitlines()[-1][:200]}"
    return "; ".join([f"{last} (exit {done.returncode})", *wrong])


def kernels(settings: Settings, save: Save) -> None:
    """NMS, preprocessing and covering alone."""
    device, found = current_device(), {}
    for measured in (nms_ms, picture_ms):
        found |= measured(device, settings.runs)
        save({"kernels_ms": found})


def engine(backend: str, model: str, settings: Settings, save: Save) -> None:
    """One backend with one model in all sizes and batches."""
    device = current_device()
    try:
        make, work_of = (torch_net if backend == "torch" else plan_net(backend))(model, settings.folder)
    except (ModuleNotFoundError, UserError) as e:
        raise Skipped(str(e)) from None
    figures: list[dict[str, Any]] = []
    problems: list[str] = []
    for width, height in SIZES.get(model, ((640, 384),)):
        work = work_of(width, height)
        for batch in settings.batches:
            try:
                net, norm = make(width, height, batch)
                found = measure(device, net, norm, (width, height), batch, settings.runs)
            except (UserError, RuntimeError, ValueError) as e:
                problems.append(f"{backend} {model} {width}x{height} batch {batch}: {str(e).splitlines()[0][:200]}")
            else:
                net = None  # frees its memory for the next
                ideal = ideal_ms(device.gpu.name, work, batch)
                figures.append(
                    asdict(Figure(backend, model, width, height, batch, gflop=work[0], ideal_ms=ideal, **found))
                )
                print(figures[-1], flush=True)
            _let_go()
            save({"figures": figures, "problems": problems})
    try:
        net, norm = make(640, 384, 4)
        fps = covered_fps(device, net, norm, settings.runs)
    except (UserError, RuntimeError, ValueError) as e:
        problems.append(f"{backend} {model} covering: {str(e).splitlines()[0][:200]}")
        fps = {}
    save({"figures": figures, "problems": problems, "covered_fps": fps})


def _let_go() -> None:
    """torch keeps the memory of nets that are gone, and the loop's is not its own."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


PARTS: dict[str, Callable[[Settings, Save], None]] = {
    "gpu": gpu, "kernels": kernels, "tests": tests, "sanitizer": sanitizer
}  # fmt: skip
BACKENDS, MODELS = ("torch", "tensorrt", "rtx"), ("plainS", "vgg16", "plainM")


def run(part: str, settings: Settings, save: Save) -> None:
    """Do one of `PARTS`, or BACKEND-MODEL."""
    if part in PARTS:
        PARTS[part](settings, save)
    else:
        engine(*part.split("-", 1), settings, save)


def versions() -> dict[str, str]:
    found = {}
    for name in ("tensorrt", "tensorrt-rtx", "cuda-bindings", "nvidia-cuda-nvrtc", "pycuda", "torch", "numpy", "av"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    smi = shutil.which("nvidia-smi")
    if smi is not None:
        words = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return found


def work_folder() -> Path:
    folder = Path(os.environ.get("FACESTREAM_GPU_CHECK") or Path(tempfile.gettempdir()) / "facestream-gpu-check")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
