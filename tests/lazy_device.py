"""A stand-in for a GPU that is as late and as disorderly as one may be: nothing runs before somebody waits, and then
the streams' work is mixed at random. Kernels are the real ones, on the CPU; the net is the real graph on ONNX Runtime.

What it cannot show: that the driver and TensorRT take our calls, and how fast anything is.
"""

from __future__ import annotations

import ctypes
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.build.fp16 import Fp16Detector
from facestream.engines.build.sidecar import Profile
from facestream.engines.cuda.driver import GpuInfo
from facestream.engines.cuda.kernels import Dim3, Launch, nms, nms_workspace
from facestream.engines.cuda.pipeline import Needs, Shape
from facestream.engines.errors import EngineMismatch
from facestream.engines.tensorrt_engine import canvas_of

from tests.cuda import every_kernel


@dataclass(eq=False)
class Stream:
    work: deque[Callable[[], None]] = field(default_factory=deque)
    recording: list[Callable[[], None]] | None = None

    def put(self, step: Callable[[], None]) -> None:
        (self.work if self.recording is None else self.recording).append(step)


@dataclass(eq=False)
class Event:
    recorded: int = 0
    reached: int = 0


@dataclass(eq=False)
class Graph:
    steps: list[Callable[[], None]]


class LazyDevice:
    """`cuda_driver.Device` on the CPU. AssertionError for what a GPU would not forgive."""

    gpu = GpuInfo("stand-in", 90, 13000)
    index = 0

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.streams: list[Stream] = []
        self.memory: dict[int, Array] = {}
        self.host: list[Array] = []
        self.freed: list[Array] = []
        self.kernels = every_kernel()
        self.replayed = self.copied_down = 0
        self.graphs: list[Graph] = []  # alive
        self.events = 0
        self.refuses = ""  # what a capture fails with
        self.threads = {threading.get_ident()}

    def enter(self) -> None:
        self.threads.add(threading.get_ident())

    def _entered(self) -> None:
        assert threading.get_ident() in self.threads, "no context in this thread"

    def alloc(self, size: int) -> int:
        self._entered()
        room = np.frombuffer(self.random.randbytes(size + 256), np.uint8).copy()
        address = -(-room.ctypes.data // 256) * 256
        self.memory[address] = room
        return address

    def free(self, address: int) -> None:
        self._entered()
        room = self.memory.pop(address)
        room[:] = 0xFF  # whoever still uses it finds nothing
        self.freed.append(room)

    def pinned(self, size: int) -> Array:
        self._entered()
        self.host.append(np.full(size, 0xCD, np.uint8))
        return self.host[-1]

    def free_pinned(self, memory: Array) -> None:
        self._entered()
        self.host = [known for known in self.host if known is not memory]
        memory[:] = 0xEE

    def stream(self) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    def free_stream(self, stream: Stream) -> None:
        assert not stream.work, "still at work"
        self.streams.remove(stream)

    def event(self) -> Event:
        self.events += 1
        return Event()

    def free_event(self, event: Event) -> None:
        self.events -= 1

    def alive(self) -> int:
        """How many things are there that somebody has to give back."""
        return len(self.memory) + len(self.host) + len(self.streams) + len(self.graphs) + self.events

    def record(self, event: Event, stream: Stream) -> None:
        self._entered()
        event.recorded += 1
        number = event.recorded

        def reach() -> None:
            event.reached = number

        stream.put(reach)

    def elapsed_ms(self, start: Event, end: Event) -> float:
        return 1.0

    def wait(self, event: Event) -> None:
        self._entered()
        while event.reached < event.recorded:
            busy = [stream for stream in self.streams if stream.work]
            self.random.choice(busy).work.popleft()()

    def _inside(self, address: int, size: int) -> None:
        assert any(a <= address and address + size <= a + len(m) - 255 for a, m in self.memory.items()), (
            "outside memory"
        )

    def upload(self, address: int, host: Array, stream: Stream) -> None:
        self._entered()
        self._inside(address, host.nbytes)
        stream.put(lambda: ctypes.memmove(address, host.ctypes.data, host.nbytes) and None)

    def download(self, host: Array, address: int, stream: Stream) -> None:
        self._entered()
        self._inside(address, host.nbytes)
        assert any(np.shares_memory(host, known) for known in self.host), "not page-locked: the copy would wait"
        self.copied_down += host.nbytes
        stream.put(lambda: ctypes.memmove(host.ctypes.data, address, host.nbytes) and None)

    def launcher(self, stream: Stream) -> Launch:
        self._entered()

        def launch(name: str, grid: Dim3, block: Dim3, arguments: Sequence[Any]) -> None:
            stream.put(lambda: self.kernels(name, grid, block, arguments))

        return launch

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        self._entered()
        assert stream.recording is None, "it is being captured already"
        stream.recording = steps = []
        try:
            work()
            if self.refuses:
                raise EngineMismatch(self.refuses, "cuda")
        finally:
            stream.recording = None
        self.graphs.append(Graph(steps))
        return self.graphs[-1]

    def replay(self, graph: Graph, stream: Stream) -> None:
        self._entered()
        assert graph in self.graphs, "it was destroyed"
        self.replayed += 1
        for step in graph.steps:
            stream.put(step)

    def free_graph(self, graph: Graph) -> None:
        self._entered()
        self.graphs.remove(graph)


class CpuNet:
    """`cuda.pipeline.Net` on ONNX Runtime; with `nms_inside` it suppresses as a plan with the plugin does. Its scratch
    holds what it was told last: whoever gives it to two shapes at once is found out."""

    def __init__(
        self, device: LazyDevice, fp16: Fp16Detector, profiles: tuple[Profile, ...], nms_inside: bool, iou: float = 0.3
    ) -> None:
        self.device, self.fp16, self.profiles, self.nms_inside, self.iou = device, fp16, profiles, nms_inside, iou
        self.max_batch = max(profile.max[0] for profile in profiles)
        self.prepared: set[tuple[int, Shape]] = set()

    def canvas(self, images: int, width: int, height: int) -> tuple[int, int]:
        return canvas_of(self.profiles, images, width, height)

    def prepare(self, slot: int, shape: Shape, stream: Stream) -> Needs:
        assert (slot, shape) not in self.prepared
        self.prepared.add((slot, shape))
        _, scores = self.fp16.run(np.zeros((1, 3, shape.height, shape.width), np.float16))
        return Needs(scores.shape[1], 8 * shape.images)

    def forget(self, slot: int, shape: Shape) -> None:
        self.prepared.remove((slot, shape))

    def enqueue(
        self, slot: int, shape: Shape, images: int, first: int, second: int, scratch: int, stream: Stream
    ) -> None:
        n, width, height = shape
        assert (slot, shape) in self.prepared
        self.device._inside(scratch, 8 * n)

        def run() -> None:
            x = view(images, np.float16, (n, 3, height, width))
            xyxy, scores = (np.ascontiguousarray(a) for a in self.fp16.run(x))
            if not self.nms_inside:
                ctypes.memmove(first, xyxy.ctypes.data, xyxy.nbytes)
                ctypes.memmove(second, scores.ctypes.data, scores.nbytes)
                return
            workspace, boxes = np.zeros(nms_workspace(n), np.uint8), (xyxy.ctypes.data, scores.ctypes.data)
            nms(self.device.kernels, n, scores.shape[1], 0.02, self.iou, *boxes, workspace.ctypes.data, first, second)

        stream.put(run)

    def capturable(self, slot: int, shape: Shape, stream: Stream) -> bool:
        return True


def view(address: int, dtype: Any, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)
