"""A GPU's stand-in for `gpu_check.py --dry-run`: the kernels and the net run on the CPU, on frames of a few pixels. It
shows that the parts go through on this machine with what is installed; its times mean nothing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from facestream.benchmarks.gpu_nets import Skipped
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.cuda.pipeline import GpuPipeline
from facestream.engines.options import DetectorOptions

VARIABLE = "FACESTREAM_GPU_DRY"


def dry() -> bool:
    return bool(os.environ.get(VARIABLE))


def device() -> Any:
    """The tests' stand-in. Skipped without g++, which builds the kernels."""
    if shutil.which("g++") is None:
        raise Skipped("a dry run builds the kernels with g++")
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.lazy_device import LazyDevice

    return LazyDevice(1)


def smallest() -> str:
    """Name of the smallest shipped net, which the stand-in runs."""
    from facestream.engines.loader import WEIGHTS, shipped

    return min(shipped(), key=lambda name: (WEIGHTS / f"{name}.onnx").stat().st_size)


def net(made: Any, inside: bool = False) -> tuple[Any, Any]:
    """The smallest shipped net on the CPU, and what its input expects."""
    from facestream.engines.build.fp16 import Fp16Detector, to_fp16
    from facestream.engines.build.sidecar import Profile
    from facestream.engines.loader import WEIGHTS

    from tests.lazy_device import CpuNet

    data, normalisation, _ = to_fp16(WEIGHTS / f"{smallest()}.onnx")
    profiles = (Profile((1, 32, 32), (2, 64, 64), (8, 192, 320)), Profile((1, 32, 32), (2, 64, 64), (8, 320, 192)))
    detector = Fp16Detector(data, normalisation, DetectorOptions())
    return CpuNet(made, detector, profiles, inside), normalisation


def detector(made: Any, options: DetectorOptions) -> GpuDetector:
    runs, normalisation = net(made)
    return GpuDetector(GpuPipeline(made, runs, normalisation, options.threshold, options.nms_iou), 8, options)
