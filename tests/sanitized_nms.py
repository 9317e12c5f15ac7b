"""Runs a compiled nms.cu over some sizes, in a process with AddressSanitizer."""

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from facestream.engines.cuda.kernels import nms, nms_workspace

library = ctypes.CDLL(sys.argv[1])
library.launch.restype = ctypes.c_char_p
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p


def block(data: bytes | int) -> int:
    """Memory with red zones around it."""
    size = data if isinstance(data, int) else len(data)
    address = libc.malloc(ctypes.c_size_t(size))
    ctypes.memmove(address, data, size) if isinstance(data, bytes) else ctypes.memset(address, 0xAB, size)
    return int(address)


def launch(name, grid, block, arguments):  # type: ignore[no-untyped-def]
    sizes = (ctypes.c_uint * 5)(*grid, *block[:2])
    pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
    problem = library.launch(name.encode(), sizes, ctypes.c_uint64(3), pointers)
    assert problem is None, problem


rng = np.random.default_rng(0)
for images, boxes in ((1, 0), (1, 1), (2, 64), (3, 65), (1, 300), (1, 1025)):
    corner = rng.uniform(0, 500, (images, boxes, 2))
    xyxy = np.concatenate([corner, corner + rng.uniform(0, 60, corner.shape)], 2).astype(np.float32)
    scores = np.ones((images, boxes)) if boxes > 1000 else rng.uniform(0.2, 1, (images, boxes))
    nms(
        launch, images, boxes, 0.3, 0.3, block(xyxy.tobytes()), block(scores.astype(np.float32).tobytes()),
        block(nms_workspace(images)), block(4 * images), block(images * boxes * 20),
    )  # fmt: skip
