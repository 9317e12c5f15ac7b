"""What the product does on a GPU, for benchmarks/gpu_check.py: files and eight cameras through its own loops, thousands
of random batches, and half precision against float32. Only the files need PyAV and msgspec."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from facestream.benchmarks.gpu_nets import Skipped
from facestream.engines.base import Detector, YuvDetector
from facestream.engines.build.parity import agreement, detection_errors
from facestream.engines.cuda.detector import GpuDetector, Pending
from facestream.engines.cuda.driver import CudaDevice
from facestream.engines.letterbox import fit, view
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections, HostFrame

ROOT = Path(__file__).parent.parent
CAMERAS = 8
MODEL = "plainS"
SCORE = 0.3  # of a face, where two detectors are compared
Save = Callable[[dict[str, Any]], None]


def best_detector(options: DetectorOptions) -> GpuDetector:
    """What `--backend cuda` takes here. Skipped where it takes nothing."""
    detector = load_detector(MODEL, options)
    if not isinstance(detector, GpuDetector):
        raise Skipped(f"runs on no GPU: {detector.chosen}")
    return detector


def film_frame(size: tuple[int, int], fitted: tuple[int, int], seed: int) -> HostFrame:
    """An NV12 frame of noise."""
    rng = np.random.default_rng(seed)
    width, height = size
    luma = rng.integers(16, 236, (height, width), dtype=np.uint8)
    chroma = rng.integers(16, 240, (height // 2, width // 2, 2), dtype=np.uint8)
    return HostFrame("nv12", (luma, chroma), fit(width, height, *fitted), width, height)


def cameras(detector: YuvDetector, save: Save, frames: int, size: tuple[int, int], fitted: tuple[int, int]) -> None:
    """Eight cameras that ask as fast as they are answered, through live's batching detector."""
    from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient

    shared_detector = BatchingDetector(detector, detector.batch, 0.005)
    clients = [DetectorClient(shared_detector, 600.0) for _ in range(CAMERAS)]
    pictures = [film_frame(size, fitted, i) for i in range(CAMERAS)]
    detector.warm_up(pictures)
    waits: list[float] = []
    errors: list[str] = []

    def work(i: int) -> None:
        try:
            for _ in range(frames):
                began = time.perf_counter()
                clients[i].detect_yuv([pictures[i]])
                waits.append(time.perf_counter() - began)
        except Exception as e:
            errors.append(f"{type(e).__name__}: {e}".splitlines()[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(CAMERAS)]
    shared_detector.start()
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    shared_detector.stop()
    shared_detector.join(60)
    if errors:
        raise RuntimeError(errors[0])
    low, high = np.percentile(waits, (50, 99)) * 1000
    found = {"cameras": CAMERAS, "frames": len(waits), "fps": round(len(waits) / spent, 1)}
    found |= {"wait_ms_median": round(float(low), 2), "wait_ms_99": round(float(high), 2)}
    if isinstance(detector, GpuDetector):
        counters = detector.pipeline.counters
        found |= {"batches": counters.batches, "replays": counters.replays}
    save({"cameras": found})


def files(detector: Detector, save: Save, clips: list[Path]) -> None:
    """Real files through the job that `facestream detect` runs."""
    try:
        from facestream.pipeline.config import Config
        from facestream.pipeline.run import Job, run
    except ModuleNotFoundError as e:
        save({"files": f"skipped: {e.name} is not installed"})
        return
    found = {}
    for clip in clips:
        report = run(Job(str(clip), None), Config(), detector, progress=False)
        found[clip.name] = {"frames": report.frames, "fps": round(report.frames / max(report.seconds, 1e-9), 1)}
        save({"files": found})


def clips() -> list[Path]:
    """The bundled clip, and what lies in FACESTREAM_CLIPS."""
    more = os.environ.get("FACESTREAM_CLIPS")
    return [ROOT / "tools/demo.mp4", *(sorted(Path(more).glob("*.mp4")) if more else [])]


def leak(
    device: CudaDevice, detector: GpuDetector, save: Save, batches: int, sizes: tuple[tuple[int, int], ...],
    fitted: tuple[int, int],
) -> None:  # fmt: skip
    """Random batches of one to eight cameras of two sizes, two on their way; memory before and after."""
    frames = [film_frame(size, fitted, i) for i, size in enumerate(sizes)]
    for frame in frames:
        detector.warm_up([frame] * CAMERAS)
    rng, waiting = np.random.default_rng(0), deque[Pending]()
    pipeline = detector.pipeline
    counted = pipeline.counters.batches, pipeline.counters.replays
    before = _memory(device)
    began = time.perf_counter()
    for turn in range(batches):
        picked = [frames[i] for i in rng.integers(len(frames), size=rng.integers(1, CAMERAS + 1))]
        waiting.append(detector.submit(picked))
        if len(waiting) == detector.in_flight:
            detector.collect(waiting.popleft())
        if turn % 200 == 199:
            save({"leak": _leak_report(before, _memory(device), turn + 1, time.perf_counter() - began)})
    while waiting:
        detector.collect(waiting.popleft())
    found = _leak_report(before, _memory(device), batches, time.perf_counter() - began)
    submitted, replayed = pipeline.counters.batches - counted[0], pipeline.counters.replays - counted[1]
    save({"leak": found | {"replayed_share": round(replayed / max(1, submitted), 4)}})


def _memory(device: CudaDevice) -> dict[str, float]:
    free = getattr(device, "free_memory", None)
    host_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"gpu_free_mb": round(free() / 2**20, 1) if free else 0.0, "host_peak_mb": round(host_mb, 1)}


