"""The CUDA driver calls that the engines need, through cuda-bindings, with a clear error if there is no driver.

Engines use a `Device`; the tests have one that runs on the CPU, as late and in as random an order as a GPU may.
`CudaDevice` is the real one; PycudaDevice does the same through PyCUDA.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.cuda.kernels import KERNELS, Dim3, Launch, compile_kernels
from facestream.engines.errors import EngineMismatch


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """name: as the driver says it. capability: 90 for 9.0. driver: CUDA version that it supports, 13000 for 13.0."""

    name: str
    capability: int
    driver: int


class Device(Protocol):
    """Memory is addresses, streams, events and graphs are what the methods return. All but `pinned`, `alloc` and
    `wait` return before the work is done; work of one stream is done in order. What is made is given back by the method
    named for it, in a thread that has entered: nothing is freed by the garbage collector, which may run in any thread.
    """

    gpu: GpuInfo
    index: int

    def enter(self) -> None:
        """Make the GPU usable from the calling thread; needed in each thread but the one that made this."""
        ...

    def alloc(self, size: int) -> int:
        """Device memory of `size` bytes, a multiple of 256 as an address."""
        ...

    def free(self, address: int) -> None: ...

    def pinned(self, size: int) -> Array:
        """uint8 [size] of page-locked host memory, valid until `free_pinned`."""
        ...

    def free_pinned(self, memory: Array) -> None: ...

    def stream(self) -> Any: ...

    def free_stream(self, stream: Any) -> None: ...

    def event(self) -> Any: ...

    def free_event(self, event: Any) -> None: ...

    def record(self, event: Any, stream: Any) -> None: ...

    def wait(self, event: Any) -> None:
        """Until all is done that was in the stream when the event was recorded."""
        ...

    def upload(self, address: int, host: Array, stream: Any) -> None: ...

    def download(self, host: Array, address: int, stream: Any) -> None: ...

    def launcher(self, stream: Any) -> Launch: ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """A graph of what `work` puts into the stream, which is not run by this. What goes wrong is raised as it came
        first, and the stream is no longer being captured then."""
        ...

    def replay(self, graph: Any, stream: Any) -> None: ...

    def free_graph(self, graph: Any) -> None:
        """Only once what was replayed of it is done."""
        ...


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError:
        do = "pip install cuda-bindings nvidia-cuda-nvrtc, see docs/gpu.md"
        raise EngineMismatch("running on a GPU needs cuda-bindings", "cuda", do) from None
    return driver


def _call(function: Any, *arguments: Any) -> Any:
    """A driver function's results without its status. EngineMismatch when it fails."""
    try:
        error, *out = function(*arguments)
    except RuntimeError as e:
        raise _unusable(function.__name__, e) from None
    if int(error):
        name = str(error).rsplit(".", 1)[-1].split(":")[0]
        if name in ("CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_INVALID_DEVICE"):
            do = "nvidia-smi lists those that the driver sees; ONNX Runtime and OpenVINO need none"
            raise EngineMismatch("no NVIDIA GPU here", "cuda", do)
        raise EngineMismatch(f"{function.__name__} failed: {name}", "cuda", "nvidia-smi shows whether the GPU is well")
    return out[0] if len(out) == 1 else out


