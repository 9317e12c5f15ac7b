"""python -m facestream.benchmarks.dark_images --data DIR: labelled pictures at less light, with and without exposure.

DIR is a folder in WIDER FACE's layout; may be given again. The dark ones of its validation pictures (median of the
brightest channel below --median) go through the program's own detection of full frames, as frames of video whose
light is reduced. A face counts as missed when no box of the score overlaps it by an IoU of 0.5; a box that overlaps no
label by 0.3 is a false alarm.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.command import finish
from facestream.engines.errors import BadInput
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.pipeline.config import read
from facestream.pipeline.stages.detect import FullFrameDetector
from facestream.pipeline.types import Frame
from facestream.train.data import Labelled, read_image
from facestream.train.evaluate import false_scores
from facestream.train.test_scales import resized
from facestream.train.wider import evaluate, missed, read_validation
from tqdm import tqdm

LONGEST = 960  # px of the pictures and of the detector's input
LOWEST = 0.02  # score from which boxes count for the precision
SCORE = 0.2


def frame_of(rgb: Array, light: float) -> Frame:
    """An RGB picture uint8 [h, w, 3] with this share of its light as a frame of video."""
    even = rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2]
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray((even * light).astype(np.uint8)), format="rgb24")
    return Frame(0, 0, Fraction(1, 30), picture.reformat(format="yuv420p"))


def dark_items(folders: list[Path], median: float) -> list[tuple[Labelled, Array]]:
    """The dark validation pictures, and their pixels."""
    out = []
    for folder in folders:
        for item in list(read_validation(folder).values())[-1]:
            rgb = read_image(item.path)
            if np.median(rgb[::3, ::3].max(2)) < median:
                out.append((item, rgb))
    if not out:
        raise BadInput("no dark picture", ", ".join(str(folder) for folder in folders), "raise --median")
    return out


def measured(detector: FullFrameDetector, items: list[tuple[Labelled, Array]], light: float) -> tuple[float, ...]:
    """AP, share of the faces that is missed, and false alarms a picture."""
    found = []
    for _, rgb in tqdm(items, unit="image", disable=None):
        scale = min(1.0, LONGEST / max(rgb.shape[:2]))
        faces = detector.detect(frame_of(resized(rgb, scale), light), True)
        found.append(Detections(faces.xyxy / np.float32(scale), faces.scores))
    labels = [item for item, _ in items]
    curve = evaluate(found, [item.xyxy for item in labels], [item.ignore for item in labels])
    lost = np.concatenate([missed(one, item, SCORE)[1] for one, item in zip(found, labels, strict=True)])
    return curve.ap, float(lost.mean()), float((false_scores(found, labels) >= SCORE).sum() / len(labels))


@click.command()
@click.option("--data", "folders", multiple=True, type=click.Path(path_type=Path), required=True)
@click.option("--model", default="plainS", show_default=True)
@click.option("--median", default=100.0, show_default=True)
@click.option(
    "--light", "lights", multiple=True, default=(1.0, 0.3, 0.11), show_default=True, help="share that is left"
)
def command(folders: tuple[Path, ...], model: str, median: float, lights: tuple[float, ...]) -> None:
    """Measure the exposure of dark regions on labelled pictures."""
    items = dark_items(list(folders), median)
    print(f"{len(items)} pictures, {sum(int((~item.ignore).sum()) for item, _ in items)} faces")
    detector = load_detector(model, DetectorOptions(threshold=LOWEST))
    for light in lights:
        for strength, name in ((0.0, "without"), (None, "with")):
            values = {} if strength is None else {"advanced.exposure.strength": strength}
            config = read(None, {"detector.size": (LONGEST, LONGEST), **values})
            ap, lost, alarms = measured(FullFrameDetector(detector, config.detector, config.advanced), items, light)
            print(f"light {light:.2f}, {name:7s} exposure: AP {ap:.3f}, missed {lost:.1%}, false alarms {alarms:.2f}")


if __name__ == "__main__":
    finish(command, "dark_images")
