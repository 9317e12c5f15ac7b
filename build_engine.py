"""Compile trained SSH weights into the graph that ships: weights -> fused plain net -> ONNX, checked against torch.

python build_engine.py runs/plainS/weights.safetensors -o engines/weights/plainS.onnx
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import click

from engines.command import finish
from engines.errors import BadInput, EngineMismatch

BOX_TOLERANCE = 0.05  # pixels of the input
SCORE_TOLERANCE = 1e-3


def export_onnx(weights: Path, out: Path) -> dict[str, object]:
    """Write the fused graph of a .safetensors file as ONNX with dynamic batch, height and width.

    images uint8 [N, H, W, 3] -> xyxy float32 [N, 3000, 4] in input pixels, scores float32 [N, 3000];
    normalisation, top 1000 a module and box decoding are inside. Returns what was built.
    """
    import onnx
    import torch

    from train.checkpoint import load_weights
    from train.model import Deploy

    model, note = load_weights(weights)
    deploy = Deploy(model).eval()
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
    """Largest box (pixels) and score differences between a torch module and an ONNX file.

    Pictures: random patches, batches of one and two, three shapes. Every torch box with a score of
    at least 0.02 must have its like. EngineMismatch above BOX_TOLERANCE or SCORE_TOLERANCE.
    """
    import numpy as np
    from torch import nn

    from engines.detector import DetectorOptions
    from engines.onnx_engine import OnnxDetector
    from engines.torch_engine import TorchDetector

    assert isinstance(module, nn.Module)
    options = DetectorOptions()
    pair = TorchDetector(module, options), OnnxDetector(path, options)
    rng = np.random.default_rng(0)
    box_worst = score_worst = 0.0
    compared = 0
    for n, h, w in ((1, 32, 32), (1, 192, 320), (2, 384, 640)):
        coarse = rng.integers(0, 256, (n, h // 8, w // 8, 3), dtype=np.uint8)
        images = coarse.repeat(8, axis=1).repeat(8, axis=2)
        (boxes_a, scores_a), (boxes_b, scores_b) = (engine.infer(images) for engine in pair)
        for i in range(n):
            order = np.argsort(-scores_a[i], kind="stable")[:300]
            order = order[scores_a[i, order] >= min(0.02, scores_a[i].max() / 2)]
            distance = np.abs(boxes_a[i, order, None] - boxes_b[i][None]).max(-1)
            distance = distance + 1e3 * np.abs(scores_a[i, order, None] - scores_b[i][None])
            like = distance.argmin(1)
            box_worst = max(box_worst, float(np.abs(boxes_a[i, order] - boxes_b[i, like]).max()))
            score_worst = max(score_worst, float(np.abs(scores_a[i, order] - scores_b[i, like]).max()))
            compared += len(order)
    result = {"boxes_compared": compared, "box_error_px": box_worst, "score_error": score_worst}
    if box_worst > BOX_TOLERANCE or score_worst > SCORE_TOLERANCE:
        raise EngineMismatch(f"differs from torch: {result}", str(path), "do not ship it")
    return result


@click.command()
@click.argument("weights", type=click.Path(path_type=Path), default=Path("runs/plainS/weights.safetensors"))
@click.option(
    "-o", "--output", "out", type=click.Path(path_type=Path), default=Path("engine.onnx"), help="file to write"
)
@click.option("--backend", type=click.Choice(["onnx"]), default="onnx", help="what to compile for")
def build(weights: Path, out: Path, backend: str) -> None:
    """Compile weights, with a parity check against torch."""
    if not out.parent.is_dir():
        raise BadInput("the folder does not exist", str(out.parent))
    print(json.dumps(export_onnx(weights, out)))


if __name__ == "__main__":
    finish(build, "build_engine")
