"""TensorRT build: compiles a half-precision ONNX graph into a plan for TensorRT 10 or 11, or for TensorRT-RTX, which
needs no GPU for building."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from facestream.engines.base import Detector
from facestream.engines.boxes import Array
from facestream.engines.build.gate import COMPARED, check_fp16, check_int8
from facestream.engines.build.parity import (
    FARTHEST,
    SCORE_TOLERANCE,
    detection_errors,
    patches,
    too_few,
)
from facestream.engines.build.sidecar import Profile, Sidecar, digest
from facestream.engines.cuda.devices import current_device, index_of
from facestream.engines.cuda.driver import find_gpu
from facestream.engines.cuda.kernels import source_hash
from facestream.engines.errors import BadConfig, EngineMismatch
from facestream.engines.tensorrt_library import library, logger
from tqdm import tqdm

GPU_SCORE_TOLERANCE = FARTHEST * SCORE_TOLERANCE  # of a plan on a GPU
# Landscape and portrait, 320x192 to 1664x1280; both are needed since views are turned with the picture.
PROFILES = (
    Profile((1, 192, 320), (4, 384, 640), (8, 1280, 1664)),
    Profile((1, 320, 192), (4, 640, 384), (8, 1664, 1280)),
)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """precision: fp16 or int8, the latter with photographs to calibrate on.

    portable: newer versions and all GPUs from Ampere on may load it, at some cost in speed (tensorrt only).

    nms_iou, nms_threshold: of the NMS inside the plan (tensorrt only). Boxes that the threshold lets through and the
    caller does not want can be dropped afterwards: greedy suppression never lets a worse box touch a better one.
    timing_cache: file in which measured kernels are kept for the next build. device: the GPU that tensorrt builds on.
    """

    profiles: tuple[Profile, ...] = PROFILES
    precision: str = "fp16"
    portable: bool = False
    nms_iou: float = 0.3
    nms_threshold: float = 0.02
    timing_cache: Path | None = None
    device: str = "cuda:0"
    progress: bool = True


def compile_plan(
    backend: str, source: Path, out: Path, options: PlanOptions, pictures: list[Array] | None, command: str
) -> dict[str, Any]:
    """Write the plan of a float32 graph and its sidecar, and say what was built.

    The graph that the plan is made of is held against the float32 one on the CPU first. EngineMismatch when in half
    precision it is not `within_tolerance`, and in int8 when it finds less than AGREEMENT of the faces. pictures: uint8
    [N, H, W, 3] to measure the net's range and compare with; int8 needs them (BadConfig).
    """
    from facestream.engines.build.fp16 import to_fp16
    from facestream.engines.build.int8 import quantise

    trt = library(backend)
    if options.precision == "int8":
        if not pictures:
            raise BadConfig("int8 needs photographs of the kind it will see", "--calibrate", "give a folder")
        graph, normalisation, peak = quantise(source, pictures)
        parity = check_int8(source, graph, normalisation, pictures)
    else:
        graph, normalisation, peak = to_fp16(source, pictures)
        parity = check_fp16(source, graph, normalisation, pictures)
    plan = build_plan(backend, graph, options)
    hashes = {"plan": digest(plan), "weights": digest(source.read_bytes()), "onnx": digest(graph)}
    sidecar = Sidecar(
        backend=backend,
        library=trt.__version__,
        gpu=find_gpu(index_of(options.device))
        if backend == "tensorrt"
        else None,  # RTX settles for the GPU when it loads the plan
        precision=options.precision,
        profiles=options.profiles,
        normalisation=normalisation,
        portable=options.portable,
        nms_iou=options.nms_iou if backend == "tensorrt" else None,
        nms_threshold=options.nms_threshold if backend == "tensorrt" else None,
        hashes=hashes | {"kernels": source_hash()},
        command=command,
    )
    part = out.with_name(out.name + ".part")
    part.write_bytes(plan)
    sidecar.write(out)
    part.replace(out)
    built = {"file": str(out), "backend": backend, "library": trt.__version__, "bytes": len(plan)}
    built |= {"precision": options.precision, "largest_value": round(peak, 2), "scale": normalisation.scale}
    return {**built, **parity}


def verify_plan(
    reference: Detector, plan: Detector, size: tuple[int, int], precision: str, pictures: list[Array] | None
) -> dict[str, float]:
    """`detection_errors` of the float32 graph on the CPU and its plan on a GPU, on photographs or random patches of the
    size `size` (width, height). EngineMismatch above BOX_TOLERANCE or GPU_SCORE_TOLERANCE or under AGREEMENT; int8 is
    held to the latter alone."""
    made = pictures[:: max(1, len(pictures) // COMPARED)] if pictures else patches()
    sized = [cv2.resize(p[0], size, interpolation=cv2.INTER_AREA)[None] for p in made]
    found = detection_errors(reference, plan, sized)
    if precision != "int8" and (found["box_error"] > 1 or found["score_error"] > GPU_SCORE_TOLERANCE):
        raise EngineMismatch(f"the plan says other boxes than the graph: {found}", "plan", "do not use it")
    if not found["faces_compared"]:
        raise EngineMismatch(too_few(found, "the plan"), "plan", "give photographs of faces with --calibrate")
    if what := too_few(found, "the plan"):
        raise EngineMismatch(what, "plan", "do not use it")
    return found


def build_plan(backend: str, graph: bytes, options: PlanOptions) -> bytes:
    """Compile the graph of fp16.to_fp16. For tensorrt the plan returns `counts` int32 [N] and `faces` float32
    [N, K, 5], after NMS by `nms_plugin`; for rtx, which takes no plugins, `xyxy` [N, K, 4] and `scores` [N, K].

    BadConfig without the library, EngineMismatch when it finds no GPU (tensorrt needs one) or refuses the graph.
    """
    trt = library(backend)
    log = logger(trt)
    index = index_of(options.device)
    if backend == "tensorrt" and find_gpu(index) is not None:
        current_device(index).enter()  # the builder takes the calling thread's
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError):
        builder = None
    if not builder:
        why = log.errors[0] if log.errors else "no NVIDIA GPU or driver here"
        do = "build where it will run, or use --backend rtx, which needs none"
        raise EngineMismatch(why, f"--backend {backend}", do)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        raise EngineMismatch(f"cannot parse the graph: {parser.get_error(0).desc()}", f"--backend {backend}")
    if backend == "tensorrt":
        _add_nms(trt, network, options)
    config = builder.create_builder_config()
    for profile in options.profiles:
        shapes = builder.create_optimization_profile()
        shapes.set_shape("images", *((n, 3, h, w) for n, h, w in (profile.min, profile.opt, profile.max)))
        config.add_optimization_profile(shapes)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layers keep their names and types for inspection
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # RTX allocates while it runs otherwise: no CUDA graph
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.portable:
        if backend != "tensorrt":
            raise BadConfig("RTX plans fit every GPU from Ampere on as they are", "--portable")
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    cache = _timing_cache(config, options.timing_cache) if backend == "tensorrt" else None
    monitor = _progress(trt) if options.progress else None
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor is not None:
        monitor.close()
    if plan is None:
        raise EngineMismatch((log.errors or ["the build failed"])[0], f"--backend {backend}")
    if cache is not None and options.timing_cache is not None:
        part = options.timing_cache.with_name(options.timing_cache.name + ".part")
        part.write_bytes(bytes(memoryview(cache.serialize())))
        os.replace(part, options.timing_cache)
    return bytes(memoryview(plan))


def _add_nms(trt: Any, network: Any, options: PlanOptions) -> None:
    from facestream.engines.cuda.nms_plugin import make

    boxes = [network.get_output(i) for i in range(2)]
    for tensor in boxes:
        network.unmark_output(tensor)
    plugin = make(trt).create(options.nms_threshold, options.nms_iou)
    layer = network.add_plugin_v3(boxes, [], plugin)
    for i, name in enumerate(("counts", "faces")):
        layer.get_output(i).name = name
        network.mark_output(layer.get_output(i))


def _timing_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    config.set_timing_cache(cache, False)  # of another version or GPU: an empty one is used instead
    return config.get_timing_cache()


def _progress(trt: Any) -> Any:
    """Shows the outermost phase of a build as a bar, on a terminal only."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.bar: tqdm | None = None
            self.phase = ""

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None and self.bar is None:
                self.phase = phase_name
                self.bar = tqdm(total=num_steps, desc=phase_name, unit="step", disable=None, leave=False)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if self.bar is not None and phase_name == self.phase:
                self.bar.update()
            return True

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self.phase:
                self.close()

        def close(self) -> None:
            if self.bar is not None:
                self.bar.close()
            self.bar = None

    return Monitor()


