"""SSH on torch: the reference that compiled engines are compared with, and an engine for cards without TensorRT."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.boxes import F32, Array
from engines.detector import Detector, DetectorOptions


class TorchDetector(Detector):
    """Any module with the shipped graph's interface (train.model.Deploy), on a device.

    The module comes from outside, so that this package does not depend on the training code.
    """

    def __init__(self, module: nn.Module, options: DetectorOptions, device: str = "cpu") -> None:
        super().__init__(options)
        self.module, self.device = module.to(device).eval(), device
        self.coarsest_anchors = int(getattr(module, "coarsest_anchors", 0))

    @torch.inference_mode()
    def infer(self, images: Array) -> tuple[F32, F32]:
        xyxy, scores = self.module(torch.from_numpy(images).to(self.device))
        return xyxy.float().cpu().numpy(), scores.float().cpu().numpy()


class TorchNet:
    """A module like train.half.HalfDeploy in the loop on a card, as a `card_loop.Net`.

    On a card each slot has a CUDA graph of torch's own, with memory that nothing else uses; it cannot be part of a
    larger graph, so the loop's other steps are launched one by one.
    """

    nms_inside = False

    def __init__(self, module: nn.Module, device: str = "cuda") -> None:
        self.module, self.device = module.to(device).eval(), device
        torch.backends.cudnn.benchmark = True  # shapes are few and stay: measure which algorithm is fastest
        self.slots: dict[int, tuple[Tensor, Tensor, Tensor, Any]] = {}

    def canvas(self, pictures: int, width: int, height: int) -> tuple[int, int]:
        return -(-width // 32) * 32, -(-height // 32) * 32

    @torch.inference_mode()
    def prepare(self, slot: int, pictures: int, width: int, height: int, stream: Any) -> int:
        images = torch.zeros(pictures, 3, height, width, dtype=torch.half, device=self.device)
        xyxy, scores = self.module(images)
        graph = None
        if self.device != "cpu":
            aside = torch.cuda.Stream()
            with torch.cuda.stream(aside):
                for _ in range(3):  # lets cuDNN choose before the graph is fixed
                    self.module(images)
            aside.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                xyxy, scores = self.module(images)
            torch.cuda.synchronize()
        self.slots[slot] = images, xyxy, scores, graph
        return int(scores.shape[1])

    @torch.inference_mode()
    def enqueue(self, slot: int, images: int, first: int, second: int, stream: Any) -> None:
        own, xyxy, scores, graph = self.slots[slot]
        if graph is None:
            xyxy, scores = self.module(self._at(images, own))
            self._at(first, xyxy).copy_(xyxy)
            self._at(second, scores).copy_(scores)
            return
        with torch.cuda.stream(torch.cuda.ExternalStream(int(stream))):
            own.copy_(self._at(images, own))
            graph.replay()
            self._at(first, xyxy).copy_(xyxy)
            self._at(second, scores).copy_(scores)

    def capturable(self, slot: int, stream: Any) -> bool:
        return False

    def _at(self, address: int, like: Tensor) -> Tensor:
        """The memory at an address as a contiguous tensor of another's shape and type."""
        kind = np.float16 if like.dtype == torch.half else np.float32
        if self.device == "cpu":
            size = like.numel() * like.element_size()
            memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
            return torch.from_numpy(memory.view(kind).reshape(tuple(like.shape)))
        return torch.as_tensor(_Memory(address, tuple(like.shape), np.dtype(kind).str), device=self.device)


class _Memory:
    """What torch reads to find memory that is not its own."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {"data": (address, False), "shape": shape, "typestr": kind, "version": 3}