def _leak_report(before: dict[str, float], after: dict[str, float], batches: int, seconds: float) -> dict[str, Any]:
    return {"batches": batches, "seconds": round(seconds, 1), "before": before, "after": after}


def accuracy(gpu: Detector, save: Save, count: int, size: tuple[int, int], model: str = MODEL) -> None:
    """A detector on the GPU against the same model in float32 on the CPU: boxes, scores and AP.

    The pictures are the labelled ones in FACESTREAM_PICTURES (WIDER's layout), else frames of the bundled clip.
    """
    pictures, truth = labelled(count, size)
    reference = load_detector(model, DetectorOptions(threshold=gpu.options.threshold))
    batches = [p[None] for p in pictures]
    found: dict[str, Any] = {"pictures": len(pictures), **detection_errors(reference, gpu, batches)}
    found |= {f"confident_{key}": value for key, value in _confident(reference, gpu, batches).items()}
    save({"accuracy": found})
    try:
        from facestream.train.wider import evaluate
    except ModuleNotFoundError as e:
        save({"accuracy": found | {"ap": f"skipped: {e.name} is not installed"}})
        return
    for name, detector in (("float32", reference), ("gpu", gpu)):
        faces = [detector.detect([view(p)])[0] for p in pictures]
        curve = evaluate(faces, truth, [np.zeros(len(t), bool) for t in truth])
        found[f"ap_{name}"] = round(curve.ap, 4)
        save({"accuracy": found})


def _confident(reference: Detector, gpu: Detector, batches: list[Any]) -> dict[str, float]:
    """`agreement` on the confident faces."""

    class Sure(Detector):
        def __init__(self, inner: Detector) -> None:
            super().__init__(inner.options)
            self.inner = inner

        def infer(self, images: Any) -> Any:
            return self.inner.infer(images)

        def detect(self, images: Any, coarsest: bool = True) -> Any:
            return [found.filter_by_score(SCORE) for found in self.inner.detect(images)]

    return agreement(Sure(reference), Sure(gpu), batches)


