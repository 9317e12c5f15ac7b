"""One command for a machine with an NVIDIA card: do the kernels and engines work there, and how fast are they?

python tools/gpu_check.py out/gpu         writes out/gpu/gpu.json and out/gpu/gpu.md

Tests first (under compute-sanitizer where that is installed), then each backend that imports (tensorrt, rtx, torch)
with each model and size: time on the card from uploaded pictures to boxes, of the net alone and of NMS alone, and
frames a second from pictures in memory to faces in memory. Models without trained weights are timed with random ones.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import numpy as np

from engines.card_loop import CardLoop, HostPicture, Net
from engines.command import finish
from engines.cuda_driver import CudaDevice, current_device
from engines.detector import WEIGHTS, DetectorOptions
from engines.errors import UserError
from engines.gpu_picture import Normalisation
from engines.kernels import nms, nms_workspace
from engines.sidecar import Profile, Sidecar
from engines.tensorrt_build import PlanOptions, compile_plan, library, logger

ROOT = Path(__file__).parent.parent
SIZES = {"vgg16": ((640, 640), (1280, 736), (1600, 1216)), "plainS": ((640, 384), (640, 640), (1280, 736)),
         "plainM": ((640, 384), (640, 640), (1280, 736))}  # fmt: skip
BATCHES = (1, 4, 8, 16)
PEAKS = {"H200": (790.0, 4.3), "H100": (790.0, 3.0)}  # TFLOP/s in half precision and TB/s that such cards reach


@dataclass(frozen=True, slots=True)
class Figure:
    """Milliseconds are medians of `runs` a batch; fps counts pictures. ideal_ms: what arithmetic and memory allow."""

    backend: str
    model: str
    width: int
    height: int
    batch: int
    net_ms: float
    card_ms: float
    fps: float
    gflop: float
    ideal_ms: float | None
    down_bytes: int
    runs: int


def gflop(graph: Path, width: int, height: int) -> tuple[float, float]:
    """Arithmetic (10^9 multiplications and additions) and memory traffic (GB, half precision, every layer's input and
    output once) of a graph's convolutions for one picture."""
    import onnx

    model = onnx.load(graph)
    for value, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, height, width, 3), strict=True):
        value.dim_value = size
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    weights = {t.name: list(t.dims) for t in model.graph.initializer}
    flop = traffic = 0.0
    for node in model.graph.node:
        if node.op_type == "Conv":
            out, kernel = shapes[node.output[0]], weights[node.input[1]]
            flop += 2.0 * np.prod(out) * np.prod(kernel[1:])
            traffic += 2.0 * (np.prod(out) + np.prod(shapes[node.input[0]]) + np.prod(kernel))
    return flop / 1e9, traffic / 1e9


def ideal_ms(card: str, work: tuple[float, float], batch: int) -> float | None:
    for name, (tflops, tbs) in PEAKS.items():
        if name in card:
            return batch * max(work[0] / tflops, work[1] / tbs)
    return None


def spent_ms(device: CudaDevice, stream: Any, work: Callable[[], None], runs: int) -> float:
    """The median time on the card of what `work` puts into the stream."""
    times, events = [], (device.event(), device.event())
    for turn in range(runs + 5):
        device.record(events[0], stream)
        work()
        device.record(events[1], stream)
        device.wait(events[1])
        if turn >= 5:
            times.append(device.elapsed_ms(*events))
    return median(times)


