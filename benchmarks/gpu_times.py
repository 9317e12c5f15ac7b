"""How long things take on a GPU: kernels alone, the net alone, and pictures a second through the whole loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.cuda.driver import CudaDevice
from facestream.engines.cuda.frame import SOURCE, DeviceFrame, Normalisation, colour_table, preprocess, source_row
from facestream.engines.cuda.kernels import nms, nms_workspace
from facestream.engines.cuda.pipeline import GpuPipeline, Net, Ticket
from facestream.engines.options import DetectorOptions
from facestream.engines.types import HostFrame

PEAKS = {"H200": (790.0, 4.3), "H100": (790.0, 3.0)}  # TFLOP/s in half precision and TB/s that such GPUs reach


def ideal_ms(gpu: str, work: tuple[float, float], batch: int) -> float | None:
    for name, (tflops, tbs) in PEAKS.items():
        if name in gpu:
            return batch * max(work[0] / tflops, work[1] / tbs)
    return None


def spent_ms(device: CudaDevice, stream: Any, work: Callable[[], None], runs: int) -> float:
    """The median time on the GPU of what `work` puts into the stream."""
    times, events = [], (device.event(), device.event())
    for turn in range(runs + 5):
        device.record(events[0], stream)
        work()
        device.record(events[1], stream)
        device.wait(events[1])
        if turn >= 5:
            times.append(device.elapsed_ms(*events))
    return median(times)


def graph_ms(device: CudaDevice, stream: Any, work: Callable[[], None], runs: int) -> float:
    """The same of work captured into a graph, so that Python's launches do not count."""
    work()
    graph = device.capture(stream, work)
    spent = round(spent_ms(device, stream, lambda: device.replay(graph, stream), runs), 4)
    device.free_graph(graph)
    return spent


def nms_ms(device: CudaDevice, runs: int, boxes: int = 3000) -> dict[str, float]:
    """NMS of so many boxes of one picture as detectors make them, and with every box kept."""
    rng, stream = np.random.default_rng(0), device.stream()
    launch, out = device.launcher(stream), {}
    corner = rng.uniform(0, 1500, (1, boxes // 50, 2)).repeat(50, 1) + rng.normal(0, 6, (1, boxes // 50 * 50, 2))
    clusters = np.concatenate([corner, corner + rng.uniform(20, 60, corner.shape)], 2).astype(np.float32)
    at = np.arange(clusters.shape[1], dtype=np.float32)
    separate = np.stack([at * 10, at * 0, at * 10 + 9, at * 0 + 9], 1)[None]
    for name, xyxy in (("clusters", clusters), ("all kept", np.ascontiguousarray(separate))):
        scores = rng.uniform(0.05, 1, xyxy.shape[:2]).astype(np.float32)
        sizes = (xyxy.nbytes, scores.nbytes, nms_workspace(1), 4, 20 * scores.size)
        addresses = [device.alloc(size) for size in sizes]
        for address, array in zip(addresses, (xyxy, scores), strict=False):
            device.upload(address, array, stream)

        def work(n: int = scores.size, addresses: list[int] = addresses) -> None:
            nms(launch, 1, n, 0.02, 0.3, *addresses)

        out[f"NMS of 3 x {boxes // 3} boxes, {name}"] = graph_ms(device, stream, work, runs)
    return out


def frame_ms(
    device: CudaDevice, runs: int, size: tuple[int, int] = (1920, 1080), fitted: tuple[int, int] = (640, 360)
) -> dict[str, float]:
    """A full-size frame, and eight of them, made the net's input."""
    stream = device.stream()
    launch, (width, height) = device.launcher(stream), size
    data = np.random.default_rng(0).integers(16, 236, width * height * 3 // 2, dtype=np.uint8)
    colours, norm = colour_table(), Normalisation((128.0,) * 3, (64.0,) * 3).row()
    canvas = -(-fitted[0] // 32) * 32, -(-fitted[1] // 32) * 32
    found = {}
    for images in (1, 8):
        source = device.alloc(data.nbytes)
        frame = DeviceFrame.packed("nv12", *size, source)
        table = np.array([source_row(frame, fitted)] * images, SOURCE)
        arrays = (data, table, colours, norm)
        addresses = [
            source,
            *(device.alloc(a.nbytes) for a in arrays[1:]),
            device.alloc(6 * images * canvas[0] * canvas[1]),
        ]
        for address, array in zip(addresses, arrays, strict=False):
            device.upload(address, array, stream)

        def shrink(images: int = images, addresses: list[int] = addresses) -> None:
            preprocess(launch, images, *addresses[1:], canvas)

        found[f"{images} of {width}x{height} NV12 to {canvas[0]}x{canvas[1]}"] = graph_ms(device, stream, shrink, runs)
        for address in addresses:
            device.free(address)
    return found


def measure(
    device: CudaDevice, net: Net, norm: Normalisation, size: tuple[int, int], batch: int, runs: int
) -> dict[str, Any]:
    """Net alone, everything on the GPU, and pictures a second through the loop with its slots kept busy."""
    options = DetectorOptions()
    loop = GpuPipeline(device, net, norm, options.threshold, options.nms_iou)
    luma = np.random.default_rng(0).integers(16, 236, (size[1], size[0]), dtype=np.uint8)
    chroma = np.full((size[1] // 2, size[0] // 2, 2), 128, np.uint8)
    frames = [HostFrame("nv12", (luma, chroma), size, *size)] * batch
    try:
        for _ in range(3):  # every slot: eagerly, captured, replayed
            for ticket in [loop.submit(frames) for _ in loop.slots]:
                loop.result(ticket)
        slot, shape = loop.slots[0], loop.shape_of(frames)
        prepared = slot.shapes[shape]
        outputs = [slot.at(name) for name in (("counts", "faces") if net.nms_inside else ("xyxy", "scores"))]
        given = (slot.index, shape, slot.at("input"), *outputs, slot.at("scratch"), slot.stream)
        alone = spent_ms(device, slot.stream, lambda: net.enqueue(*given), runs)
        if prepared.graph is not None:
            whole = spent_ms(device, slot.stream, lambda: device.replay(prepared.graph, slot.stream), runs)
        else:
            whole = spent_ms(device, slot.stream, lambda: loop._work(slot, shape, prepared.needs), runs)
        began = perf_counter()
        waiting: deque[Ticket] = deque()
        for _ in range(runs):  # as many on their way at once as the product has
            waiting.append(loop.submit(frames))
            if len(waiting) == GpuDetector.in_flight:
                loop.result(waiting.popleft())
        while waiting:
            loop.result(waiting.popleft())
        fps = batch * runs / (perf_counter() - began)
        down = 4 + min(32, prepared.needs.boxes) * 20
    finally:
        loop.close()
    return {
        "net_ms": round(alone, 4), "gpu_ms": round(whole, 4), "fps": round(fps, 1), "down_bytes": down, "runs": runs
    }  # fmt: skip
