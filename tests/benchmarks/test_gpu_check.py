"""gpu_check without a GPU: its calculations, and complete runs on simulated GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from facestream.benchmarks import gpu_check, gpu_dry, gpu_nets, gpu_parts, gpu_product, gpu_times
from facestream.benchmarks.gpu_parts import Settings
from facestream.engines.build.fp16 import Fp16Detector, to_fp16
from facestream.engines.build.sidecar import Profile
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.cuda.driver import GpuInfo, find_gpu
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.cuda.pipeline import GpuPipeline
from facestream.engines.errors import BadConfig, BadInput
from facestream.engines.loader import WEIGHTS
from facestream.engines.options import DetectorOptions

from tests.cuda import needs_compiler, stand_in_driver
from tests.engines.test_gpu_pipeline import Faint, first_pixels
from tests.lazy_device import CpuNet, LazyDevice

ROOT = Path(__file__).parents[2]


def test_arithmetic_is_counted_as_torch_counts_it() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    from facestream.engines.torch_graph import read
    from torch.utils._python_dispatch import TorchDispatchMode

    found = [0.0, 0.0]

    class Convolutions(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default):
                found[0] += 2.0 * output.numel() * args[1][0].numel() / 1e9
                found[1] += 2.0 * (output.numel() + args[0].numel() + args[1].numel()) / 1e9
            return output

    graph = WEIGHTS / "plainS.onnx"
    module, images = read(graph).to("meta"), torch.zeros(1, 192, 320, 3, dtype=torch.uint8, device="meta")
    module.plan(images)  # goes through the net once
    with torch.no_grad(), Convolutions():
        module(images)
    assert gpu_nets.graph_work(graph, 320, 192) == pytest.approx(found, rel=1e-6)
    assert gpu_nets.graph_work(graph, 640, 384)[0] == pytest.approx(4 * found[0])
    assert 0.1 < found[0] < 5


def test_the_ideal_is_the_slower_of_arithmetic_and_memory() -> None:
    assert gpu_times.ideal_ms("NVIDIA H200", (790.0, 0.43), 2) == pytest.approx(2.0)
    assert gpu_times.ideal_ms("NVIDIA H200", (7.9, 4.3), 1) == pytest.approx(1.0)
    assert gpu_times.ideal_ms("Another", (1.0, 1.0), 1) is None


FIGURE = {"backend": "rtx", "model": "plainS", "width": 640, "height": 384, "batch": 4, "net_ms": 1.0, "gpu_ms": 2.0,
          "ideal_ms": 0.8, "fps": 99.0, "down_bytes": 644}  # fmt: skip


def test_the_table_holds_every_figure_and_what_went_wrong() -> None:
    gpu = {"gpu": {"name": "A GpuInfo", "capability": 89, "driver": 13000}, "versions": {"numpy": "2"}, "end": "done"}
    report = {"parts": {
        "gpu": gpu,
        "kernels": {"end": "done", "kernels_ms": {"NMS": 0.1}},
        "rtx-plainS": {"end": "ended by signal 11", "last_line": "boom", "figures": [FIGURE], "problems": ["batch 8"]},
        "rtx-vgg16": {"end": "skipped", "skipped": "not installed"},
    }}  # fmt: skip
    text = gpu_check.table(report)
    assert "| rtx | plainS | 640x384 | 4 | 1.000 | 2.000 | 0.500 | 0.200 | 99 | 644 |" in text
    for words in (
        "A GpuInfo, compute capability 8.9", "- NMS: 0.1 ms", "rtx-plainS: ended by signal 11: boom", "- batch 8",
        "rtx-vgg16: skipped: not installed",
    ):  # fmt: skip
        assert words in text


def in_order(monkeypatch: pytest.MonkeyPatch, kind: type[Any], *names: str) -> list[str]:
    """The first letters of these methods, as they are called from now on."""
    steps: list[str] = []

    def noted(name: str, method: Any) -> Any:
        def call(*given: Any) -> Any:
            steps.append(name[0])
            return method(*given)

        return call

    for name in names:
        monkeypatch.setattr(kind, name, noted(name, getattr(kind, name)))
    return steps


@needs_compiler
def test_measuring_goes_through_on_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for its figures: so that the time on a GPU is not spent on slips of the pen."""
    data, normalisation, _ = to_fp16(WEIGHTS / "plainS.onnx")
    device: Any = LazyDevice(1)
    profiles = (Profile((1, 32, 32), (2, 64, 64), (2, 64, 64)),)
    net = CpuNet(device, Fp16Detector(data, normalisation, DetectorOptions()), profiles, False)
    steps = in_order(monkeypatch, GpuPipeline, "submit", "result")
    found = gpu_times.measure(device, net, normalisation, (64, 32), 2, 3)
    assert set(found) == {"net_ms", "gpu_ms", "fps", "down_bytes", "runs"}
    assert found["down_bytes"] == 644
    assert not device.memory, "the loop keeps memory of the GPU"
    assert "".join(steps).endswith("ssrsrr"), "two batches on their way, as the product has"
    assert len(gpu_times.nms_ms(device, 1, 300)) == 2
    assert len(gpu_times.frame_ms(device, 1, (64, 48), (32, 24))) == 2


