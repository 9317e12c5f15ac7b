"""`make demo`: the main job on the bundled clip, and a picture of what it did.

python tools/demo.py [OUTPUT_FOLDER]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.loader import load_detector
from facestream.pipeline.config import Config
from facestream.pipeline.evaluate.leaks import LeakMeter, read_truth
from facestream.pipeline.run import Job, run

HERE = Path(__file__).parent
INSTANTS = (0.08, 0.3, 0.75, 0.97)  # of the clip, shown in the contact sheet
GAP = 6


def contact_sheet(before: Path, after: Path, out: Path) -> None:
    """Frames of both clips, the source above the result, as one PNG."""
    rows = []
    for path in (before, after):
        with av.open(str(path)) as container:
            frames = [f.to_ndarray(format="bgr24") for f in container.decode(video=0)]
        rows.append(np.concatenate([_small(frames[int(at * (len(frames) - 1))]) for at in INSTANTS], 1))
    cv2.imwrite(str(out), np.concatenate(rows, 0)[:-GAP, :-GAP])


def _small(picture: Array) -> Array:
    small = cv2.resize(picture, (480, 270), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
    folder.mkdir(exist_ok=True)
    clip = HERE / "demo.mp4"
    result = folder / "demo.mp4"
    sheet = folder / "demo.png"
    config = Config()
    started = time.perf_counter()
    meter = LeakMeter(read_truth(HERE / "demo.truth.txt"), config.cover)
    report = run(
        Job(str(clip), result, overwrite=True),
        config,
        load_detector(config.detector.model, config.detector.options()),
        meter,
    )
    leaks = meter.result()
    contact_sheet(clip, result, sheet)
    print(f"facestream anonymize {clip.relative_to(HERE.parent)} -o {result}")
    print(report.line())
    print(
        f"the clip is rendered, so the truth is known: {leaks.face_frames - leaks.leaked} of {leaks.face_frames} "
        f"face-frames are covered, the longest exposed run is {leaks.longest_exposed_run} frames"
    )
    print(f"wrote {result} and {sheet} (above: before, below: after) in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
