"""Context, memory, streams and events by PyCUDA, where it is installed; kernels and graphs stay with cuda-bindings,
since PyCUDA has no graphs and cannot launch on a stream that is not its own. Both work in the one primary context."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.cuda.driver import CudaDevice


class PycudaDevice(CudaDevice):
    """ImportError without PyCUDA, and whatever PyCUDA raises without a driver or a GPU."""

    def __init__(self) -> None:
        import pycuda.autoprimaryctx  # GPU 0's; autoinit would make a second context beside TensorRT's
        import pycuda.driver

        self.cuda, self._primary, self._entered = pycuda.driver, pycuda.autoprimaryctx.context, threading.local()
        self._entered.yes = True  # by the import
        super().__init__()
        self._held: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}

    def enter(self) -> None:
        super().enter()
        if not getattr(self._entered, "yes", False):  # PyCUDA keeps a stack of contexts in each thread
            self._primary.push()
            self._entered.yes = True

    def alloc(self, size: int) -> int:
        memory = self.cuda.mem_alloc(max(size, 1))
        self._held[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        self._held.pop(address).free()

    def pinned(self, size: int) -> Array:
        memory: Array = self.cuda.pagelocked_empty(size, np.uint8)
        return memory

    def stream(self) -> Any:
        made = self.cuda.Stream()
        self._streams[made.handle] = made
        return self.driver.CUstream(made.handle)

    def event(self) -> Any:
        return self.cuda.Event(self.cuda.event_flags.BLOCKING_SYNC)

    def record(self, event: Any, stream: Any) -> None:
        event.record(self._streams[int(stream)])

    def wait(self, event: Any) -> None:
        event.synchronize()

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(start.time_till(end))

    def upload(self, address: int, host: Array, stream: Any) -> None:
        self.cuda.memcpy_htod_async(address, host, self._streams[int(stream)])

    def download(self, host: Array, address: int, stream: Any) -> None:
        self.cuda.memcpy_dtoh_async(host, address, self._streams[int(stream)])