def test_an_engines_part_keeps_each_figure_and_says_what_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device: Any = LazyDevice(2)
    monkeypatch.setattr(gpu_parts, "current_device", lambda: device)
    monkeypatch.setattr(gpu_parts, "measure", lambda *a: FIGURE_OF[a[4]]() | {})
    make = (lambda width, height, batch: (None, None)), (lambda width, height: (1.0, 1.0))
    monkeypatch.setattr(gpu_parts, "plan_net", lambda backend: lambda model, folder: make)
    saved: list[dict[str, Any]] = []
    gpu_parts.engine(
        "rtx", "plainS", Settings(tmp_path, (1, 2), 1), lambda found: saved.append(json.loads(json.dumps(found)))
    )
    assert [(len(s["figures"]), len(s["problems"])) for s in saved] == [
        (1, 0),
        (1, 1),
        (2, 1),
        (2, 2),
        (3, 2),
        (3, 3),
    ]
    assert "batch 2: out of memory" in saved[-1]["problems"][0]


def _fails() -> dict[str, Any]:
    raise RuntimeError("out of memory\nmany more lines")


FIGURE_OF = {1: lambda: {"net_ms": 1.0, "gpu_ms": 1.0, "fps": 1.0, "down_bytes": 4, "runs": 1}, 2: _fails}


def test_a_part_that_crashes_or_hangs_costs_nothing_but_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With parts of our own in the children's place, which write half of what they want and then go wrong."""
    script = tmp_path / "parts.py"
    script.write_text(
        """
import json, os, pathlib, sys, time
part, result = sys.argv[2], pathlib.Path(sys.argv[4])
result.write_text(json.dumps({"figures": [FIGURE]}))
if part == "kernels": print("about to crash", flush=True), os.kill(os.getpid(), 11)
if part == "tests": time.sleep(60)
if part == "torch-plainS": sys.exit("no luck")
if part == "torch-vgg16": result.write_text(json.dumps({"skipped": "no CUDA"}))
""".replace("FIGURE", repr(FIGURE))
    )
    monkeypatch.setattr(gpu_check, "__file__", str(script))
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: GpuInfo("A GpuInfo", 90, 13000))
    monkeypatch.setattr(gpu_check, "LONGEST_S", 3.0)
    monkeypatch.setenv("FACESTREAM_GPU_CHECK", str(tmp_path / "work"))
    only = "gpu,kernels,tests,torch-plainS,torch-vgg16"
    assert gpu_check.check.callback is not None
    run = gpu_check.check.callback
    run(tmp_path / "out", only, False, (), 9.0, "1", 1, False, None, None)
    found = json.loads((tmp_path / "out/gpu.json").read_text())["parts"]
    assert {name: part["end"] for name, part in found.items()} == {
        "gpu": "done", "kernels": f"ended by signal {signal.SIGSEGV.value}", "tests": "stopped after 3 s",
        "torch-plainS": "failed (exit 1)", "torch-vgg16": "skipped",
    }  # fmt: skip
    assert found["kernels"]["last_line"] == "about to crash"
    assert all(found[name]["figures"] for name in ("gpu", "kernels", "tests", "torch-plainS"))
    # A second run adds to the first, and what ran well is not lost to what did not.
    run(tmp_path / "again", "kernels,rtx-plainS", False, (tmp_path / "out/gpu.json",), 9.0, "1", 1, False, None, None)
    more = json.loads((tmp_path / "again/gpu.json").read_text())["parts"]
    assert set(more) == set(found) | {"rtx-plainS"}
    merged = gpu_check.merged((tmp_path / "out/gpu.json", tmp_path / "again/gpu.json"))
    assert merged["gpu"]["end"] == "done"
    run(tmp_path / "late", "gpu", False, (), 0.0, "1", 1, False, None, None)
    late = json.loads((tmp_path / "late/gpu.json").read_text())["parts"]
    assert late["gpu"]["end"] == "left out: no time"


