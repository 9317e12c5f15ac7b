"""How long things take on a GPU: kernels alone, the net alone, and pictures a second through the whole loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from facestream.engines.base import DetectorOptions
from facestream.engines.cuda.driver import CudaDevice
from facestream.engines.cuda.frame import DeviceFrame, Normalisation, colour_row, cover, preprocess
from facestream.engines.cuda.kernels import nms, nms_workspace
from facestream.engines.cuda.pipeline import CoverStyle, GpuPipeline, Net
from facestream.engines.letterbox import fit
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
    return round(spent_ms(device, stream, lambda: device.replay(graph, stream), runs), 4)


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

        out[f"NMS of 3 x {boxes // 3} boxes, {name}"] = graph_ms(device, stream, work, runs)
    return out


def picture_ms(
    device: CudaDevice, runs: int, size: tuple[int, int] = (1920, 1080), fitted: tuple[int, int] = (640, 360)
) -> dict[str, float]:
    """A full-size picture made the net's input, and twenty faces covered in it."""
    stream = device.stream()
    launch, (width, height) = device.launcher(stream), size
    data = np.random.default_rng(0).integers(16, 236, width * height * 3 // 2, dtype=np.uint8)
    rows = np.concatenate([Normalisation((128.0,) * 3, (64.0,) * 3).row(), colour_row(False)])
    canvas = -(-fitted[0] // 32) * 32, -(-fitted[1] // 32) * 32
    source, table, output = (device.alloc(n) for n in (data.nbytes, rows.nbytes, 6 * canvas[0] * canvas[1]))
    device.upload(source, data, stream)
    device.upload(table, rows, stream)
    picture = DeviceFrame.packed("nv12", *size, source)
    shown, faces = f"{width}x{height}", [(x, y, x + side, y + side) for side, x, y in _faces(*size)]

    def cover_all() -> None:
        for face in faces:
            cover(launch, picture, face, 1.4, "ellipse", 8)

    def shrink() -> None:
        preprocess(launch, picture, fitted, table, table + 28, output, canvas)

    return {
        f"{shown} NV12 to {canvas[0]}x{canvas[1]}": graph_ms(device, stream, shrink, runs),
        f"{len(faces)} faces of {shown} NV12 covered": graph_ms(device, stream, cover_all, runs),
    }


def _faces(width: int, height: int) -> list[tuple[float, float, float]]:
    """Side, left and top of twenty faces."""
    return [(height / 27 * (1 + i % 4), width / 6 * (i % 5), height / 5 * (i // 5)) for i in range(20)]


def measure(
    device: CudaDevice, net: Net, norm: Normalisation, size: tuple[int, int], batch: int, runs: int
) -> dict[str, Any]:
    """Net alone, everything on the GPU, and pictures a second through the loop with its slots kept busy."""
    options = DetectorOptions()
    loop = GpuPipeline(device, net, norm, options.threshold, options.nms_iou)
    luma = np.random.default_rng(0).integers(16, 236, (size[1], size[0]), dtype=np.uint8)
    chroma = np.full((size[1] // 2, size[0] // 2, 2), 128, np.uint8)
    pictures = [HostFrame("nv12", (luma, chroma), size, *size)] * batch
    try:
        for _ in range(3):  # every slot: eagerly, captured, replayed
            for ticket in [loop.submit(pictures) for _ in loop.slots]:
                loop.result(ticket)
        slot = loop.slots[0]
        memory = {name: address for name, (address, _) in slot.memory.items()}
        outputs = [memory["counts"], memory["faces"]] if net.nms_inside else [memory["xyxy"], memory["scores"]]
        stream = slot.stream
        alone = spent_ms(device, stream, lambda: net.enqueue(slot.index, memory["input"], *outputs, stream), runs)
        canvas, ticket = slot.key[0], loop.submit(pictures)
        loop.result(ticket)
        if slot.graph is not None:
            whole = spent_ms(device, stream, lambda: device.replay(slot.graph, stream), runs)
        else:
            whole = spent_ms(device, stream, lambda: loop._work(slot, ticket, canvas), runs)
        began = perf_counter()
        for ticket in [loop.submit(pictures) for _ in range(runs)]:
            loop.result(ticket)
        fps = batch * runs / (perf_counter() - began)
        down = 4 + min(32, slot.boxes) * 20
    finally:
        loop.close()
    return {
        "net_ms": round(alone, 4), "gpu_ms": round(whole, 4), "fps": round(fps, 1), "down_bytes": down, "runs": runs
    }  # fmt: skip


def covered_fps(
    device: CudaDevice, net: Net, norm: Normalisation, runs: int, size: tuple[int, int] = (1920, 1080), batch: int = 4
) -> dict[str, float]:
    """Pictures a second from NV12 in memory to NV12 in memory, ten faces of each covered on the GPU in between."""
    options = DetectorOptions()
    loop, style = GpuPipeline(device, net, norm, options.threshold, options.nms_iou), CoverStyle()
    width, height = size
    rng = np.random.default_rng(0)
    planes = (rng.integers(16, 236, (height, width), dtype=np.uint8),
              rng.integers(16, 236, (height // 2, width // 2, 2), dtype=np.uint8))  # fmt: skip
    pictures = [HostFrame("nv12", planes, fit(*size, 640, 384), *size)] * batch
    faces = [np.float32([(x, y, x + side, y + side) for side, x, y in _faces(*size)[:10]])] * batch
    try:
        for warm in (True, False):
            began, waiting = perf_counter(), deque([loop.submit(pictures, keep=True)])
            for _ in range(3 if warm else runs):
                waiting.append(loop.submit(pictures, keep=True))
                loop.cover(waiting.popleft(), faces, style)
            loop.cover(waiting.popleft(), faces, style)
            spent = perf_counter() - began
    finally:
        loop.close()
    return {f"{width}x{height} NV12 detected at 640x384 and covered": round(batch * (runs + 1) / spent, 1)}