def nms_ms(device: CudaDevice, runs: int, boxes: int = 3000) -> dict[str, float]:
    """NMS of so many boxes of one picture as detectors make them, and with every box kept."""
    rng, stream = np.random.default_rng(0), device.stream()
    launch, out = device.launcher(stream), {}
    corner = rng.uniform(0, 1500, (1, boxes // 50, 2)).repeat(50, 1) + rng.normal(0, 6, (1, boxes // 50 * 50, 2))
    clusters = np.concatenate([corner, corner + rng.uniform(20, 60, corner.shape)], 2).astype(np.float32)
    at = np.arange(clusters.shape[1], dtype=np.float32)
    apart = np.stack([at * 10, at * 0, at * 10 + 9, at * 0 + 9], 1)[None]
    for name, xyxy in (("clusters", clusters), ("all kept", np.ascontiguousarray(apart))):
        scores = rng.uniform(0.05, 1, xyxy.shape[:2]).astype(np.float32)
        sizes = (xyxy.nbytes, scores.nbytes, nms_workspace(1), 4, 20 * scores.size)
        addresses = [device.alloc(size) for size in sizes]
        for address, array in zip(addresses, (xyxy, scores), strict=False):
            device.upload(address, array, stream)

        def work(n: int = scores.size, addresses: list[int] = addresses) -> None:
            nms(launch, 1, n, 0.02, 0.3, *addresses)

        work()
        graph = device.capture(stream, work)
        out[name] = round(spent_ms(device, stream, lambda graph=graph: device.replay(graph, stream), runs), 4)
    return out


def nets(
    models: list[str], folder: Path, backends: list[str], problems: list[str]
) -> Iterator[tuple[str, str, Path, Any]]:
    """Backend, model, graph and a function (width, height, batch) -> (net, normalisation), for all there are."""
    for model in models:
        graph = WEIGHTS / f"{model}.onnx"
        if not graph.is_file():
            graph = folder / f"{model}.onnx"
            try:
                export_random(model, graph)
            except ModuleNotFoundError as e:
                problems.append(f"{model} is left out: no weights, and {e.name} to make some is not installed")
                continue
        for backend in backends:
            try:
                if backend == "torch":
                    yield backend, model, graph, torch_net(model)
                else:
                    library(backend)
                    yield backend, model, graph, plan_net(backend, graph, folder)
            except (UserError, ModuleNotFoundError, RuntimeError) as e:
                problems.append(f"{backend} {model} is left out: {e}")


def export_random(model: str, graph: Path) -> None:
    import torch

    import build_engine
    from train.checkpoint import save_weights
    from train.model import build

    torch.manual_seed(0)
    save_weights(graph.with_suffix(".safetensors"), build(model), {"random": True})
    build_engine.export_onnx(graph.with_suffix(".safetensors"), graph)


def plan_net(backend: str, graph: Path, folder: Path) -> Callable[[int, int, int], tuple[Net, Normalisation]]:
    def make(width: int, height: int, batch: int) -> tuple[Net, Normalisation]:
        from engines.tensorrt_engine import PlanNet

        trt, plan = library(backend), folder / f"{graph.stem}-{backend}-{width}x{height}x{batch}.plan"
        shape = (batch, height, width)
        compile_plan(
            backend, graph, plan, PlanOptions((Profile(shape, shape, shape),), progress=False), None, "gpu_check"
        )
        sidecar = Sidecar.read(plan)
        if backend == "tensorrt":
            from engines.nms_plugin import make as plugin

            plugin(trt)
        runtime = trt.Runtime(logger(trt))
        engine = runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise RuntimeError("the plan does not load on this card")
        net = PlanNet(trt, engine, sidecar.profiles, sidecar.nms_iou is not None)
        net.runtime = runtime  # type: ignore[attr-defined]  # must outlive the engine
        return net, sidecar.normalisation

    return make


def torch_net(model: str) -> Callable[[int, int, int], tuple[Net, Normalisation]]:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("this torch has no CUDA")
    from engines.torch_engine import TorchNet
    from train.half import HalfDeploy
    from train.model import build

    half = HalfDeploy(build(model).eval())
    return lambda width, height, batch: (TorchNet(half), half.normalisation)


def measure(
    device: CudaDevice, net: Net, norm: Normalisation, size: tuple[int, int], batch: int, runs: int
) -> dict[str, Any]:
    """Net alone, everything on the card, and pictures a second through the loop with its slots kept busy."""
    options = DetectorOptions()
    loop = CardLoop(device, net, norm, options.threshold, options.nms_iou)
    luma = np.random.default_rng(0).integers(16, 236, (size[1], size[0]), dtype=np.uint8)
    chroma = np.full((size[1] // 2, size[0] // 2, 2), 128, np.uint8)
    pictures = [HostPicture("nv12", (luma, chroma), size, *size)] * batch
    for _ in range(2 * len(loop.slots)):
        loop.result(loop.submit(pictures))
    slot = loop.slots[0]
    memory = {name: address for name, (address, _) in slot.memory.items()}
    outputs = [memory["counts"], memory["faces"]] if net.nms_inside else [memory["xyxy"], memory["scores"]]
    alone = spent_ms(
        device, slot.stream, lambda: net.enqueue(slot.index, memory["input"], *outputs, slot.stream), runs
    )  # fmt: skip
    canvas = slot.key[0]
    ticket = loop.submit(pictures)
    loop.result(ticket)
    if slot.graph is not None:
        whole = spent_ms(device, slot.stream, lambda: device.replay(slot.graph, slot.stream), runs)
    else:
        whole = spent_ms(device, slot.stream, lambda: loop._work(slot, ticket, canvas), runs)
    began = perf_counter()
    tickets = [loop.submit(pictures) for _ in range(runs)]
    for ticket in tickets:
        loop.result(ticket)
    fps = batch * runs / (perf_counter() - began)
    down = 4 + min(32, slot.boxes) * 20
    return {
        "net_ms": round(alone, 4),
        "card_ms": round(whole, 4),
        "fps": round(fps, 1),
        "down_bytes": down,
        "runs": runs,
    }


def versions() -> dict[str, str]:
    found = {}
    for name in ("tensorrt", "tensorrt-rtx", "cuda-bindings", "torch", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(report: dict[str, Any]) -> str:
    """The report as markdown."""
    card = report["card"]
    lines = [f"{card['name']}, compute capability {card['capability'] / 10}, driver for CUDA {card['driver']}; "
             + ", ".join(f"{k} {v}" for k, v in report["versions"].items()) + ".", "",
             f"Tests on the card: {report['tests']}. NMS of 3 x 1000 boxes: "
             + ", ".join(f"{k} {v} ms" for k, v in report["nms_ms"].items()) + ".", "",
             "| backend | model | input | batch | net ms | card ms | a picture | ideal ms | frames/s | bytes down |",
             "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for f in report["figures"]:
        ideal = "-" if f["ideal_ms"] is None else f"{f['ideal_ms']:.3f}"
        lines.append(
            f"| {f['backend']} | {f['model']} | {f['width']}x{f['height']} | {f['batch']} | {f['net_ms']:.3f} | "
            f"{f['card_ms']:.3f} | {f['card_ms'] / f['batch']:.3f} | {ideal} | {f['fps']:.0f} | {f['down_bytes']} |"
        )
    return "\n".join([*lines, "", *(f"- {problem}" for problem in report["problems"])]) + "\n"


def run_tests() -> str:
    """The last line that pytest prints for the tests marked gpu."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests/test_gpu.py")]
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is not None:
        words = [sanitizer, "--error-exitcode", "3", "--target-processes", "all", *words]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if " in " in line and ("passed" in line or "failed" in line)]
    checked = "with" if sanitizer is not None else "without"
    return f"{lines[-1].strip('= ') if lines else 'did not run'} ({checked} compute-sanitizer, exit {done.returncode})"


@click.command()
@click.argument("out", type=click.Path(path_type=Path), default=Path("out/gpu"))
@click.option("--models", default="plainS,plainM,vgg16", show_default=True)
@click.option("--backends", default="tensorrt,rtx,torch", show_default=True)
@click.option("--batches", default=",".join(map(str, BATCHES)), show_default=True)
@click.option("--runs", default=50, show_default=True, help="of which the median is taken")
@click.option("--tests/--no-tests", default=True, help="run the tests marked gpu first")
def check(out: Path, models: str, backends: str, batches: str, runs: int, tests: bool) -> None:
    """Check and time the engines on this machine's card."""
    device = current_device()
    out.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    report: dict[str, Any] = {"card": asdict(device.card), "versions": versions(), "problems": problems}
    report["tests"] = run_tests() if tests else "not run"
    report["nms_ms"] = nms_ms(device, runs)
    figures: list[dict[str, Any]] = []
    report["figures"] = figures
    with tempfile.TemporaryDirectory() as folder:
        for backend, model, graph, make in nets(models.split(","), Path(folder), backends.split(","), problems):
            for width, height in SIZES.get(model, ((640, 384),)):
                work = gflop(graph, width, height)
                for batch in (int(b) for b in batches.split(",")):
                    try:
                        net, norm = make(width, height, batch)
                        found = measure(device, net, norm, (width, height), batch, runs)
                    except (UserError, RuntimeError, ValueError) as e:
                        problems.append(f"{backend} {model} {width}x{height} batch {batch}: {e}")
                        continue
                    ideal = ideal_ms(device.card.name, work, batch)
                    figure = Figure(backend, model, width, height, batch, gflop=work[0], ideal_ms=ideal, **found)
                    figures.append(asdict(figure))
                    print(json.dumps(figures[-1]), flush=True)
                    # After every figure, so that a run that is cut short leaves what it had.
                    (out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
                    (out / "gpu.md").write_text(table(report))
    (out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "gpu.md").write_text(table(report))
    print(f"{out / 'gpu.md'}: {len(figures)} figures, {len(problems)} problems; tests: {report['tests']}")


if __name__ == "__main__":
    finish(check, "gpu_check")
