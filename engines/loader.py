"""`load_detector` creates a detector from a name or a file, and chooses the backend if the settings leave it open."""

from __future__ import annotations

from pathlib import Path

from facestream.engines.base import Detector
from facestream.engines.errors import BadConfig, BadInput, EngineMismatch, UserError
from facestream.engines.options import BACKENDS, DetectorOptions

WEIGHTS = Path(__file__).parent / "weights"
PLANS = ("tensorrt", "rtx")  # the best first


def shipped() -> list[str]:
    """Names of the shipped models."""
    return sorted(path.stem for path in WEIGHTS.glob("*.onnx"))


def load_detector(name: str, options: DetectorOptions | None = None) -> Detector:
    """A detector by the name of a shipped model (`plainS`) or by the path of an .onnx, .xml or .plan file.

    options.backend says what runs it. file: what the file is for, ONNX Runtime (.onnx), OpenVINO (.xml), TensorRT or
    TensorRT-RTX (.plan). For an .onnx file also cuda: the best that this machine's NVIDIA GPU can do (see
    engines.loader), an error where it can do nothing; auto: the same, but ONNX Runtime in that case; torch: torch on
    the GPU; torch-cpu: torch in float32 without one.

    BadConfig for a name that is not shipped, a backend that is none or not for such a file, and for what is not
    installed; BadInput for a missing file; EngineMismatch for a file that is not a detector, and for a missing GPU.
    """
    options = options or DetectorOptions()
    path = Path(name)
    if path.suffix not in (".onnx", ".xml", ".plan"):
        path = WEIGHTS / f"{name}.onnx"
        if not path.is_file():
            known = ", ".join(shipped()) or "none"
            do = f"shipped: {known}; or the path of an .onnx, .xml or .plan file"
            raise BadConfig(f"unknown model {name!r}", "detector.model", do)
    if not path.is_file():
        raise BadInput("not found", str(path), "build it with: python build_engine.py")
    detector = load_unverified(path, options)
    if not options.verify or detector.takes_yuv:
        return detector
    from facestream.engines.verified import VerifiedDetector, shared_verifier

    return VerifiedDetector(detector, options, shared_verifier(threads=options.threads))


def load_unverified(path: Path, options: DetectorOptions) -> Detector:
    """Load by options.backend, without the verifier."""
    if options.backend != "file":
        return load_by(options.backend, path, options)
    return load_file(path, options)


def load_file(path: Path, options: DetectorOptions) -> Detector:
    """Load by the file's type alone."""
    if path.suffix == ".xml":
        from facestream.engines.openvino_engine import OpenVinoDetector

        return OpenVinoDetector(path, options)
    if path.suffix == ".plan":
        from facestream.engines.tensorrt_engine import TensorRTDetector

        return TensorRTDetector(path, options)
    from facestream.engines.onnx_engine import OnnxDetector

    return OnnxDetector(path, options)


def load_by(backend: str, path: Path, options: DetectorOptions) -> Detector:
    """A detector of one of BACKENDS but file; see `load_detector`."""
    if backend not in BACKENDS:
        raise BadConfig(f"unknown backend {backend!r}", "detector.backend", f"known: {', '.join(BACKENDS)}")
    if path.suffix != ".onnx":
        if backend in ("auto", "cuda"):  # the file leaves no choice
            return load_file(path, options)
        raise BadConfig(f"{backend} runs .onnx files", str(path), "give the .onnx that it was built from")
    if backend in ("torch", "torch-cpu"):
        return load_torch(path, options, gpu=backend == "torch")
    return best(path, options, must=backend == "cuda")


def load_torch(path: Path, options: DetectorOptions, gpu: bool) -> Detector:
    """torch on the GPU or on the CPU. BadConfig without torch or onnx; see torch_engine.on_gpu for the rest."""
    try:
        from facestream.engines import torch_engine

        return torch_engine.on_gpu(path, options) if gpu else torch_engine.on_cpu(path, options)
    except ModuleNotFoundError as e:
        if e.name not in ("torch", "onnx"):
            raise
        raise BadConfig(f"{e.name} is not installed", "detector.backend", "pip install 'facestream[torch]'") from None


def best(path: Path, options: DetectorOptions, must: bool) -> Detector:
    """The first that works here: a plan of this model for TensorRT, one for TensorRT-RTX, torch, ONNX Runtime on the
    CPU; `chosen` says which, and what was the matter with those before it. must: EngineMismatch in place of the CPU."""
    try:
        gpu = usable(options.device)
    except UserError as e:
        if must:
            raise
        return _with_reason(load_file(path, options), f"ONNX Runtime on the CPU ({e.what})")
    found, why = plans(path)
    for plan, backend in found:
        try:
            return _with_reason(load_file(plan, options), "; ".join([f"{backend} on {gpu}, {plan}", *why]))
        except UserError as e:
            why.append(str(e))
    try:
        return _with_reason(load_torch(path, options, gpu=True), "; ".join([f"torch on {gpu}", *why]))
    except UserError as e:
        why.append(str(e))
    if must:
        raise EngineMismatch(f"nothing here runs it on {gpu}: {'; '.join(why)}", str(path), "see docs/gpu.md")
    return _with_reason(load_file(path, options), f"ONNX Runtime on the CPU, not {gpu}: {'; '.join(why)}")


def usable(device: str) -> str:
    """The name of the GPU, when our kernels can be compiled for it. UserError in one line without driver or GPU, and
    for what is not installed."""
    from facestream.engines.cuda.devices import current_device, index_of  # a CPU job need not import them
    from facestream.engines.cuda.kernels import compile_kernels

    gpu = current_device(index_of(device)).gpu
    for file in ("preprocess.cu", "nms.cu"):
        compile_kernels(file, gpu.capability)
    return gpu.name


def plans(path: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """Plans of a model in the working folder and beside it, NAME.plan or NAME.*.plan, with their backends, TensorRT's
    first; and what is the matter with others of that name."""
    from facestream.engines.build.sidecar import Sidecar, digest  # a CPU job need not import it

    model = digest(path.read_bytes())
    made: dict[Path, tuple[Path, str]] = {}
    why = []
    plans = [
        plan
        for folder in dict.fromkeys((Path(), path.parent))
        for plan in sorted([*folder.glob(f"{path.stem}.plan"), *folder.glob(f"{path.stem}.*.plan")])
    ]
    for plan in plans:
        try:
            sidecar = Sidecar.read(plan)
        except UserError as e:
            why.append(str(e))
            continue
        if sidecar.hashes.get("weights") != model:
            why.append(f"{plan} was built of another file than {path.name}")
        elif sidecar.backend in PLANS:
            made.setdefault(plan.resolve(), (plan, sidecar.backend))
    if not plans:
        why.append(f"there is no {path.stem}.plan")
    return sorted(made.values(), key=lambda found: PLANS.index(found[1])), why


def _with_reason(detector: Detector, why: str) -> Detector:
    detector.chosen = why
    return detector
