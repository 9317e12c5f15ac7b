"""Which backend runs a model where the settings leave it open: the best that the machine's card can do, and why."""

from __future__ import annotations

from pathlib import Path

from facestream.engines.cuda_driver import current_device
from facestream.engines.detector import BACKENDS, Detector, DetectorOptions, load_file
from facestream.engines.errors import BadConfig, EngineMismatch, UserError
from facestream.engines.kernels import compile_kernels
from facestream.engines.sidecar import Sidecar, digest

PLANS = ("tensorrt", "rtx")  # the best first


def load_by(backend: str, path: Path, options: DetectorOptions) -> Detector:
    """A detector of one of BACKENDS but file; see `detector.load`."""
    if backend not in BACKENDS:
        raise BadConfig(f"unknown backend {backend!r}", "detector.backend", f"known: {', '.join(BACKENDS)}")
    if path.suffix != ".onnx":
        if backend in ("auto", "cuda"):  # the file leaves no choice
            return load_file(path, options)
        raise BadConfig(f"{backend} runs .onnx files", str(path), "give the .onnx that it was built from")
    if backend in ("torch", "torch-cpu"):
        return by_torch(path, options, card=backend == "torch")
    return best(path, options, must=backend == "cuda")


def by_torch(path: Path, options: DetectorOptions, card: bool) -> Detector:
    """torch on the card or on the CPU. BadConfig without torch or onnx; see torch_engine.on_card for the rest."""
    try:
        from facestream.engines import torch_engine

        return torch_engine.on_card(path, options) if card else torch_engine.on_cpu(path, options)
    except ModuleNotFoundError as e:
        if e.name not in ("torch", "onnx"):
            raise
        raise BadConfig(f"{e.name} is not installed", "detector.backend", "pip install 'facestream[torch]'") from None


def best(path: Path, options: DetectorOptions, must: bool) -> Detector:
    """The first that works here: a plan of this model for TensorRT, one for TensorRT-RTX, torch, ONNX Runtime on the
    CPU; `chosen` says which, and what was the matter with those before it. must: EngineMismatch in place of the CPU."""
    try:
        card = usable()
    except UserError as e:
        if must:
            raise
        return _told(load_file(path, options), f"ONNX Runtime on the CPU ({e.what})")
    found, why = plans(path)
    for plan, backend in found:
        try:
            return _told(load_file(plan, options), "; ".join([f"{backend} on {card}, {plan}", *why]))
        except UserError as e:
            why.append(str(e))
    try:
        return _told(by_torch(path, options, card=True), "; ".join([f"torch on {card}", *why]))
    except UserError as e:
        why.append(str(e))
    if must:
        raise EngineMismatch(f"nothing here runs it on {card}: {'; '.join(why)}", str(path), "see docs/gpu.md")
    return _told(load_file(path, options), f"ONNX Runtime on the CPU, not {card}: {'; '.join(why)}")


def usable() -> str:
    """The name of the card, when our kernels can be compiled for it. UserError in one line without driver or card, and
    for what is not installed."""
    card = current_device().card
    for file in ("preprocess.cu", "nms.cu"):
        compile_kernels(file, card.capability)
    return card.name


def plans(path: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """Plans of a model in the working folder and beside it, NAME.plan or NAME.*.plan, with their backends, TensorRT's
    first; and what is the matter with others of that name."""
    model, made, why = digest(path.read_bytes()), dict[Path, tuple[Path, str]](), []
    here = [
        plan
        for folder in dict.fromkeys((Path(), path.parent))
        for plan in sorted([*folder.glob(f"{path.stem}.plan"), *folder.glob(f"{path.stem}.*.plan")])
    ]
    for plan in here:
        try:
            sidecar = Sidecar.read(plan)
        except UserError as e:
            why.append(str(e))
            continue
        if sidecar.hashes.get("weights") != model:
            why.append(f"{plan} was built of another file than {path.name}")
        elif sidecar.backend in PLANS:
            made.setdefault(plan.resolve(), (plan, sidecar.backend))
    if not here:
        why.append(f"there is no {path.stem}.plan")
    return sorted(made.values(), key=lambda found: PLANS.index(found[1])), why


def _told(detector: Detector, why: str) -> Detector:
    detector.chosen = why
    return detector
