"""Compile trained SSH weights into the graph that ships: weights -> fused plain net -> ONNX, checked against torch.

python build_engine.py runs/plainS/weights.safetensors -o engines/weights/plainS.onnx
python build_engine.py engines/weights/plainS.onnx --backend openvino --precision int8 --calibrate PHOTOS -o plainS.xml
python build_engine.py engines/weights/plainS.onnx --backend rtx -o plainS.plan
python build_engine.py engines/weights/plainS.onnx --backend rtx --precision int8 --calibrate PHOTOS -o plainS.plan
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import click

from facestream.engines.build.tensorrt import PROFILES, PlanOptions, profiles_of
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig, BadInput, EngineMismatch

BOX_TOLERANCE = 0.05  # pixels of the input
SCORE_TOLERANCE = 1e-3


def export_onnx(weights: Path, out: Path) -> dict[str, object]:
    """Write the fused graph of a .safetensors file as ONNX with dynamic batch, height and width.

    images uint8 [N, H, W, 3] -> xyxy float32 [N, K, 4] in input pixels, scores float32 [N, K], K <= 3000;
    normalisation, the best of each module (3000 in all), the scores' calibration and box decoding are inside. Returns what was built.
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

    from facestream.engines.base import DetectorOptions
    from facestream.engines.build.parity import differences
    from facestream.engines.onnx_engine import OnnxDetector
    from facestream.engines.torch_engine import TorchDetector

    assert isinstance(module, nn.Module)
    options = DetectorOptions()
    result = differences(TorchDetector(module, options), OnnxDetector(path, options))
    if result["box_error_px"] > BOX_TOLERANCE or result["score_error"] > SCORE_TOLERANCE:
        raise EngineMismatch(f"differs from torch: {result}", str(path), "do not ship it")
    return result


CALIBRATION = (640, 384)  # width and height that calibration images are fitted into
CALIBRATION_IMAGES = 200


