"""The GPU that this process works on."""

from __future__ import annotations

from functools import cache

from facestream.engines.cuda.driver import CudaDevice, find_gpu


@cache
def current_device() -> CudaDevice:
    """One for the whole process, so that kernels are compiled and loaded once; with PyCUDA where that is installed."""
    if find_gpu() is not None:
        try:
            from facestream.engines.cuda.pycuda_device import PycudaDevice

            return PycudaDevice()
        except ImportError:  # not installed, or built for another CUDA
            pass
    return CudaDevice()
