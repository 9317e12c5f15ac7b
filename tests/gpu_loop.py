"""Batches through the pipeline on a device, in the main thread and in two others; meant for a process in which
cpu_driver.cpp stands for the driver. Prints what it has done."""

import ctypes
import sys
import threading
from typing import Any

import numpy as np
from facestream.engines.cuda.devices import current_device, device_in_use
from facestream.engines.cuda.driver import CudaDevice, context_index
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.cuda.pipeline import GpuPipeline, Needs, Shape
from facestream.engines.types import HostFrame

from tests.lazy_device import view

BOXES = 40


class Constant:
    """Writes the same boxes for each image, at once, as the stand-in does everything."""

    nms_inside, max_batch = False, 8

    def canvas(self, images: int, width: int, height: int) -> tuple[int, int]:
        return -(-width // 32) * 32, -(-height // 32) * 32

    def prepare(self, slot: int, shape: Shape, stream: Any) -> Needs:
        return Needs(BOXES, 512)

    def forget(self, slot: int, shape: Shape) -> None:
        pass

    def capturable(self, slot: int, shape: Shape, stream: Any) -> bool:
        return True

    def enqueue(self, slot: int, shape: Shape, images: int, first: int, second: int, scratch: int, stream: Any) -> None:
        int(stream)
        at = np.arange(BOXES, dtype=np.float32) * 20
        view(first, np.float32, (shape.images, BOXES, 4))[:] = np.stack([at, at, at + 9, at + 9], 1)
        view(second, np.float32, (shape.images, BOXES))[:] = np.linspace(0.9, 0.5, BOXES)


def alive() -> list[int]:
    """Memory, page-locked memory, streams, events and graphs that are there."""
    counts = (ctypes.c_int * 5)()
    ctypes.CDLL("libcuda.so.1").facestream_alive(counts)
    return list(counts)


def batches(pipeline: GpuPipeline, index: int, rounds: int) -> None:
    frame = HostFrame("rgb24", (np.zeros((32, 32, 3), np.uint8),), (32, 32), 32, 32)
    for turn in range(rounds):
        for ticket in [pipeline.submit([frame] * n) for n in (1 + turn % 3, 2)]:
            found = pipeline.result(ticket)
            assert all(len(scores) == BOXES for _, scores in found), found
    assert context_index() == index, "another GPU is current"
    assert device_in_use() is pipeline.device, "a plugin would run on another GPU"


def main(kind: str, index: int) -> None:
    device: CudaDevice = current_device(index)
    assert type(device).__name__ == {"cuda": "CudaDevice", "pycuda": "PycudaDevice"}[kind], type(device)
    assert device.gpu.name == f"CPU stand-in {index}"
    before = alive()
    pipeline = GpuPipeline(device, Constant(), Normalisation((0.0,) * 3, (1.0,) * 3), 0.3, 0.3, slots=2)
    batches(pipeline, index, 3)
    for _ in range(2):
        problems: list[BaseException] = []

        def work(problems: list[BaseException] = problems) -> None:
            try:
                batches(pipeline, index, 2)
            except BaseException as e:
                problems.append(e)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if problems:
            raise problems[0]
    batches(pipeline, index, 12)
    graphs = alive()[4]
    assert graphs <= 2 * 3, graphs
    print(f"replayed {pipeline.counters.replays} of {pipeline.counters.batches} with {graphs} graphs")
    pipeline.close()
    assert alive() == before, (alive(), before)
    # A thread of its own that makes everything, and ends with it.
    thread = threading.Thread(target=lambda: (device.enter(), device.free_stream(device.stream())))
    thread.start()
    thread.join()
    print("done")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
