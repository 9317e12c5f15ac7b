"""The CUDA kernels (*.cu beside this file): compiled at run time by NVRTC, and their launchers.

A `Launch` starts one kernel: on a GPU through the driver, in the tests on the CPU. Pointers are integers, addresses in
the launcher's memory; they are never dereferenced here.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from facestream.engines.errors import BadConfig, EngineMismatch

Dim3 = tuple[int, int, int]
Launch = Callable[[str, Dim3, Dim3, Sequence[Any]], None]  # kernel, grid, block, ctypes values

FOLDER = Path(__file__).parent
KERNELS = {
    "nms.cu": ("nms_sort", "nms_mask", "nms_scan"),
    "preprocess.cu": ("preprocess",),
}
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)  # Turing to Blackwell
MAX_BOXES = 3072  # of an image, see nms.cu
_ROW = 4 * 4 + 4 + MAX_BOXES // 64 * 8  # sorted box, index, mask


def source(file: str) -> str:
    return (FOLDER / file).read_text(encoding="utf-8")


def source_hash() -> str:
    """Of all kernels together; a plan that was tested with others is not the same."""
    return hashlib.sha256("".join(source(file) for file in sorted(KERNELS)).encode()).hexdigest()


@cache
def compile_kernels(file: str, architecture: int) -> bytes:
    """A file's machine code (cubin) for compute capability `architecture` (90 for 9.0); needs no GPU.

    Products and sums are not fused, so that results are the CPU's to the last bit. BadConfig without NVRTC,
    EngineMismatch when it refuses the architecture or the source.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError:
        do = "pip install cuda-bindings nvidia-cuda-nvrtc"
        raise BadConfig("the CUDA kernels need cuda-bindings", file, do) from None

    def call(function: Any, *arguments: Any) -> Any:
        try:
            error, *out = function(*arguments)
        except RuntimeError as e:  # libnvrtc is looked for on the first call
            raise BadConfig(f"NVRTC cannot be loaded ({_line(e)})", file, "pip install nvidia-cuda-nvrtc") from None
        if error != nvrtc.nvrtcResult.NVRTC_SUCCESS and function is not nvrtc.nvrtcCompileProgram:
            raise EngineMismatch(f"NVRTC: {nvrtc.nvrtcGetErrorString(error)[1].decode()}", file)
        return (
            (error, *out) if function is nvrtc.nvrtcCompileProgram else out if len(out) > 1 else out[0] if out else None
        )

    _same_major(call(nvrtc.nvrtcVersion)[0], file)
    program = call(nvrtc.nvrtcCreateProgram, source(file).encode(), file.encode(), 0, [], [])
    options = [f"--gpu-architecture=sm_{architecture}".encode(), b"--std=c++17", b"--fmad=false"]
    (error,) = call(nvrtc.nvrtcCompileProgram, program, len(options), options)
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * call(nvrtc.nvrtcGetProgramLogSize, program)
        call(nvrtc.nvrtcGetProgramLog, program, log)
        reason = log.decode(errors="replace").strip("\0 \n") or nvrtc.nvrtcGetErrorString(error)[1].decode()
        raise EngineMismatch(f"NVRTC cannot compile for sm_{architecture}: {reason.splitlines()[0]}", file)
    cubin: bytes = b" " * call(nvrtc.nvrtcGetCUBINSize, program)
    call(nvrtc.nvrtcGetCUBIN, program, cubin)
    call(nvrtc.nvrtcDestroyProgram, program)
    return cubin


def _same_major(nvrtc: int, file: str) -> None:
    """EngineMismatch where NVRTC is of another CUDA than the bindings, whose driver then may not load its code."""
    from importlib.metadata import version

    bindings = version("cuda-bindings")
    if int(bindings.split(".")[0]) != nvrtc:
        do = f"pip install 'nvidia-cuda-nvrtc=={bindings.split('.')[0]}.*'"
        raise EngineMismatch(f"NVRTC is of CUDA {nvrtc}, cuda-bindings is {bindings}", file, do)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def pointer(address: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(address)


def nms_workspace(images: int) -> int:
    """Bytes of device memory that `nms` needs for a batch."""
    return images * (MAX_BOXES * _ROW + 256)


def nms(
    launch: Launch, images: int, boxes: int, threshold: float, iou: float,
    xyxy: int, scores: int, workspace: int, counts: int, faces: int,
) -> None:  # fmt: skip
    """Suppress, as Detections.nms does, what is left of xyxy float32 [images, boxes, 4] and scores float32
    [images, boxes] at scores >= threshold: counts int32 [images] and faces float32 [images, boxes, 5] (left, top,
    right, bottom, score; best first, zeros behind). All are device addresses, the workspace's a multiple of 256.

    ValueError above MAX_BOXES boxes.
    """
    if not 0 <= boxes <= MAX_BOXES or images < 1:
        raise ValueError(f"{images} images of {boxes} boxes; at most {MAX_BOXES} boxes fit")
    mask = workspace
    order_at = images * MAX_BOXES * (MAX_BOXES // 64) * 8
    sorted_at = order_at + images * MAX_BOXES * 4
    count_at = sorted_at + images * MAX_BOXES * 16
    order = workspace + order_at
    ranked = workspace + sorted_at
    count = workspace + count_at
    n = ctypes.c_int(boxes)
    words = max(1, -(-boxes // 64))
    first = [pointer(xyxy), pointer(scores), n, ctypes.c_float(threshold)]
    launch("nms_sort", (images, 1, 1), (1024, 1, 1), [*first, pointer(ranked), pointer(order), pointer(count)])
    second = [pointer(ranked), pointer(count), ctypes.c_float(iou), pointer(mask)]
    launch("nms_mask", (words, words, images), (64, 1, 1), second)
    third = [pointer(ranked), pointer(order), pointer(count), pointer(mask), pointer(scores), n]
    launch("nms_scan", (images, 1, 1), (1024, 1, 1), [*third, pointer(counts), pointer(faces)])