def _unusable(function: str, error: RuntimeError) -> EngineMismatch:
    """What a RuntimeError of the bindings says: they look for libcuda and each of its functions when first called."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    if type(error).__name__ == "DynamicLibNotFoundError" or "dlopen" in reason:
        do = "this needs an NVIDIA GPU and its driver; ONNX Runtime and OpenVINO need neither"
        return EngineMismatch("no NVIDIA driver here", "cuda", do)
    if "not found" in reason:
        return EngineMismatch(f"the driver does not know {function}", "cuda", "update NVIDIA's driver")
    return EngineMismatch(f"{function} failed: {reason}", "cuda", "see docs/gpu.md")


def find_gpu(index: int = 0) -> GpuInfo | None:
    """The GPU that CUDA counts as `index`, None without a GPU, driver or cuda-bindings."""
    try:
        driver = _driver()
        _call(driver.cuInit, 0)
        return _info(driver, index)
    except EngineMismatch:
        return None


def _info(driver: Any, index: int) -> GpuInfo:
    device = _call(driver.cuDeviceGet, index)
    kinds = driver.CUdevice_attribute
    major = _call(driver.cuDeviceGetAttribute, kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    minor = _call(driver.cuDeviceGetAttribute, kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    name = _call(driver.cuDeviceGetName, 128, device).split(b"\0")[0].decode()
    return GpuInfo(name, 10 * major + minor, _call(driver.cuDriverGetVersion))


def context_index() -> int:
    """Which GPU the calling thread works on now."""
    return int(_call(_driver().cuCtxGetDevice))


class CudaDevice:
    """A real GPU. EngineMismatch, in one line, without cuda-bindings, a driver or a GPU of that number."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.driver = _driver()
        _call(self.driver.cuInit, 0)
        count = _call(self.driver.cuDeviceGetCount)
        if not 0 <= index < count and count:
            raise EngineMismatch(f"there is no GPU {index}", "cuda", f"cuda:0 to cuda:{count - 1} are here")
        self.gpu = _info(self.driver, index)
        self._check_driver()
        # The primary context is the one that torch, TensorRT and PyCUDA use too.
        self.context = _call(self.driver.cuDevicePrimaryCtxRetain, _call(self.driver.cuDeviceGet, index))
        self._functions: dict[str, Any] = {}
        self.enter()

    def _check_driver(self) -> None:
        """Code of a newer CUDA does not load, and its calls are not known."""
        from importlib.metadata import version

        wanted = int(version("cuda-bindings").split(".")[0])
        if self.gpu.driver // 1000 < wanted:
            knows = f"{self.gpu.driver // 1000}.{self.gpu.driver % 1000 // 10}"
            raise EngineMismatch(
                f"the driver knows CUDA {knows}, the libraries here are for CUDA {wanted}", "cuda",
                "update NVIDIA's driver (580 or newer for CUDA 13)",
            )  # fmt: skip

    def enter(self) -> None:
        """Make the primary context the calling thread's own."""
        _call(self.driver.cuCtxSetCurrent, self.context)

    def alloc(self, size: int) -> int:
        return int(_call(self.driver.cuMemAlloc, max(size, 1)))

    def free(self, address: int) -> None:
        _call(self.driver.cuMemFree, address)

    def pinned(self, size: int) -> Array:
        address = int(_call(self.driver.cuMemHostAlloc, max(size, 1), 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, memory: Array) -> None:
        _call(self.driver.cuMemFreeHost, memory.ctypes.data)

    def stream(self) -> Any:
        return _call(self.driver.cuStreamCreate, self.driver.CUstream_flags.CU_STREAM_NON_BLOCKING)

    def free_stream(self, stream: Any) -> None:
        _call(self.driver.cuStreamDestroy, stream)

    def event(self) -> Any:
        return _call(self.driver.cuEventCreate, self.driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC)

    def free_event(self, event: Any) -> None:
        _call(self.driver.cuEventDestroy, event)

    def record(self, event: Any, stream: Any) -> None:
        _call(self.driver.cuEventRecord, event, stream)

    def wait(self, event: Any) -> None:
        _call(self.driver.cuEventSynchronize, event)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Between two events that have been waited for."""
        return float(_call(self.driver.cuEventElapsedTime, start, end))

    def free_memory(self) -> int:
        """Bytes of the GPU's memory that nobody uses."""
        return int(_call(self.driver.cuMemGetInfo)[0])

    def upload(self, address: int, host: Array, stream: Any) -> None:
        _call(self.driver.cuMemcpyHtoDAsync, address, host.ctypes.data, host.nbytes, stream)

    def download(self, host: Array, address: int, stream: Any) -> None:
        _call(self.driver.cuMemcpyDtoHAsync, host.ctypes.data, address, host.nbytes, stream)

    def launcher(self, stream: Any) -> Launch:
        def launch(name: str, grid: Dim3, block: Dim3, arguments: Sequence[Any]) -> None:
            if name not in self._functions:
                self._load(name)
            pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
            function = self._functions[name]
            _call(self.driver.cuLaunchKernel, function, *grid, *block, 0, stream, ctypes.addressof(pointers), 0)

        return launch

    def _load(self, name: str) -> None:
        file = next(file for file, names in KERNELS.items() if name in names)
        module = _call(self.driver.cuModuleLoadData, compile_kernels(file, self.gpu.capability))
        for other in KERNELS[file]:
            self._functions[other] = _call(self.driver.cuModuleGetFunction, module, other.encode())

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        mode = self.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _call(self.driver.cuStreamBeginCapture, stream, mode)
        try:
            work()
        except BaseException:
            # What a call did wrong has ended the capture too, and would be said a second time here in other words.
            with suppress(EngineMismatch):
                broken = _call(self.driver.cuStreamEndCapture, stream)
                if broken is not None and int(broken):
                    _call(self.driver.cuGraphDestroy, broken)
            raise
        graph = _call(self.driver.cuStreamEndCapture, stream)
        try:
            return _call(self.driver.cuGraphInstantiate, graph, 0)
        finally:
            _call(self.driver.cuGraphDestroy, graph)

    def replay(self, graph: Any, stream: Any) -> None:
        _call(self.driver.cuGraphLaunch, graph, stream)

    def free_graph(self, graph: Any) -> None:
        _call(self.driver.cuGraphExecDestroy, graph)
