"""The GPUs used by this process."""

from __future__ import annotations

import re
from functools import cache

from facestream.engines.cuda.driver import CudaDevice, context_index, find_gpu
from facestream.engines.errors import BadConfig
from facestream.engines.options import DEVICE


def index_of(device: str) -> int:
    """0 of "cuda:0". BadConfig for what is no GPU's name."""
    if not re.fullmatch(DEVICE, device):
        raise BadConfig(f"{device!r} is no GPU", "detector.device", "like cuda:0, as CUDA numbers them")
    return int(device.removeprefix("cuda:"))


@cache
def current_device(index: int = 0) -> CudaDevice:
    """One for each GPU in the whole process, so that kernels are compiled and loaded once; with PyCUDA where that is
    installed. EngineMismatch, in one line, without cuda-bindings, a driver or a GPU of that number."""
    if find_gpu(index) is not None:
        try:
            from facestream.engines.cuda.pycuda_device import PycudaDevice

            return PycudaDevice(index)
        except ImportError:  # not installed, or built for another CUDA
            pass
    return CudaDevice(index)


def device_in_use() -> CudaDevice:
    """That of the calling thread's context: where TensorRT runs a plugin."""
    return current_device(context_index())