def labelled(count: int, size: tuple[int, int]) -> tuple[list[Any], list[Any]]:
    """Pictures, shrunk into `size` and filled up to multiples of 32, with the faces in them, xyxy float32."""
    from facestream.engines.letterbox import pad

    folder = os.environ.get("FACESTREAM_PICTURES")
    if folder:
        from facestream.train.data import read_image
        from facestream.train.wider import read_validation

        items = next(reversed(read_validation(Path(folder)).values()))
        items = items[:: max(1, len(items) // count)][:count]
        pairs = [(read_image(item.path), item.xyxy) for item in items]
    else:
        sys.path.insert(0, str(ROOT))
        from tests.pack import demo_frames, demo_truth

        faces = demo_truth()
        indices = [i for i in sorted(faces) if i < 148][: max(1, min(count, 148))]
        pairs = [(rgb, faces[i]) for i, rgb in zip(indices, demo_frames(indices), strict=True)]
    pictures, truth = [], []
    for rgb, boxes in pairs:
        image = view(rgb, size)
        pictures.append(pad(image.rgb))
        truth.append((np.asarray(boxes) * (image.rgb.shape[1] / rgb.shape[1])).astype(np.float32))
    return pictures, truth


def pycuda(save: Save) -> None:
    """PyCUDA's part of the device: memory, streams and events in three threads, with one of our kernels between."""
    try:
        from facestream.engines.cuda.pycuda_device import PycudaDevice

        device = PycudaDevice()
    except ImportError as e:
        raise Skipped(f"PyCUDA is not usable ({str(e).splitlines()[0][:120]})") from None
    done: list[str] = []
    for name in ("main thread", "second thread", "third thread"):
        problems: list[BaseException] = []

        def work(problems: list[BaseException] = problems) -> None:
            try:
                _suppress(device)
            except BaseException as e:
                problems.append(e)

        if name == "main thread":
            work()
        else:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        if problems:
            raise problems[0]
        done.append(name)
        save({"pycuda": ", ".join(done) + ": well"})


def _suppress(device: CudaDevice) -> None:
    """Boxes up, NMS, faces down, and compared with numpy's."""
    from facestream.engines.cuda.kernels import nms, nms_workspace

    device.enter()
    rng, boxes = np.random.default_rng(0), 200
    corner = rng.uniform(0, 300, (boxes, 2))
    xyxy = np.concatenate([corner, corner + rng.uniform(20, 60, corner.shape)], 1).astype(np.float32)
    scores = rng.uniform(0.1, 1, boxes).astype(np.float32)
    stream, event = device.stream(), device.event()
    sizes = (xyxy.nbytes, scores.nbytes, nms_workspace(1), 4, 20 * boxes)
    addresses = [device.alloc(size) for size in sizes]
    host = device.pinned(sum(sizes[:2]) + sizes[3] + sizes[4])
    host[: sizes[0]] = xyxy.view(np.uint8).ravel()
    host[sizes[0] : sizes[0] + sizes[1]] = scores.view(np.uint8)
    counts = host[sizes[0] + sizes[1] :][:4]
    faces = host[sizes[0] + sizes[1] + 4 :]
    device.upload(addresses[0], host[: sizes[0]], stream)
    device.upload(addresses[1], host[sizes[0] :][: sizes[1]], stream)
    nms(device.launcher(stream), 1, boxes, 0.1, 0.3, *addresses)
    device.download(counts, addresses[3], stream)
    device.download(faces, addresses[4], stream)
    device.record(event, stream)
    device.wait(event)
    want = Detections(xyxy, scores).nms(0.3).xyxy
    kept = int(counts.view(np.int32)[0])
    same = kept == len(want) and (faces.view(np.float32).reshape(-1, 5)[:kept, :4] == want).all()
    for address in addresses:
        device.free(address)
    device.free_pinned(host)
    device.free_event(event)
    device.free_stream(stream)
    if not same:
        raise RuntimeError(f"{kept} faces are left, numpy leaves {len(want)}")
