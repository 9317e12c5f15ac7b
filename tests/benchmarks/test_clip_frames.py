"""Misses and false alarms in frames of clips, on a clip made here whose faces are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facestream.benchmarks.clip_frames import Sample, at, samples, score_with_misses, scores_of
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.errors import BadInput
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions

from tests.pack import demo_frames, demo_truth


class Fixed(Detector):
    """Finds the same two boxes in every picture."""

    def infer(self, images: Array) -> tuple[F32, F32]:
        xyxy = np.array([[10, 10, 30, 30], [60, 60, 80, 80]], np.float32)
        scores = np.array([0.8, 0.4], np.float32)
        return np.stack([xyxy] * len(images)), np.stack([scores] * len(images))


def frame(*faces: tuple[float, float, float, float], labelled: bool = True) -> Sample:
    return Sample(np.zeros((96, 96, 3), np.uint8), np.array(faces, np.float32).reshape(-1, 4), labelled)


def test_a_face_has_the_score_of_the_box_on_it_and_what_is_on_none_is_a_false_alarm() -> None:
    detector = Fixed(DetectorOptions(threshold=0.01))
    frames = [frame((12, 10, 32, 30)), frame((60, 10, 80, 30)), frame(labelled=False)]
    faces, false = scores_of(detector, frames)
    assert faces.tolist() == pytest.approx([0.8, 0.0])
    assert sorted(false.tolist()) == pytest.approx([0.4, 0.4, 0.8])  # none of the frame whose faces are not labelled
    row = at("fixed", faces, false, 2, 0.5)
    assert (row.missed, row.false_alarms) == (0.5, 0.5)


def test_equal_misses_give_the_highest_score_that_reaches_them() -> None:
    faces = np.array([0.1, 0.3, 0.5, 0.9], np.float32)
    assert score_with_misses(faces, 0.25) == pytest.approx(0.3)
    assert (faces < score_with_misses(faces, 0.25)).mean() == 0.25
    assert score_with_misses(faces, 0.0) == pytest.approx(0.1)


def test_frames_of_a_clip_come_with_their_faces_in_the_shrunk_picture(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "demo.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for rgb in demo_frames([30, 31, 32]):
            for packet in stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    lines = [
        f"{number},{track + 1},{x0:.1f},{y0:.1f},{x1 - x0:.1f},{y1 - y0:.1f},1,-1,-1,-1"
        for number, index in ((1, 30), (3, 32))
        for track, (x0, y0, x1, y1) in enumerate(demo_truth()[index])
    ]
    (tmp_path / "demo.truth.txt").write_text("\n".join(lines) + "\n")
    found = samples(tmp_path, 2, 640, frozenset())
    assert [sample.rgb.shape for sample in found] == [(360, 640, 3)] * 2
    assert len(found[0].faces) == len(demo_truth()[30])
    faces, _ = scores_of(load_detector("plainS", DetectorOptions(threshold=0.01)), found)
    assert (faces > 0.2).mean() > 0.7


def test_a_folder_without_clips_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no clip"):
        samples(tmp_path, 7, 960, frozenset())