def test_parts_are_chosen_by_name() -> None:
    assert gpu_check.chosen("none") == []
    assert gpu_check.chosen("all") == list(gpu_check.ORDER)
    assert gpu_check.chosen("torch,gpu") == ["gpu", "torch-plainS", "torch-vgg16", "torch-plainM"]
    assert set(gpu_parts.PARTS) < set(gpu_check.ORDER)
    with pytest.raises(BadConfig, match="no part 'trt'"):
        gpu_check.chosen("trt")
    with pytest.raises(BadInput, match="not a report"):
        gpu_check.merged((Path(__file__),))


ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("av", "msgspec", "lap", "tensorrt", "tensorrt_rtx", "pycuda"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
sys.meta_path.insert(0, Absent())
"""


def bare_run(folder: Path, *words: str, **more: str) -> dict[str, Any]:
    """The command on a machine that lacks what a rented one does: its report."""
    (folder / "bare").mkdir()
    (folder / "bare/sitecustomize.py").write_text(ABSENT)
    settings = os.environ | more | {"PYTHONPATH": str(folder / "bare"), "FACESTREAM_GPU_CHECK": str(folder / "work")}
    command = [sys.executable, "benchmarks/gpu_check.py", str(folder / "out"), *words]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads((folder / "out/gpu.json").read_text())["parts"]
    return found


@needs_compiler
def test_the_whole_command_goes_through_on_the_stand_in_for_a_driver(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    only = "gpu,torch-plainS,tensorrt-plainS,rtx-plainS,product,pycuda"
    parts = bare_run(tmp_path, "--only", only, "--runs", "1", **stand_in_driver(tmp_path))
    assert parts["gpu"]["end"] == "done", parts["gpu"]
    assert parts["gpu"]["gpu"]["capability"] > 0
    for name in ("torch-plainS", "tensorrt-plainS", "rtx-plainS", "pycuda"):
        assert parts[name]["end"] == "skipped", parts[name]
    assert "torch" in parts["torch-plainS"]["skipped"]
    assert "TensorRT" in parts["tensorrt-plainS"]["skipped"]
    assert "PyCUDA" in parts["pycuda"]["skipped"]
    assert "torch" in parts["product"]["last_line"], "the product has nothing that runs there, and says so"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@needs_compiler
def test_a_dry_run_goes_through_every_part(tmp_path: Path) -> None:
    parts = bare_run(tmp_path, "--dry-run", "--minutes", "100")
    assert set(parts) == set(gpu_check.ORDER)
    ends = {name: part["end"] for name, part in parts.items() if part["end"] != "done"}
    assert set(ends) <= {"sanitizer", "pycuda"}
    assert set(ends.values()) <= {"skipped"}
    assert parts["product"]["cameras"]["frames"] == 2 * gpu_product.CAMERAS
    assert "is not installed" in parts["product"]["files"] or parts["product"]["files"] == {}
    assert parts["leak"]["leak"]["batches"] == 3
    assert parts["accuracy"]["accuracy"]["pictures"] == 2
    assert (tmp_path / "out/gpu.md").read_text().startswith("Dry run, no figures.")


@needs_compiler
def test_the_parts_of_the_product_go_through_in_a_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu_dry.VARIABLE, "1")
    saved: dict[str, Any] = {}
    for part in ("product", "leak", "accuracy"):
        gpu_parts.run(part, Settings(tmp_path, (1,), 1), saved.update)
    assert saved["cameras"]["frames"] == 2 * gpu_product.CAMERAS
    assert saved["leak"]["replayed_share"] > 0.5
    assert saved["accuracy"]["box_error_px"] < 1
    assert saved["accuracy"]["ap_float32"] >= 0


@needs_compiler
def test_random_batches_are_under_way_as_in_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    device: Any = LazyDevice(5)
    device.kernels = first_pixels
    pipeline = GpuPipeline(device, Faint(), Normalisation((0.0,) * 3, (255.0,) * 3), 0.01, 0.3)
    detector = GpuDetector(pipeline, 16, DetectorOptions(threshold=0.01))
    steps = in_order(monkeypatch, GpuDetector, "submit", "collect")
    saved: dict[str, Any] = {}
    gpu_product.leak(device, detector, saved.update, 4, ((64, 48),), (64, 32))
    assert "".join(steps) == "sscscscc", "two at once"
    assert saved["leak"]["batches"] == 4
    assert saved["leak"]["replayed_share"] == 1


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    if find_gpu() is not None:
        pytest.skip("there is a GPU")
    words = [sys.executable, str(ROOT / "benchmarks/gpu_check.py"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
