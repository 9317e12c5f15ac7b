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

from facestream.benchmarks import gpu_dry, gpu_product
from facestream.benchmarks.gpu_nets import Skipped, plan_net, torch_net
from facestream.benchmarks.gpu_times import frame_ms, ideal_ms, measure, nms_ms
from facestream.engines.cuda.devices import current_device
from facestream.engines.errors import UserError
from facestream.engines.options import DetectorOptions

ROOT = Path(__file__).parent.parent
SIZES = {"vgg16": ((640, 640), (1280, 736), (1600, 1216)), "plainS": ((640, 384), (640, 640), (1280, 736)),
         "plainM": ((640, 384), (640, 640), (1280, 736))}  # fmt: skip
BATCHES = (1, 4, 8, 16)
SANITIZED = "test_nms_on_the_gpu or test_preprocessing_on_the_gpu"
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
    save({"gpu": asdict(device_here().gpu), "versions": versions()})


def device_here() -> Any:
    return gpu_dry.device() if gpu_dry.dry() else current_device()


def product(settings: Settings, save: Save) -> None:
    """Real files and eight cameras through the product's own loops."""
    detector, frames, size, fitted = _detector(), 12 * settings.runs, (1920, 1080), (640, 384)
    if gpu_dry.dry():
        frames, size, fitted = 2, (64, 48), (64, 32)
    gpu_product.cameras(detector, save, frames, size, fitted)
    gpu_product.files(detector, save, [] if gpu_dry.dry() else gpu_product.clips())


def leak(settings: Settings, save: Save) -> None:
    """2,000 random batches, and memory before and after."""
    sizes, fitted, batches = ((1920, 1080), (720, 1280)), (640, 384), 2000
    if gpu_dry.dry():
        sizes, fitted, batches = ((64, 48), (48, 64)), (64, 32), 3
    device = device_here()
    gpu_product.leak(device, _detector(device), save, batches, sizes, fitted)


def accuracy(settings: Settings, save: Save) -> None:
    """AP, boxes and scores of half precision on the GPU against float32 on the CPU, on 200 pictures."""
    count, size = (2, (320, 180)) if gpu_dry.dry() else (200, (960, 544))
    model = gpu_dry.smallest() if gpu_dry.dry() else gpu_product.MODEL
    gpu_product.accuracy(_detector(), save, count, size, model)


def pycuda(settings: Settings, save: Save) -> None:
    """PyCUDA in three threads."""
    gpu_product.pycuda(save)


def _detector(device: Any = None) -> Any:
    """The product's: the best that there is for this GPU."""
    if gpu_dry.dry():
        return gpu_dry.detector(device or gpu_dry.device(), DetectorOptions())
    return gpu_product.best_detector(DetectorOptions(backend="cuda"))


def tests(settings: Settings, save: Save) -> None:
    """The tests marked gpu."""
    save({"tests": run_tests([])})


def sanitizer(settings: Settings, save: Save) -> None:
    """The kernels' tests under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        raise Skipped("compute-sanitizer is not installed")
    command = [tool, "--error-exitcode", "3", "--target-processes", "all"]
    save({"sanitizer": run_tests(command, "-k", SANITIZED)})


def run_tests(before: list[str], *more: str) -> str:
    """The last line that pytest prints, and how it ended."""
    # Without conftest.py, which makes videos: PyAV need not be here.
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-n", "0", "-p", "no:cacheprovider", "-rfE"]
    command += ["-m", "gpu", str(ROOT / "tests/engines/test_gpu.py"), *more]
    if gpu_dry.dry():
        command.append("--collect-only")
    done = subprocess.run([*before, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    ends = [
        line
        for line in lines
        if " in " in line and any(word in line for word in ("passed", "failed", "skipped", "collected"))
    ]
    wrong = [line[:200] for line in lines if line.startswith(("FAILED", "ERROR", "========= Invalid", "E  "))][:12]
    last = ends[-1].strip("= ") if ends else f"did not run: {(done.stderr.strip() or 'no word').splitlines()[-1][:200]}"
    return "; ".join([f"{last} (exit {done.returncode})", *wrong])


def kernels(settings: Settings, save: Save) -> None:
    """NMS and preprocessing alone."""
    device, found = device_here(), {}
    few: dict[Any, tuple[Any, ...]] = {nms_ms: (100,), frame_ms: ((64, 48), (32, 24))} if gpu_dry.dry() else {}
    for measured in (nms_ms, frame_ms):
        found |= measured(device, settings.runs, *few.get(measured, ()))
        save({"kernels_ms": found})


def engine(backend: str, model: str, settings: Settings, save: Save) -> None:
    """One backend with one model in all sizes and batches."""
    device, sizes = device_here(), SIZES.get(model, ((640, 384),))
    try:
        if gpu_dry.dry():
            sizes, make, work_of = ((64, 32),), lambda *shape: gpu_dry.net(device), lambda *size: (1.0, 1.0)
        else:
            make, work_of = (torch_net if backend == "torch" else plan_net(backend))(model, settings.folder)
    except (ModuleNotFoundError, UserError) as e:
        raise Skipped(str(e)) from None
    figures: list[dict[str, Any]] = []
    problems: list[str] = []
    for width, height in sizes:
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


def _let_go() -> None:
    """torch keeps the memory of nets that are gone, and the loop's is not its own."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


PARTS: dict[str, Callable[[Settings, Save], None]] = {
    "gpu": gpu, "kernels": kernels, "tests": tests, "sanitizer": sanitizer,
    "product": product, "leak": leak, "accuracy": accuracy, "pycuda": pycuda,
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
        command = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return found


def work_folder() -> Path:
    folder = Path(os.environ.get("FACESTREAM_GPU_CHECK") or Path(tempfile.gettempdir()) / "facestream-gpu-check")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
