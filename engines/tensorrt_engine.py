"""SSH as a plan of TensorRT or TensorRT-RTX on an NVIDIA GPU, behind the same interface as on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facestream.engines.base import DetectorOptions
from facestream.engines.build.sidecar import Profile, Sidecar
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.cuda.devices import current_device
from facestream.engines.cuda.pipeline import GpuPipeline
from facestream.engines.errors import EngineMismatch
from facestream.engines.tensorrt_library import library, logger


class PlanNet:
    """A plan's execution contexts, one a slot. `gpu_pipeline.Net`."""

    def __init__(self, trt: Any, engine: Any, profiles: tuple[Profile, ...], nms_inside: bool) -> None:
        self.trt, self.engine, self.profiles, self.nms_inside = trt, engine, profiles, nms_inside
        self.outputs = ("counts", "faces") if nms_inside else ("xyxy", "scores")
        self.contexts: dict[int, Any] = {}

    def canvas(self, pictures: int, width: int, height: int) -> tuple[int, int]:
        return canvas_of(self.profiles, pictures, width, height)

    def prepare(self, slot: int, pictures: int, width: int, height: int, stream: Any) -> int:
        if slot not in self.contexts:
            # Memory for the shapes in use, not for the largest that any profile holds.
            self.contexts[slot] = self.engine.create_execution_context(
                self.trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
            )
        context = self.contexts[slot]
        index = next(i for i, p in enumerate(self.profiles) if p.holds(pictures, height, width))
        if context.active_optimization_profile != index:
            context.set_optimization_profile_async(index, int(stream))
        context.set_input_shape("images", (pictures, 3, height, width))
        missing = context.infer_shapes()
        if missing:
            raise EngineMismatch(f"shapes of {', '.join(missing)} are not known", "plan", "rebuild the plan")
        return int(context.get_tensor_shape(self.outputs[1])[1])

    def enqueue(self, slot: int, images: int, first: int, second: int, stream: Any) -> None:
        context = self.contexts[slot]
        for name, address in zip(("images", *self.outputs), (images, first, second), strict=True):
            context.set_tensor_address(name, address)
        if not context.execute_async_v3(int(stream)):
            raise EngineMismatch("the plan did not run", "plan", "rebuild it with build_engine.py")

    def capturable(self, slot: int, stream: Any) -> bool:
        ask = getattr(self.contexts[slot], "is_stream_capturable", None)  # RTX compiles kernels as shapes come
        return ask is None or bool(ask(int(stream)))


def canvas_of(profiles: tuple[Profile, ...], pictures: int, width: int, height: int) -> tuple[int, int]:
    """The smallest (width, height), multiples of 32, that holds the pictures and that a profile takes."""
    best: tuple[int, int] | None = None
    for profile in profiles:
        high = max(profile.min[1], -(-height // 32) * 32)
        wide = max(profile.min[2], -(-width // 32) * 32)
        if profile.holds(pictures, high, wide):
            best = min(best or (wide, high), (wide, high), key=lambda size: size[0] * size[1])
    if best is None:
        asked = f"{pictures}x{width}x{height}"
        held = "; ".join(f"{p.max[0]}x{p.max[2]}x{p.max[1]}" for p in profiles)
        raise EngineMismatch(f"takes no {asked}", "plan", f"at most {held}; give build_engine.py another --profile")
    return best


class TensorRTDetector(GpuDetector):
    """A plan and its sidecar, written by `build_engine.py --backend tensorrt|rtx`."""

    def __init__(self, path: Path, options: DetectorOptions) -> None:
        sidecar = Sidecar.read(path)
        trt = library(sidecar.backend)
        device = current_device()
        data = path.read_bytes()
        sidecar.check(path, data, trt.__version__, device.gpu)
        if sidecar.nms_iou is not None and sidecar.nms_iou != options.nms_iou:
            raise EngineMismatch(
                f"has an NMS of {sidecar.nms_iou} inside, detector.nms_iou is {options.nms_iou}", str(path),
                f"change the setting, or rebuild with --nms-iou {options.nms_iou}",
            )  # fmt: skip
        if sidecar.nms_threshold is not None and options.threshold < sidecar.nms_threshold:
            raise EngineMismatch(f"gives no scores below {sidecar.nms_threshold}", str(path), "raise the threshold")
        if sidecar.backend == "tensorrt":
            from facestream.engines.cuda.nms_plugin import make

            make(trt)
        log = logger(trt)
        self.runtime = trt.Runtime(log)
        if sidecar.portable:
            self.runtime.engine_host_code_allowed = True
        engine = self.runtime.deserialize_cuda_engine(data)
        if engine is None:
            why = (log.errors or ["no reason given"])[0]
            raise EngineMismatch(f"the plan does not load: {why}", str(path), f"rebuild: {sidecar.command}")
        net = PlanNet(trt, engine, sidecar.profiles, sidecar.nms_iou is not None)
        loop = GpuPipeline(device, net, sidecar.normalisation, options.threshold, options.nms_iou)
        super().__init__(loop, max(profile.max[0] for profile in sidecar.profiles), options)
