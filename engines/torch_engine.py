"""SSH on torch: the reference that compiled engines are compared with, and an engine for GPUs without TensorRT.

The net is a module from outside, or a graph (.onnx) read by engines.torch_graph.
"""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.build.fp16 import to_fp16
from facestream.engines.build.gate import check_fp16
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.cuda.devices import current_device, index_of
from facestream.engines.cuda.pipeline import GpuPipeline, Needs, Shape
from facestream.engines.errors import EngineMismatch
from facestream.engines.options import DetectorOptions
from facestream.engines.torch_graph import GraphModule, read
from torch import Tensor, nn

log = logging.getLogger(__name__)


class TorchDetector(Detector):
    """Any module with the shipped graph's interface (train.model.Deploy), on a device.

    The module comes from outside, so that this package does not depend on the training code.
    """

    def __init__(self, module: nn.Module, options: DetectorOptions, device: str = "cpu") -> None:
        super().__init__(options)
        self.module = module.to(device).eval()
        self.device = device
        self.coarsest_anchors = int(getattr(module, "coarsest_anchors", 0))
        self.coarsest_boxes = int(getattr(module, "coarsest_boxes", self.coarsest_boxes))

    @torch.inference_mode()
    def infer(self, images: Array) -> tuple[F32, F32]:
        xyxy, scores = self.module(torch.from_numpy(images).to(self.device))
        return xyxy.float().cpu().numpy(), scores.float().cpu().numpy()


def on_cpu(path: Path, options: DetectorOptions) -> TorchDetector:
    """A graph in float32, without a GPU. EngineMismatch for a file that is no such graph."""
    torch.set_num_threads(options.threads)
    return TorchDetector(read(path), options)


def on_gpu(path: Path, options: DetectorOptions) -> GpuDetector:
    """A graph in half precision in the loop on a GPU, which suppresses with its own kernel.

    EngineMismatch, in one line, without driver or GPU, for a torch without CUDA, for a file that is no such graph, for
    one that half precision changes, and where torch cannot run it.
    """
    index = index_of(options.device)
    device = current_device(index)
    if not torch.cuda.is_available():
        built = f"is for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
        do = "see https://pytorch.org/get-started/locally for one that fits the driver"
        raise EngineMismatch(f"this torch ({torch.__version__}) {built} and sees no GPU", "torch", do)
    data, normalisation, _ = to_fp16(path)
    check_fp16(path, data, normalisation, None)
    net = TorchNet(GraphModule(data, str(path)), f"cuda:{index}")
    try:
        net.try_out()
    except RuntimeError as e:  # kernels for other GPUs, libraries that do not fit, no memory
        reason = (str(e).splitlines() or [""])[0][:160]
        raise EngineMismatch(f"torch cannot use this GPU: {reason}", "torch", "see docs/gpu.md") from None
    pipeline = GpuPipeline(device, net, normalisation, options.threshold, options.nms_iou)
    return GpuDetector(pipeline, net.max_batch, options)


class TorchNet:
    """A graph of engines.build.fp16 in the loop on a GPU, as a `cuda.pipeline.Net`.

    On a GPU each slot has CUDA graphs of torch's own, one for each of the shapes that came more than once; they share
    memory that nothing else uses, since only one of a slot's runs at a time. Such a graph cannot be part of a larger
    one, so the loop's other steps are launched one by one.
    """

    nms_inside = False
    max_batch = 8

    def __init__(self, module: GraphModule, device: str = "cuda:0") -> None:
        self.module = module.to(device).eval()
        self.device = device
        self.made: dict[tuple[int, Shape], Shaped] = {}
        self.pools: dict[int, Any] = {}

    @torch.inference_mode()
    def try_out(self) -> None:
        """Run it once. RuntimeError where that does not work."""
        _, scores = self.module(torch.zeros(1, 3, 64, 64, dtype=torch.half, device=self.device))
        scores.cpu()

    def canvas(self, images: int, width: int, height: int) -> tuple[int, int]:
        return -(-width // 32) * 32, -(-height // 32) * 32

    @torch.inference_mode()
    def prepare(self, slot: int, shape: Shape, stream: Any) -> Needs:
        n, width, height = shape
        images = torch.zeros(n, 3, height, width, dtype=torch.half, device=self.device)
        xyxy, scores = self.module(images)
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)  # the loop's streams do not wait for torch's
        self.made[slot, shape] = Shaped(images, xyxy, scores, self.module.plan(images))
        return Needs(int(scores.shape[1]), 0)

    def forget(self, slot: int, shape: Shape) -> None:
        self.made.pop((slot, shape), None)

    def _capture(self, slot: int, shaped: Shaped) -> None:
        if slot not in self.pools:
            self.pools[slot] = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize(self.device)
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True  # the shape has come again: measure which algorithm is fastest
        try:
            aside = torch.cuda.Stream(self.device)
            with torch.cuda.stream(aside):
                for _ in range(3):
                    self.module(shaped.images)
            aside.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pools[slot], stream=aside, capture_error_mode="thread_local"):
                shaped.xyxy, shaped.scores = self.module(shaped.images)
            shaped.graph = graph
        except RuntimeError as e:
            shaped.eager = True
            reason = (str(e).splitlines() or [""])[0][:160]
            log.warning("torch captures no CUDA graph (%s): it runs step by step, more slowly", reason)
            with torch.cuda.stream(torch.cuda.default_stream(self.device)):
                shaped.xyxy, shaped.scores = self.module(shaped.images)  # what was being captured holds no values
        finally:
            torch.backends.cudnn.benchmark = before
        torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def enqueue(self, slot: int, shape: Shape, images: int, first: int, second: int, scratch: int, stream: Any) -> None:
        shaped = self.made[slot, shape]
        shaped.runs += 1
        if self.device == "cpu":
            self._into(self.module(self._at(images, shaped.images)), first, second)
            return
        if shaped.graph is None and shaped.runs > 1 and not shaped.eager:
            self._capture(slot, shaped)
        with torch.cuda.stream(torch.cuda.ExternalStream(int(stream), device=self.device)):
            shaped.images.copy_(self._at(images, shaped.images))
            if shaped.graph is None:
                self._into(self.module(shaped.images), first, second)
                return
            shaped.graph.replay()
            self._into((shaped.xyxy, shaped.scores), first, second)

    def _into(self, found: tuple[Tensor, Tensor], first: int, second: int) -> None:
        for tensor, address in zip(found, (first, second), strict=True):
            self._at(address, tensor).copy_(tensor)

    def capturable(self, slot: int, shape: Shape, stream: Any) -> bool:
        return False

    def _at(self, address: int, like: Tensor) -> Tensor:
        """The memory at an address as a contiguous tensor of another's shape and type."""
        kind = np.float16 if like.dtype == torch.half else np.float32
        if self.device == "cpu":
            size = like.numel() * like.element_size()
            memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
            return torch.from_numpy(memory.view(kind).reshape(tuple(like.shape)))
        return torch.as_tensor(_DeviceArray(address, tuple(like.shape), np.dtype(kind).str), device=self.device)


@dataclass(slots=True)
class Shaped:
    """Memory for one shape of input, and on a GPU the graph that works in it. buffer: what the graph reads besides.
    runs: how often it was asked for. eager: no graph can be captured."""

    images: Tensor
    xyxy: Tensor
    scores: Tensor
    buffer: Any
    graph: Any = None
    runs: int = 0
    eager: bool = False


class _DeviceArray:
    """What torch reads to find memory that is not its own."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {"data": (address, False), "shape": shape, "typestr": kind, "version": 3}
