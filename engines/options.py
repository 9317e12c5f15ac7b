"""Options of detectors. Imports no library, so that reading settings does not import any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Backend = Literal["file", "auto", "cuda", "torch", "torch-cpu"]  # see loader.load_detector
BACKENDS: tuple[str, ...] = get_args(Backend)
DEVICE = r"cuda:\d{1,3}"  # how a GPU is named in settings


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """threshold: faces with a lower score are not returned. nms_iou: of two boxes that
    overlap more, the better one stays (SSH: 0.3, all modules together). threads: CPU threads of the runtime.
    backend: one of BACKENDS, what runs the model. device: the GPU for those that use one, as CUDA numbers it.
    verify: the verifier scores each box again, see engines.verified; detectors that take frames as stored have none."""

    threshold: float = 0.2
    nms_iou: float = 0.3
    threads: int = 1
    backend: str = "file"
    device: str = "cuda:0"
    verify: bool = True
