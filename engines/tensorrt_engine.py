"""SSH as a plan of TensorRT or TensorRT-RTX on an NVIDIA GPU, behind the same interface as on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facestream.engines.build.sidecar import Profile, Sidecar
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.cuda.devices import current_device, index_of
from facestream.engines.cuda.pipeline import GpuPipeline, Needs, Shape
from facestream.engines.errors import EngineMismatch
from facestream.engines.options import DetectorOptions
from facestream.engines.tensorrt_library import library, logger, unsupported


class PlanNet:
    """A plan's execution contexts, one for each shape in each slot, since what a graph was captured from must stay as
    it was. They have no memory of their own: those of a slot share its scratch. `cuda.pipeline.Net`."""

    def __init__(
        self, trt: Any, engine: Any, profiles: tuple[Profile, ...], nms_inside: bool, cache: Path | None = None
    ) -> None:
        self.trt = trt
        self.engine = engine
        self.profiles = profiles
        self.nms_inside = nms_inside
        self.max_batch = max(profile.max[0] for profile in profiles)
        self.outputs = ("counts", "faces") if nms_inside else ("xyxy", "scores")
        self.contexts: dict[tuple[int, Shape], Any] = {}
        self.scratch: dict[tuple[int, Shape], int] = {}
        self.new: set[tuple[int, Shape]] = set()  # not run yet
        self.settings = RuntimeSettings(trt, engine, cache)

    def canvas(self, images: int, width: int, height: int) -> tuple[int, int]:
        return canvas_of(self.profiles, images, width, height)

    def prepare(self, slot: int, shape: Shape, stream: Any) -> Needs:
        context = self.settings.context()
        if context is None:
            raise EngineMismatch("no execution context can be made", "plan", "is the GPU's memory full? see nvidia-smi")
        n, width, height = shape
        index = next(i for i, p in enumerate(self.profiles) if p.holds(n, height, width))
        if context.active_optimization_profile != index:
            _must(context.set_optimization_profile_async(index, int(stream)), f"optimization profile {index}")
        _must(context.set_input_shape("images", (n, 3, height, width)), f"an input of {n}x{width}x{height}")
        missing = context.infer_shapes()
        if missing:
            raise EngineMismatch(f"shapes of {', '.join(missing)} are not known", "plan", "rebuild the plan")
        self.contexts[slot, shape] = context
        self.new.add((slot, shape))
        self.scratch[slot, shape] = int(context.update_device_memory_size_for_shapes())
        return Needs(int(context.get_tensor_shape(self.outputs[1])[1]), self.scratch[slot, shape])

    def enqueue(self, slot: int, shape: Shape, images: int, first: int, second: int, scratch: int, stream: Any) -> None:
        context = self.contexts[slot, shape]
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(scratch, self.scratch[slot, shape])
        else:  # TensorRT 10.0
            context.device_memory = scratch
        for name, address in zip(("images", *self.outputs), (images, first, second), strict=True):
            _must(context.set_tensor_address(name, address), f"the address of {name}")
        _must(context.execute_async_v3(int(stream)), "to be run")
        if (slot, shape) in self.new:
            self.new.remove((slot, shape))
            self.settings.keep()

    def capturable(self, slot: int, shape: Shape, stream: Any) -> bool:
        query = getattr(self.contexts[slot, shape], "is_stream_capturable", None)  # RTX compiles kernels as shapes come
        return query is None or bool(query(int(stream)))

    def forget(self, slot: int, shape: Shape) -> None:
        self.contexts.pop((slot, shape), None)
        self.scratch.pop((slot, shape), None)
        self.new.discard((slot, shape))


def _must(done: bool, what: str) -> None:
    """Raise TensorRT's errors: it reports failure by return values, and the reason in its log."""
    if not done:
        raise EngineMismatch(f"the plan refuses {what}", "plan", "rebuild it with build_engine.py")


class RuntimeSettings:
    """How a plan's contexts are made. TensorRT-RTX compiles a plan's kernels on the GPU: all that a shape needs when it
    first comes, so that no later batch waits for it and a graph can be captured; and what was compiled is kept in the
    file `cache` for the next start."""

    def __init__(self, trt: Any, engine: Any, cache: Path | None) -> None:
        self.engine = engine
        self.path = cache
        self.kept = b""
        self.config: Any = None
        self.cache: Any = None
        self.strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            return  # full TensorRT
        self.config = engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(self.strategy)
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self.config.dynamic_shapes_kernel_specialization_strategy = eager
        self.config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED  # the pipeline captures more than the net
        if cache is not None:
            self.cache = self.config.create_runtime_cache()
            if cache.is_file():
                self.kept = cache.read_bytes()
                if not self.cache.deserialize(self.kept):
                    self.kept = b""  # of another version or GPU: it is written anew
            _must(self.config.set_runtime_cache(self.cache), "its runtime cache")

    def context(self) -> Any:
        how = self.strategy if self.config is None else self.config
        return self.engine.create_execution_context(how)

    def keep(self) -> None:
        """Save kernels compiled since."""
        if self.cache is None or self.path is None:
            return
        data = bytes(memoryview(self.cache.serialize()))
        if len(data) != len(self.kept):
            self.kept = data
            part = self.path.with_name(self.path.name + ".part")
            try:
                part.write_bytes(data)
                part.replace(self.path)
            except OSError:
                self.cache = None  # a folder that cannot be written to costs time at the next start and nothing else


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
        limits = "; ".join(f"{p.max[0]}x{p.max[2]}x{p.max[1]}" for p in profiles)
        raise EngineMismatch(f"takes no {asked}", "plan", f"at most {limits}; give build_engine.py another --profile")
    return best


class TensorRTDetector(GpuDetector):
    """A plan and its sidecar, written by `build_engine.py --backend tensorrt|rtx`."""

    def __init__(self, path: Path, options: DetectorOptions) -> None:
        sidecar = Sidecar.read(path)
        trt = library(sidecar.backend)
        device = current_device(index_of(options.device))
        data = path.read_bytes()
        sidecar.check(path, data, trt.__version__, device.gpu)
        if why := unsupported(trt, sidecar.backend, device.gpu.capability):
            raise EngineMismatch(why, str(path), "use --backend tensorrt or torch on this GPU")
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
        net = PlanNet(trt, engine, sidecar.profiles, sidecar.nms_iou is not None, path.with_name(path.name + ".cache"))
        pipeline = GpuPipeline(device, net, sidecar.normalisation, options.threshold, options.nms_iou)
        super().__init__(pipeline, net.max_batch, options)
