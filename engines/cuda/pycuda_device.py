"""Context, memory, streams and events by PyCUDA, where it is installed; kernels and graphs stay with cuda-bindings,
since PyCUDA has no graphs and cannot launch on a stream that is not its own. Both work in the one primary context."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.cuda.driver import CudaDevice
from facestream.engines.errors import EngineMismatch

T = TypeVar("T")
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: the legacy default stream, which others may use, is not waited for


class PycudaDevice(CudaDevice):
    """ImportError without PyCUDA, EngineMismatch, in one line, without a driver or a GPU of that number."""

    def __init__(self, index: int = 0) -> None:
        import pycuda.driver

        self.cuda = pycuda.driver
        self._entered = threading.local()
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        # Not pycuda.autoprimaryctx: that takes a GPU of its own choice, and its last act, in the main thread, is to pop
        # a context which the thread that imported it has pushed.
        self._call(self.cuda.init)
        self._primary = self._call(lambda: self.cuda.Device(index).retain_primary_context())
        super().__init__(index)
        atexit.register(self._leave)

    def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """EngineMismatch, in one line, for what PyCUDA raises."""
        try:
            return function(*arguments)
        except self.cuda.Error as e:
            reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:160]
            raise EngineMismatch(f"PyCUDA: {reason}", "cuda", "nvidia-smi shows whether the GPU is well") from None

    def enter(self) -> None:
        """PyCUDA keeps a stack of contexts in each thread, and aborts the process when a thread ends while its stack
        holds one. So the thread's own `_Pushed` pops it: threads drop what is theirs before they end."""
        if not hasattr(self._entered, "pushed"):
            self._entered.pushed = _Pushed(self.cuda.Context, self._primary)
        super().enter()

    def _leave(self) -> None:
        """For the main thread, whose own things live until the interpreter is half gone. Detached here, since PyCUDA's
        destructor takes the primary context for one of its own making."""
        if hasattr(self._entered, "pushed"):
            del self._entered.pushed
        self._primary.detach()

    def alloc(self, size: int) -> int:
        memory = self._call(self.cuda.mem_alloc, max(size, 1))
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        self._call(self._memory.pop(address).free)

    def pinned(self, size: int) -> Array:
        memory: Array = self._call(self.cuda.pagelocked_empty, max(size, 1), np.uint8)
        self._memory[memory.ctypes.data] = memory.base
        return memory[:size]

    def free_pinned(self, memory: Array) -> None:
        self._call(self._memory.pop(memory.ctypes.data).free)

    def stream(self) -> Any:
        made = self._call(self.cuda.Stream, NON_BLOCKING)
        self._streams[made.handle] = made
        return self.driver.CUstream(made.handle)

    def free_stream(self, stream: Any) -> None:
        del self._streams[int(stream)]  # nobody else refers to it: it is destroyed here and now

    def event(self) -> Any:
        return self._call(self.cuda.Event, self.cuda.event_flags.BLOCKING_SYNC)

    def free_event(self, event: Any) -> None:
        """PyCUDA destroys it with the last reference, which the caller drops now, in a thread that has entered."""

    def record(self, event: Any, stream: Any) -> None:
        self._call(event.record, self._streams[int(stream)])

    def wait(self, event: Any) -> None:
        self._call(event.synchronize)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._call(start.time_till, end))

    def upload(self, address: int, host: Array, stream: Any) -> None:
        self._call(self.cuda.memcpy_htod_async, address, host, self._streams[int(stream)])

    def download(self, host: Array, address: int, stream: Any) -> None:
        self._call(self.cuda.memcpy_dtoh_async, host, address, self._streams[int(stream)])


class _Pushed:
    """A context on the calling thread's stack, popped when this goes."""

    def __init__(self, kind: Any, context: Any) -> None:
        self._pop = kind.pop
        context.push()

    def __del__(self) -> None:
        self._pop()
