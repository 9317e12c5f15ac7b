"""Kernels, GpuPipeline and engines on a real GPU; benchmarks/gpu_check.py runs these tests there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from facestream.engines.boxes import Array
from facestream.engines.build.sidecar import Profile
from facestream.engines.build.tensorrt import PlanOptions, compile_plan, float_convolutions, layers
from facestream.engines.cuda.devices import current_device
from facestream.engines.cuda.driver import CudaDevice, find_gpu
from facestream.engines.cuda.frame import SOURCE, DeviceFrame, colour_table, packed_bytes, preprocess, source_row
from facestream.engines.cuda.kernels import Launch, nms, nms_workspace
from facestream.engines.letterbox import view
from facestream.engines.loader import WEIGHTS, load_detector, shipped
from facestream.engines.options import DetectorOptions
from facestream.engines.tensorrt_library import MODULES, library, unsupported

from tests import reference as pictures
from tests.alike import found_alike
from tests.engines import test_nms_kernel as suppression
from tests.pack import demo_frames

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU and driver here")]


class Card:
    """Host arrays in, host arrays out: each is copied to the GPU, worked on there, and copied back."""

    def __init__(self) -> None:
        self.device: CudaDevice = current_device()
        self.stream, self.event = self.device.stream(), self.device.event()
        self.held: list[tuple[Array, int]] = []

    def launcher(self) -> Launch:
        return self.device.launcher(self.stream)

    def put(self, array: Array) -> int:
        address = self.device.alloc(max(array.nbytes, 256))
        if array.nbytes:
            self.device.upload(address, array, self.stream)
        self.held.append((array, address))
        return address

    def fetch(self) -> None:
        for array, address in self.held:
            if array.nbytes:
                self.device.download(array, address, self.stream)
        self.device.record(self.event, self.stream)
        self.device.wait(self.event)
        for _, address in self.held:
            self.device.free(address)
        self.held.clear()


@pytest.fixture
def gpu() -> Iterator[Card]:
    made = Card()
    yield made
    made.fetch()


@pytest.mark.parametrize("name", sorted(suppression.CASES))
def test_nms_on_the_gpu_is_numpys_to_the_bit(gpu: Card, name: str) -> None:
    xyxy, scores, threshold, iou = suppression.CASES[name]
    images, boxes = scores.shape
    counts, faces = np.zeros(images, np.int32), np.ones((images, boxes, 5), np.float32)
    workspace = np.full(nms_workspace(images), 0xAB, np.uint8)
    addresses = [gpu.put(np.ascontiguousarray(a)) for a in (xyxy, scores, workspace, counts, faces)]
    nms(gpu.launcher(), images, boxes, threshold, iou, *addresses)
    gpu.fetch()
    for i in range(images):
        want_boxes, want_scores = suppression.expected(xyxy[i], scores[i], threshold, iou)
        assert faces[i, : counts[i], :4].tobytes() == want_boxes.tobytes()
        assert faces[i, : counts[i], 4].tobytes() == want_scores.tobytes()


@pytest.mark.parametrize("layout", ["nv12", "yuv420p", "rgb24", "bgr24"])
@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_preprocessing_on_the_gpu_is_numpys_to_the_bit(gpu: Card, layout: str, turn: int) -> None:
    size, fitted = (131, 77), (54, 31) if turn % 2 == 0 else (31, 54)
    out = -(-fitted[0] // 32) * 32, -(-fitted[1] // 32) * 32
    data = np.random.default_rng(0).integers(0, 256, packed_bytes(layout, *size), dtype=np.uint8)
    output = np.zeros((3, out[1], out[0]), np.float16)
    norm, colours = pictures.NORM.row(), colour_table()
    frame = DeviceFrame.packed(layout, *size, gpu.put(data), 90 * turn)
    table = np.array([source_row(frame, fitted)], SOURCE)
    sources, rows, ranges, target = (gpu.put(a) for a in (table, norm, colours, output))
    preprocess(gpu.launcher(), 1, sources, ranges, rows, target, out)
    gpu.fetch()
    used = colours[0] if layout in ("nv12", "yuv420p") else None
    want = pictures.reference(pictures.full_planes(layout, data, *size), fitted, out, turn, used)
    assert output.tobytes() == want.tobytes()


@pytest.mark.parametrize("backend", sorted(MODULES))
def test_a_plan_finds_on_the_gpu_what_the_cpu_finds(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(MODULES[backend], reason=f"needs {MODULES[backend]}")
    if why := unsupported(library(backend), backend, current_device().gpu.capability):
        pytest.skip(why)
    source, out = WEIGHTS / "plainS.onnx", tmp_path / "plainS.plan"
    profile = Profile((1, 192, 320), (2, 384, 640), (4, 384, 640))
    compile_plan(backend, source, out, PlanOptions((profile,), progress=False), None, "build it")
    options = DetectorOptions()
    detectors = load_detector("plainS", options), load_detector(str(out), options)
    views = [view(rgb, (640, 384)) for rgb in demo_frames([30, 60, 90])]
    # Eagerly, captured, replayed.
    assert sum(found_alike(detectors, views, 0.4, 0.95) for _ in range(3)) > 9
    engine = detectors[1].pipeline.net.engine
    assert not float_convolutions(layers(library(backend), engine)), "the plan itself, not the graph it was made of"


@pytest.mark.parametrize("model", shipped())
def test_torch_finds_on_the_gpu_what_the_cpu_finds(model: str) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    detectors = load_detector(model, DetectorOptions()), load_detector(model, DetectorOptions(backend="torch"))
    for size, frames in (((640, 384), [30, 60, 90]), ((960, 544), [30]), ((640, 384), [90])):
        views = [view(rgb, size) for rgb in demo_frames(frames)]
        assert sum(found_alike(detectors, views, 0.4, 0.95) for _ in range(3)) > 3  # eagerly, captured, replayed