def layers(trt: Any, engine: Any) -> list[dict[str, Any]]:
    """What TensorRT says of each layer of a plan that is loaded: the plan itself, not the network that it was made of.
    Names, types and formats are in it, since plans are built with them (profiling_verbosity)."""
    inspector = engine.create_engine_inspector()
    report = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return [layer if isinstance(layer, dict) else {"Name": layer} for layer in report.get("Layers", [])]


def float_convolutions(found: list[dict[str, Any]]) -> list[str]:
    """Names of a plan's convolutions whose input is float32, which nothing in a plan of ours should be."""
    return [
        str(layer.get("Name"))
        for layer in found
        if "conv" in str(layer.get("LayerType", "")).lower()
        and any("float" in str(tensor.get("Format/Datatype", "")).lower() for tensor in layer.get("Inputs", []))
        and not any("half" in str(t.get("Format/Datatype", "")).lower() for t in layer.get("Inputs", []))
    ]


def profiles_of(texts: tuple[str, ...]) -> tuple[Profile, ...]:
    """ "1x320x192,4x640x384,8x1664x1280" (batch x width x height) -> a Profile. BadConfig when it is not like that."""
    made = []
    for text in texts:
        try:
            parts = [tuple(int(v) for v in part.split("x")) for part in text.split(",")]
            smallest, tuned, largest = ((n, h, w) for n, w, h in parts)
        except ValueError:
            raise BadConfig(f"{text!r} is not like 1x320x192,4x640x384,8x1664x1280", "--profile") from None
        rising = all(0 < a <= b <= c for a, b, c in zip(smallest, tuned, largest, strict=True))
        if not rising or any(v % 32 for shape in (smallest, tuned, largest) for v in shape[1:]):
            raise BadConfig(f"{text!r} must rise, with sides that are multiples of 32", "--profile")
        made.append(Profile(smallest, tuned, largest))
    return tuple(made)
