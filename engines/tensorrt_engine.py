"""SSH as a plan of TensorRT or TensorRT-RTX on an NVIDIA card, behind the same interface as on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.engines.card_loop import CardLoop, Ticket
from facestream.engines.cuda_driver import current_device
from facestream.engines.detector import DetectorOptions, PlanesDetector
from facestream.engines.errors import EngineMismatch
from facestream.engines.sidecar import Profile, Sidecar
from facestream.engines.tensorrt_build import library, logger
from facestream.engines.types import Detections, HostPicture


class PlanNet:
    """A plan's execution contexts, one a slot. `card_loop.Net`."""

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
        high = max(profile.least[1], -(-height // 32) * 32)
        wide = max(profile.least[2], -(-width // 32) * 32)
        if profile.holds(pictures, high, wide):
            best = min(best or (wide, high), (wide, high), key=lambda size: size[0] * size[1])
    if best is None:
        asked = f"{pictures}x{width}x{height}"
        held = "; ".join(f"{p.most[0]}x{p.most[2]}x{p.most[1]}" for p in profiles)
        raise EngineMismatch(f"takes no {asked}", "plan", f"at most {held}; give build_engine.py another --profile")
    return best


class CardDetector(PlanesDetector):
    """Detects in batches on a card; `submit` and `collect` let the next batch be filled while one is worked on."""

    adjustable = False  # the card applies the threshold

    def __init__(self, loop: CardLoop, most: int, options: DetectorOptions) -> None:
        super().__init__(options)
        self.loop, self.most = loop, most
        self.batch = most

    def submit(self, pictures: Sequence[HostPicture]) -> Ticket:
        """Start on at most `most` pictures, copied before this returns."""
        return self.loop.submit(pictures)

    def collect(self, ticket: Ticket) -> list[Detections]:
        """Faces of each picture of a batch, in its own pixels."""
        out = []
        for picture, (xyxy, scores) in zip(ticket.pictures, self.loop.result(ticket), strict=True):
            scale = np.array([picture.width / picture.fitted[0], picture.height / picture.fitted[1]] * 2, np.float32)
            out.append(Detections(xyxy * scale, scores))
        return out

    def detect_planes(self, pictures: Sequence[HostPicture]) -> list[Detections]:
        tickets = [self.submit(pictures[at : at + self.most]) for at in range(0, len(pictures), self.most)]
        return [found for ticket in tickets for found in self.collect(ticket)]

    def infer(self, images: Array) -> tuple[F32, F32]:
        """As Detector.infer, but what comes is suppressed already, and filled up with zeros."""
        size = images.shape[2], images.shape[1]
        found = self.detect_planes([HostPicture("rgb24", (image,), size, *size) for image in images])
        longest = max((len(f) for f in found), default=0)
        xyxy, scores = np.zeros((len(images), longest, 4), np.float32), np.zeros((len(images), longest), np.float32)
        for i, f in enumerate(found):
            xyxy[i, : len(f)], scores[i, : len(f)] = f.xyxy, f.scores
        return xyxy, scores


class TensorRTDetector(CardDetector):
    """A plan and its sidecar, written by `build_engine.py --backend tensorrt|rtx`."""

    def __init__(self, path: Path, options: DetectorOptions) -> None:
        sidecar = Sidecar.read(path)
        trt = library(sidecar.backend)
        device = current_device()
        data = path.read_bytes()
        sidecar.check(path, data, trt.__version__, device.card)
        if sidecar.nms_iou is not None and sidecar.nms_iou != options.nms_iou:
            raise EngineMismatch(
                f"has an NMS of {sidecar.nms_iou} inside, detector.nms_iou is {options.nms_iou}", str(path),
                f"change the setting, or rebuild with --nms-iou {options.nms_iou}",
            )  # fmt: skip
        if sidecar.nms_threshold is not None and options.threshold < sidecar.nms_threshold:
            raise EngineMismatch(f"gives no scores below {sidecar.nms_threshold}", str(path), "raise the threshold")
        if sidecar.backend == "tensorrt":
            from facestream.engines.nms_plugin import make

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
        loop = CardLoop(device, net, sidecar.normalisation, options.threshold, options.nms_iou)
        super().__init__(loop, max(profile.most[0] for profile in sidecar.profiles), options)