def export_openvino(model: Path, out: Path, precision: str, calibrate: Path | None) -> dict[str, object]:
    """Write an OpenVINO model, OUT.xml and OUT.bin, from an .onnx or .safetensors file.

    fp16 halves the file (the CPU computes in float32 all the same), int8 quantises the convolutions by
    what the pictures in `calibrate` show them; both outputs stay float32.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        source = model
        if model.suffix != ".onnx":
            source = Path(folder) / "model.onnx"
            export_onnx(model, source)
        graph = openvino.Core().read_model(str(source))
        built: dict[str, object] = {"file": str(out), "precision": precision}
        if precision == "int8":
            import nncf
            from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

            if calibrate is None:
                raise BadConfig("int8 needs photographs of the kind it will see", "--calibrate", "give a folder")
            nncf.set_log_level(30)  # warnings; it tells of every layer otherwise
            pictures = calibration(calibrate)
            graph = nncf.quantize(
                graph, nncf.Dataset(pictures), preset=nncf.QuantizationPreset.MIXED, subset_size=len(pictures),
                # Boxes decoded in eight bits cost three points of AP; scores and offsets themselves a fifth of one.
                ignored_scope=nncf.IgnoredScope(names=last_layers(graph), validate=False),
                # Without VNNI, products of two full bytes overflow the CPU's 16-bit sums.
                advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
            )  # fmt: skip
            built["calibrated_on"] = len(pictures)
        part = Path(folder) / "part.xml"
        openvino.save_model(graph, str(part), compress_to_fp16=precision == "fp16")
        built |= compare_files(source, part, pictures if precision == "int8" else None)
        for suffix in (".bin", ".xml"):
            shutil.copyfile(part.with_suffix(suffix), out.with_suffix(suffix + ".part"))
        for suffix in (".bin", ".xml"):
            out.with_suffix(suffix + ".part").replace(out.with_suffix(suffix))
    return built


def last_layers(graph: Any) -> list[str]:
    """Names of the operations from the last convolutions on, these included."""
    names: set[str] = set()
    reached = [result.input_value(0).get_node() for result in graph.get_results()]
    while reached:
        node = reached.pop()
        name = node.get_friendly_name()
        if name in names or node.get_type_name() in ("Constant", "Parameter"):
            continue
        names.add(name)
        if node.get_type_name() != "Convolution":
            reached += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return sorted(names)


def calibration(folder: Path) -> list[Any]:
    """Pictures of a folder and those in it, evenly picked, each uint8 [1, H, W, 3] of CALIBRATION size."""
    import cv2
    import numpy as np

    from facestream.engines.letterbox import view

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp"))
    out = []
    for path in files[:: max(1, len(files) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]:
        picture = cv2.imread(str(path))
        if picture is None:
            raise BadInput("cannot read the image", str(path))
        rgb = view(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), CALIBRATION).rgb[: CALIBRATION[1], : CALIBRATION[0]]
        canvas = np.zeros((1, CALIBRATION[1], CALIBRATION[0], 3), np.uint8)  # a portrait is cut
        canvas[0, : rgb.shape[0], : rgb.shape[1]] = rgb
        out.append(canvas)
    if not out:
        raise BadInput("holds no pictures", str(folder), "--calibrate wants .jpg, .png or .webp files")
    return out


def compare_files(source: Path, built: Path, pictures: list[Any] | None) -> dict[str, float]:
    """`agreement` of an ONNX graph and what was built of it, at a score of 0.3.

    Looked for in the calibration pictures, else in random patches. EngineMismatch under AGREEMENT.
    """
    import numpy as np

    from facestream.engines.base import DetectorOptions
    from facestream.engines.build.parity import AGREEMENT, FACES, PATCHES, agreement
    from facestream.engines.loader import load_detector

    options = DetectorOptions(threshold=FACES if pictures else PATCHES)
    if pictures is None:
        coarse = np.random.default_rng(0).integers(0, 256, (2, 48, 80, 3), dtype=np.uint8)
        pictures = [c[None].repeat(8, axis=1).repeat(8, axis=2) for c in coarse]
    found = agreement(load_detector(str(source), options), load_detector(str(built), options), pictures)
    if found["agreement"] < AGREEMENT:
        what = f"finds {found['agreement']:.0%} of the faces that the graph finds"
        raise EngineMismatch(what, str(built), "calibrate better")
    return found


def export_plan(
    model: Path, out: Path, backend: str, options: PlanOptions, calibrate: Path | None, verify: bool
) -> dict[str, Any]:
    """Write OUT.plan and OUT.plan.json for a GPU from an .onnx or .safetensors file, in half precision or int8.

    The photographs in `calibrate` measure the net's range and are compared on, besides random patches; int8 takes its
    scales from them. verify: run the plan on this machine's GPU and hold the faces that it finds against the graph's.
    """
    from facestream.engines.base import DetectorOptions
    from facestream.engines.build.parity import FACES, PATCHES
    from facestream.engines.build.sidecar import path_of
    from facestream.engines.build.tensorrt import compile_plan, verify_plan
    from facestream.engines.cuda.devices import current_device
    from facestream.engines.loader import load_detector
    from facestream.engines.tensorrt_library import library

    library(backend)
    if verify:
        current_device()  # says so now, not after minutes, when there is none
    if options.precision == "int8" and calibrate is None:
        raise BadConfig("int8 needs photographs of the kind it will see", "--calibrate", "give a folder")
    pictures = calibration(calibrate) if calibrate is not None else None
    with tempfile.TemporaryDirectory() as folder:
        source = model
        if model.suffix != ".onnx":
            source = Path(folder) / "model.onnx"
            export_onnx(model, source)
        command = shlex.join(["python", "build_engine.py", *sys.argv[1:]])
        built = compile_plan(backend, source, out, options, pictures, command)
        if verify:
            wanted = DetectorOptions(threshold=FACES if pictures else PATCHES, nms_iou=options.nms_iou)
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
@click.option("--verify", is_flag=True, help="run the plan on this machine's GPU and compare what it finds")
def build(
    weights: Path, out: Path | None, backend: str, precision: str | None, calibrate: Path | None,
    shapes: tuple[str, ...], portable: bool, nms_iou: float, timing_cache: Path | None, verify: bool,
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
    options = PlanOptions(profiles, precision or "fp16", portable, nms_iou, timing_cache=timing_cache)
    print(json.dumps(export_plan(weights, out, backend, options, calibrate, verify)))


def main() -> None:
    finish(build, "build_engine")


if __name__ == "__main__":
    main()
