"""Compile trained SSH weights into the graph that ships: weights -> fused plain net -> ONNX, checked against torch.

python build_engine.py runs/plainS/weights.safetensors -o engines/weights/plainS.onnx
python build_engine.py engines/weights/plainS.onnx --backend openvino --precision int8 --calibrate PHOTOS -o plainS.xml
python build_engine.py engines/weights/plainS.onnx --backend rtx -o plainS.plan
python build_engine.py engines/weights/plainS.onnx --backend rtx --precision int8 --calibrate PHOTOS -o plainS.plan
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import click

from facestream.engines.build.pictures import calibration
from facestream.engines.build.tensorrt import PROFILES, PlanOptions, profiles_of
from facestream.engines.command import finish
from facestream.engines.cuda.devices import index_of
from facestream.engines.errors import BadConfig, BadInput, EngineMismatch

BOX_TOLERANCE = 0.05  # pixels of the input
SCORE_TOLERANCE = 1e-3


def export_onnx(weights: Path, out: Path) -> dict[str, object]:
    """Write the fused graph of a .safetensors file as ONNX with dynamic batch, height and width.

    images uint8 [N, H, W, 3] -> xyxy float32 [N, K, 4] in input pixels, scores float32 [N, K], K <= 3000;
    normalisation, the best of each module (3000 in all), the scores' calibration and box decoding are inside.
    Returns what was built.
    """
    import onnx
    import torch

    from facestream.train.checkpoint import load_deploy, load_weights

    model, note = load_weights(weights)
    deploy = load_deploy(weights)
    part = out.with_name(out.name + ".part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of every shape it reads
            torch.onnx.export(
                deploy,
                (torch.zeros(1, 256, 320, 3, dtype=torch.uint8),),
                str(part),
                dynamo=False,  # the newer exporter takes a minute for the same graph
                opset_version=17,
                input_names=["images"],
                output_names=["xyxy", "scores"],
                dynamic_axes={"images": {0: "N", 1: "H", 2: "W"}, "xyxy": {0: "N"}, "scores": {0: "N"}},
            )
        graph = onnx.load(part)
        onnx.checker.check_model(graph, full_check=True)
        about = {
            "spec": model.spec.as_dict(),
            "top_k": model.spec.top_k,
            "trained": note,
            "parameters": sum(p.numel() for p in deploy.parameters()),
        }
        graph.metadata_props.add(key="facestream", value=json.dumps(about))
        onnx.save(graph, part)
        parity = compare(deploy, part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return {"file": str(out), "bytes": out.stat().st_size, "parameters": about["parameters"], **parity}


def compare(module: object, path: Path) -> dict[str, float]:
    """`differences` of a torch module and an ONNX file. EngineMismatch above BOX_TOLERANCE or SCORE_TOLERANCE."""
    from torch import nn

    from facestream.engines.build.parity import differences
    from facestream.engines.onnx_engine import OnnxDetector
    from facestream.engines.options import DetectorOptions
    from facestream.engines.torch_engine import TorchDetector

    assert isinstance(module, nn.Module)
    options = DetectorOptions()
    result = differences(TorchDetector(module, options), OnnxDetector(path, options))
    if result["box_error_px"] > BOX_TOLERANCE or result["score_error"] > SCORE_TOLERANCE:
        raise EngineMismatch(f"differs from torch: {result}", str(path), "do not ship it")
    return result


def export_openvino(model: Path, out: Path, precision: str, calibrate: Path | None) -> dict[str, object]:
    """Write an OpenVINO model, OUT.xml and OUT.bin, from an .onnx or .safetensors file: see `compile_openvino`. The
    photographs in `calibrate` are compared on; int8 needs them."""
    from facestream.engines.build.openvino import compile_openvino

    pictures = calibration(calibrate) if calibrate is not None else None
    with tempfile.TemporaryDirectory() as folder:
        return compile_openvino(_as_onnx(model, Path(folder)), out, precision, pictures)


def _as_onnx(model: Path, folder: Path) -> Path:
    """A model as .onnx, exported into the folder where it is none."""
    if model.suffix == ".onnx":
        return model
    source = folder / "model.onnx"
    export_onnx(model, source)
    return source


def export_plan(
    model: Path, out: Path, backend: str, options: PlanOptions, calibrate: Path | None, verify: bool
) -> dict[str, Any]:
    """Write OUT.plan and OUT.plan.json for a GPU from an .onnx or .safetensors file, in half precision or int8.

    The photographs in `calibrate` measure the net's range and are compared on, besides random patches; int8 takes its
    scales from them. verify: run the plan on this machine's GPU and hold the faces that it finds against the graph's.
    """
    from facestream.engines.build.parity import FACES, PATCHES
    from facestream.engines.build.sidecar import path_of
    from facestream.engines.build.tensorrt import compile_plan, verify_plan
    from facestream.engines.cuda.devices import current_device, index_of
    from facestream.engines.loader import load_detector
    from facestream.engines.options import DetectorOptions
    from facestream.engines.tensorrt_library import library

    library(backend)
    if verify:
        current_device(index_of(options.device))  # says so now, not after minutes, when there is none
    if options.precision == "int8" and calibrate is None:
        raise BadConfig("int8 needs photographs of the kind it will see", "--calibrate", "give a folder")
    pictures = calibration(calibrate) if calibrate is not None else None
    with tempfile.TemporaryDirectory() as folder:
        source = _as_onnx(model, Path(folder))
        command = shlex.join(["python", "build_engine.py", *sys.argv[1:]])
        built = compile_plan(backend, source, out, options, pictures, command)
        if verify:
            threshold = FACES if pictures else PATCHES
            wanted = DetectorOptions(threshold=threshold, nms_iou=options.nms_iou, device=options.device)
            _, height, width = options.profiles[0].opt
            try:
                pair = load_detector(str(source), wanted), load_detector(str(out), wanted)
                found = verify_plan(*pair, (width, height), options.precision, pictures)
            except EngineMismatch:
                for file in (out, path_of(out)):
                    file.unlink(missing_ok=True)
                raise
            built |= {f"card_{key}": value for key, value in found.items()}
    return built


SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".plan", "rtx": ".plan"}


@click.command()
@click.argument("weights", type=click.Path(path_type=Path), default=Path("runs/plainS/weights.safetensors"))
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), help="file to write [default: engine.*]")
@click.option("--backend", type=click.Choice(list(SUFFIX)), default="onnx", help="what to compile for")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="default fp32, for a GPU fp16")
@click.option("--calibrate", type=click.Path(path_type=Path), help="folder of photographs, for int8 and for comparing")
@click.option("--profile", "shapes", multiple=True, help="GPU: min,opt,max input, each NxWIDTHxHEIGHT; repeatable")
@click.option("--portable", is_flag=True, help="tensorrt: for newer versions and all GPUs from Ampere on")
@click.option("--nms-iou", type=float, default=0.3, show_default=True, help="tensorrt: of the NMS inside the plan")
@click.option("--timing-cache", type=click.Path(path_type=Path), help="tensorrt: what was measured, for the next build")
@click.option("--device", default="cuda:0", show_default=True, help="which GPU to build and verify on")
@click.option("--verify", is_flag=True, help="run the plan on this machine's GPU and compare what it finds")
def build(
    weights: Path, out: Path | None, backend: str, precision: str | None, calibrate: Path | None,
    shapes: tuple[str, ...], portable: bool, nms_iou: float, timing_cache: Path | None, device: str,
    verify: bool,
) -> None:  # fmt: skip
    """Compile weights (.safetensors; for openvino and GPUs also .onnx), with a parity check."""
    suffix = SUFFIX[backend]
    out = out or Path("engine" + suffix)
    if not out.parent.is_dir():
        raise BadInput("the folder does not exist", str(out.parent))
    if out.suffix != suffix:
        raise BadConfig(f"must end in {suffix} for {backend}", f"-o {out}")
    if backend == "onnx":
        if precision not in (None, "fp32"):
            raise BadConfig(f"{precision} is not faster there", "--backend onnx", "use --backend openvino")
        print(json.dumps(export_onnx(weights, out)))
        return
    if not weights.is_file():
        raise BadInput("not found", str(weights))
    if backend == "openvino":
        print(json.dumps(export_openvino(weights, out, precision or "fp32", calibrate)))
        return
    if precision == "fp32":
        raise BadConfig("fp32 is not built for GPUs", f"--backend {backend}", "leave it at fp16, or int8")
    profiles = profiles_of(shapes) or PROFILES
    index_of(device)  # or it says what a GPU is called
    options = PlanOptions(profiles, precision or "fp16", portable, nms_iou, timing_cache=timing_cache, device=device)
    print(json.dumps(export_plan(weights, out, backend, options, calibrate, verify)))


def main() -> None:
    finish(build, "build_engine")


if __name__ == "__main__":
    main()
