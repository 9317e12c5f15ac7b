"""python -m train.bootstrap --data DIR --engine NET -o FILE: what a net takes for faces in training pictures where none
is, for `python -m train --mined FILE`, which builds crops around these places (bootstrapping, Sung and Poggio 1998).

One JSON object a line: {"picture": path below --data, "xyxy": boxes in its pixels, "scores": theirs}.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, iou_xyxy
from facestream.engines.command import finish
from facestream.engines.errors import BadInput
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.train.data import Labelled, read_image, read_split
from facestream.train.test_scales import Scales
from tqdm import tqdm

APART = 0.1  # IoU to any label, valid or ignored, from which a box is no false alarm


def false_boxes(detector: Detector, item: Labelled, zoom: float = 1.0) -> tuple[F32, F32]:
    """Boxes [K, 4] in the picture's pixels and scores [K] of what touches no label."""
    found = Scales(zoom=zoom).detect(detector, read_image(item.path))
    if len(item.xyxy):
        found = found.select(np.asarray((iou_xyxy(found.xyxy, item.xyxy) < APART).all(1), bool))
    return found.xyxy, found.scores


def write_mined(path: Path, root: Path, rows: list[tuple[Labelled, F32, F32]]) -> int:
    """Write the pictures that have any; returns the number of boxes."""
    lines = [
        json.dumps({
            "picture": str(item.path.relative_to(root)),
            "xyxy": [[round(float(v), 1) for v in box] for box in xyxy],
            "scores": [round(float(s), 3) for s in scores],
        })
        for item, xyxy, scores in rows
        if len(xyxy)
    ]  # fmt: skip
    path.write_text("".join(line + "\n" for line in lines))
    return sum(len(xyxy) for _, xyxy, _ in rows)


def read_mined(path: Path, root: Path) -> dict[Path, F32]:
    """Boxes [K, 4] by picture. BadInput for a file that `write_mined` has not written."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {root / row["picture"]: np.asarray(row["xyxy"], np.float32).reshape(-1, 4) for row in rows}
    except OSError:
        raise BadInput("not found", str(path), "python -m train.bootstrap writes one") from None
    except (ValueError, KeyError, TypeError) as e:
        raise BadInput(f"not a list of mined boxes ({type(e).__name__})", str(path)) from None


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="folder in WIDER FACE's layout")
@click.option("--engine", required=True, help="a shipped model's name or an .onnx file")
@click.option("--threshold", default=0.15, show_default=True, help="score from which a box is a false alarm")
@click.option("--every", default=1, show_default=True, help="look at each N-th picture with faces; all without")
@click.option("--zoom", default=1.0, show_default=True, help="show pictures this much larger or smaller")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True)
def command(data: Path, engine: str, threshold: float, every: int, zoom: float, out: Path) -> None:
    """Collect a net's false alarms in the training pictures."""
    detector = load_detector(engine, DetectorOptions(threshold=threshold, verify=False))
    images = read_split(data, "train")
    empty = [item for item in images if not (~item.ignore).any()]
    chosen = empty + [item for item in images if (~item.ignore).any()][::every]
    rows = [(item, *false_boxes(detector, item, zoom)) for item in tqdm(chosen, unit="image", disable=None)]
    print(f"{write_mined(out, data, rows)} false alarms in {len(chosen)} pictures, {len(empty)} of them without a face")


if __name__ == "__main__":
    finish(command, "bootstrap")
