"""Which backend is chosen, and what is said of those that were not. That there is a GPU is made up here; the plans'
sidecars are real files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import msgspec
import pytest
from facestream.engines import loader
from facestream.engines.base import Detector
from facestream.engines.build.sidecar import Profile, Sidecar, digest
from facestream.engines.cuda.driver import GpuInfo, find_gpu
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.errors import BadConfig, EngineMismatch
from facestream.engines.loader import WEIGHTS, load_detector, load_torch
from facestream.engines.onnx_engine import OnnxDetector
from facestream.engines.options import BACKENDS, DetectorOptions
from facestream.pipeline.config import DetectorConfig

from tests.cuda import needs_compiler, stand_in_driver

ROOT = Path(__file__).parents[2]
SHIPPED = WEIGHTS / "plainXS16.onnx"
GPU = GpuInfo("A GPU", 89, 13000)


class Made(Detector):
    """Only says what it was made of."""

    def __init__(self, made_of: str) -> None:
        super().__init__(DetectorOptions())
        self.made_of = made_of

    def infer(self, images: Any) -> Any:
        raise NotImplementedError


class Device:
    gpu = GPU


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Detector]:
    """choose(backend, *broken) on a machine with a GPU, in an empty folder with a model of its own."""
    copyfile(SHIPPED, tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("facestream.engines.cuda.devices.current_device", lambda index: Device())
    monkeypatch.setattr("facestream.engines.cuda.kernels.compile_kernels", lambda file, capability: b"")

    def choose(backend: str, *broken: str) -> Detector:
        def make(path: Path, options: DetectorOptions, **more: Any) -> Detector:
            name = "torch" if more else str(path)
            if name in broken:
                raise EngineMismatch("does not work", name)
            return Made(name)

        monkeypatch.setattr(loader, "load_file", make)
        monkeypatch.setattr(loader, "load_torch", make)
        return load_detector("net.onnx", DetectorOptions(backend=backend, verify=False))

    return choose


def plan(name: str, backend: str, model: Path = SHIPPED) -> None:
    Path(name).write_bytes(b"plan")
    shape = (1, 32, 32)
    hashes = {"weights": digest(model.read_bytes())}
    norm = Normalisation((0.0,) * 3, (1.0,) * 3)
    profiles = (Profile(shape, shape, shape),)
    Sidecar(backend, "1", GPU, "fp16", profiles, norm, False, None, None, hashes, "build it").write(Path(name))


def test_plans_come_before_torch_and_torch_before_the_cpu(with_gpu: Callable[..., Any]) -> None:
    plan("net.plan", "rtx")
    plan("net.a100.plan", "tensorrt")
    for broken, made_of, words in (
        ((), "net.a100.plan", "tensorrt on A GPU, net.a100.plan"),
        (("net.a100.plan",), "net.plan", "rtx on A GPU, net.plan; net.a100.plan: does not work"),
        (
            ("net.a100.plan", "net.plan"),
            "torch",
            "torch on A GPU; net.a100.plan: does not work; net.plan: does not",
        ),
        (
            ("net.a100.plan", "net.plan", "torch"),
            "net.onnx",
            "ONNX Runtime on the CPU, not A GPU: net.a100.plan: doe",
        ),
    ):
        detector = with_gpu("auto", *broken)
        assert detector.made_of == made_of
        assert detector.chosen.startswith(words)
    with pytest.raises(EngineMismatch, match=r"nothing here runs it on A GPU: .*net\.plan: does.*torch: does not"):
        with_gpu("cuda", "net.a100.plan", "net.plan", "torch")
    assert with_gpu("cuda").made_of == "net.a100.plan"
    assert with_gpu("torch").made_of == "torch"
    assert with_gpu("file").chosen == ""


def test_only_plans_of_this_model_are_taken(with_gpu: Callable[..., Any]) -> None:
    assert with_gpu("auto").chosen == "torch on A GPU; there is no net.plan"
    plan("net.plan", "rtx", WEIGHTS / "plainS.onnx")
    assert with_gpu("auto").chosen == "torch on A GPU; net.plan was built of another file than net.onnx"
    plan("net.plan", "rtx")
    Path("net.plan.json").unlink()
    assert "net.plan.json: the plan's sidecar is missing" in with_gpu("auto").chosen
    plan("another.plan", "rtx")
    assert with_gpu("auto").made_of == "torch"


def test_a_gpu_without_nvrtc_is_none(with_gpu: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(file: str, capability: int) -> bytes:
        raise BadConfig("NVRTC cannot be loaded", file, "pip install nvidia-cuda-nvrtc")

    monkeypatch.setattr("facestream.engines.cuda.kernels.compile_kernels", missing)
    assert with_gpu("auto").chosen == "ONNX Runtime on the CPU (NVRTC cannot be loaded)"
    with pytest.raises(BadConfig, match="pip install nvidia-cuda-nvrtc"):
        with_gpu("cuda")


@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_without_a_gpu_auto_takes_the_cpu_and_the_others_say_why() -> None:
    detector = load_detector("plainXS16", DetectorOptions(backend="auto", verify=False))
    assert isinstance(detector, OnnxDetector)
    assert detector.chosen.startswith("ONNX Runtime on the CPU (")
    pytest.importorskip("torch", reason="needs torch")
    for backend in ("cuda", "torch"):
        with pytest.raises(EngineMismatch, match="cuda"):
            load_detector("plainXS16", DetectorOptions(backend=backend, verify=False))


def test_what_is_asked_for_wrongly_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadConfig, match="known: file, auto"):
        load_detector("plainXS16", DetectorOptions(backend="tpu"))
    (tmp_path / "net.xml").write_text("<net/>")
    with pytest.raises(BadConfig, match=r"torch runs \.onnx files"):
        load_detector(str(tmp_path / "net.xml"), DetectorOptions(backend="torch"))
    torch = pytest.importorskip("torch", reason="needs torch")
    monkeypatch.setitem(sys.modules, "onnx", None)
    threads = torch.get_num_threads()
    with pytest.raises(BadConfig, match=r"onnx is not installed \(pip install 'facestream\[torch\]'\)"):
        load_torch(SHIPPED, DetectorOptions(threads=threads), False)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "facestream.engines.torch_engine", raising=False)
    monkeypatch.delattr("facestream.engines.torch_engine", raising=False)
    with pytest.raises(BadConfig, match=r"torch is not installed \(pip install 'facestream\[torch\]'\)"):
        load_torch(SHIPPED, DetectorOptions(), True)


def test_the_setting_takes_the_backends_that_there_are() -> None:
    schema = msgspec.json.schema(DetectorConfig)["$defs"]["DetectorConfig"]["properties"]["backend"]
    assert sorted(schema["enum"]) == sorted(BACKENDS)
    assert DetectorConfig(backend="auto").options().backend == "auto"


@needs_compiler
def test_the_command_says_which_it_took(tmp_path: Path) -> None:
    """On a GPU that is there for the driver alone, with a torch that has no CUDA."""
    torch = pytest.importorskip("torch", reason="needs torch")
    if torch.version.cuda:
        pytest.skip("this torch has CUDA")
    environment = stand_in_driver(tmp_path) | {"FACESTREAM_GPUS": "2"}
    film = ROOT / "tools/demo.mp4"
    said = {}
    for backend in ("auto", "torch"):
        words = [sys.executable, "-m", "facestream", "detect", film, "-o", tmp_path / f"{backend}.jsonl", "--quiet"]
        words += ["--backend", backend, "--size", "160x96", "--detect-every", "50", "--model", "plainXS16"]
        words += ["--device", "cuda:1"]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if " tiles" not in line]  # so small an input
        said[backend] = done.returncode, *lines
    code, line = said["auto"]
    assert code == 0
    assert "info: detector: ONNX Runtime on the CPU, not CPU stand-in 1: " in line
    assert "there is no plainXS16.plan" in line
    assert "has no CUDA" in line
    code, line = said["torch"]
    assert code == 2
    assert "facestream: error: torch: this torch" in line
    assert (tmp_path / "auto.jsonl").is_file()
    assert not (tmp_path / "torch.jsonl").exists()
