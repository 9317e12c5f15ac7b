"""The sidecar of a compiled plan (NAME.plan.json): what it was built for, checked before it is loaded.

TensorRT's plans fit one version and, unless built portable, one GPU model; loading another one crashes or, worse, runs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facestream.engines.cuda.driver import GpuInfo
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.cuda.kernels import source_hash
from facestream.engines.errors import BadInput, EngineMismatch

FORMAT = 2
Shape = tuple[int, int, int]  # batch, height, width


@dataclass(frozen=True, slots=True)
class Profile:
    """Input shapes that a plan takes, and the one that it was tuned for."""

    min: Shape
    opt: Shape
    max: Shape

    def holds(self, batch: int, height: int, width: int) -> bool:
        shape = (batch, height, width)
        return all(a <= x <= b for a, x, b in zip(self.min, shape, self.max, strict=True))


@dataclass(frozen=True, slots=True)
class Sidecar:
    """backend: tensorrt or rtx, library: its version. GPU: where it was built, None when that had none.

    portable: for newer versions and all GPUs from Ampere on. nms_iou, nms_threshold: of the NMS inside the plan, None
    when it follows behind. hashes: SHA-256 of plan, weights, onnx and kernels. command: builds it again.
    """

    backend: str
    library: str
    gpu: GpuInfo | None
    precision: str
    profiles: tuple[Profile, ...]
    normalisation: Normalisation
    portable: bool
    nms_iou: float | None
    nms_threshold: float | None
    hashes: dict[str, str]
    command: str

    def write(self, plan: Path) -> None:
        path = path_of(plan)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    @staticmethod
    def read(plan: Path) -> Sidecar:
        """BadInput when it is missing or not one of this format."""
        path = path_of(plan)
        try:
            d: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if d.pop("format") != FORMAT:
                raise BadInput("is of another version", str(path), "build the plan again with build_engine.py")
            d["gpu"] = None if d["gpu"] is None else GpuInfo(**d["gpu"])
            d["profiles"] = tuple(Profile(*(tuple(p[k]) for k in ("min", "opt", "max"))) for p in d["profiles"])
            n = d["normalisation"]
            d["normalisation"] = Normalisation(tuple(n["zero"]), tuple(n["std"]), n["scale"])
            return Sidecar(**d)
        except OSError:
            raise BadInput("the plan's sidecar is missing", str(path), "keep both files together") from None
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise BadInput(f"not a plan's sidecar ({type(e).__name__})", str(path), "build the plan again") from None

    def check(self, plan: Path, data: bytes, library: str, gpu: GpuInfo) -> None:
        """EngineMismatch, with the command that builds it again, when the plan must not be loaded here."""
        found = []
        if digest(data) != self.hashes.get("plan"):
            found.append("the file is not the one that was built")
        if not self._library_fits(library):
            found.append(f"built with {self.backend} {self.library}, here is {library}")
        if self.backend == "tensorrt" and not self.portable:
            if self.gpu is None or (gpu.capability, gpu.name) != (self.gpu.capability, self.gpu.name):
                found.append(f"built for {_gpu_name(self.gpu)}, here is {_gpu_name(gpu)}")
        elif gpu.capability < 80:
            found.append(f"here is {_gpu_name(gpu)}, it needs compute capability 8.0 (Ampere)")
        if self.nms_iou is not None and self.hashes.get("kernels") != source_hash():
            found.append("the NMS inside it is of another version")
        if found:
            raise EngineMismatch("does not fit here: " + "; ".join(found), str(plan), f"rebuild: {self.command}")

    def _library_fits(self, library: str) -> bool:
        if not self.portable:
            return library == self.library
        ours, theirs = ([int(v) for v in version.split(".")[:2]] for version in (self.library, library))
        return ours[0] == theirs[0] and ours <= theirs


def path_of(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _gpu_name(gpu: GpuInfo | None) -> str:
    return "no GPU" if gpu is None else f"{gpu.name} ({gpu.capability // 10}.{gpu.capability % 10})"
