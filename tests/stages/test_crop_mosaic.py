from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from facestream.engines.boxes import iou_xyxy
from facestream.engines.loader import load_detector
from facestream.engines.types import Detections
from facestream.pipeline.config import read
from facestream.pipeline.stages.crop_mosaic import CropMosaic, mosaic_of
from facestream.pipeline.stages.detect import DetectionStage, FullFrameDetector
from facestream.pipeline.stages.settings import DEFAULTS
from facestream.pipeline.stages.types import AnalysedFrame, DetectionPlan, Reason, Scope
from facestream.pipeline.types import Frame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.planes import rgb_view
from facestream.pipeline.video.source import open_source

from tests.conftest import picture
from tests.pack import DEMO

SIZE = (320, 240)
PLENTY = 1e9
GAP = DEFAULTS.crop_mosaic.gap
LARGEST = DEFAULTS.crop_mosaic.max_shown_side


def sheet(
    boxes: list[list[float]], size: tuple[int, int] = SIZE, scale: float = 1.0, most: float = PLENTY
) -> CropMosaic:
    made = mosaic_of(np.array(boxes, float).reshape(-1, 4), size, scale, most)
    assert made is not None
    return made


@pytest.mark.parametrize("seed", range(5))
def test_cut_outs_hold_every_face_and_lie_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(-20, 320, (12, 2)), rng.uniform(5, 120, (12, 1))
    boxes = np.concatenate([corner, corner + side], 1)
    made = sheet(boxes.tolist())
    assert made.width % 32 == made.height % 32 == 0
    for cut, x, y in made.placed:
        assert x + cut.width <= made.width
        assert y + cut.height <= made.height
        assert cut.width % 2 == cut.height % 2 == 0
    for (a, ax, ay), (b, bx, by) in combinations(made.placed, 2):
        across = ax + a.width + GAP <= bx or bx + b.width + GAP <= ax
        assert across or ay + a.height + GAP <= by or by + b.height + GAP <= ay
    for box in boxes.tolist():
        left, top, right, bottom = (*np.maximum(box[:2], 0), *np.minimum(box[2:], SIZE))
        if right - left < 2 or bottom - top < 2:
            continue  # outside the picture
        regions = [cut.region for cut, _, _ in made.placed]
        assert any(r[0] <= left and r[1] <= top and r[2] >= right and r[3] >= bottom for r in regions)


def test_large_faces_are_shown_smaller_and_small_ones_as_in_full_size() -> None:
    large = sheet([[100, 0, 300, 200]]).placed[0][0]
    assert large.scale == pytest.approx(LARGEST / 200, rel=0.02)
    small = sheet([[100, 100, 120, 130]], scale=0.5).placed[0][0]
    assert small.scale == pytest.approx(0.5, rel=0.05)


def test_a_face_that_another_cut_out_shows_needs_none() -> None:
    near, far = [[100, 100, 140, 140], [110, 110, 130, 130]], [[100, 100, 140, 140], [200, 110, 220, 130]]
    assert len(sheet(near).placed) == 1
    assert len(sheet(far).placed) == 2
    tiny = [[20, 20, 220, 220], [150, 150, 156, 156]]  # of which nothing would be left in a crop for so large a face
    assert len(sheet(tiny).placed) == 2


def test_no_sheet_has_more_pixels_than_asked_for() -> None:
    boxes = np.array([[x, y, x + 20, y + 20] for x in range(0, 320, 40) for y in range(0, 240, 40)], float)
    whole = sheet(boxes.tolist())
    pixels = whole.width * whole.height
    assert mosaic_of(boxes, SIZE, 1.0, pixels) is not None
    assert mosaic_of(boxes, SIZE, 1.0, pixels - 1) is None
    assert sheet(np.zeros((0, 4)).tolist(), most=1).placed == ()


@pytest.mark.parametrize("name", ["yuv420p", "yuvj420p", "nv12", "yuv422p10le", "yuv444p", "gray", "gbrp"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(320, 240), (127, 95)])
def test_it_shows_what_the_picture_shows_there(name: str, rotation: int, size: tuple[int, int]) -> None:
    frame = Frame(0, 0, Fraction(1, 30), picture(3, size, name), rotation)
    whole = rgb_view(frame, frame.size).rgb.astype(int)
    made = sheet([[10, 12, 34, 40], [60, 50, 70, 64]], frame.size)
    shown = made.view(frame)
    assert shown.rgb.shape == (made.height, made.width, 3)
    assert shown.padded is shown.rgb
    for cut, x, y in made.placed:
        left, top, right, bottom = cut.region
        there = whole[top:bottom, left:right]
        pasted = shown.rgb[y : y + cut.height, x : x + cut.width].astype(int)[: there.shape[0], : there.shape[1]]
        there = there[: pasted.shape[0], : pasted.shape[1]]
        assert np.abs(pasted - there).mean() < 6  # chroma may lie half a pixel off


def test_boxes_go_back_to_where_they_were_cut_out() -> None:
    faces = [[100, 60, 260, 220], [20, 20, 44, 50], [250, 10, 262, 24]]
    made = sheet(faces)
    assert len(made.placed) == 3
    found = []
    for face in faces:
        cut, x, y = next(c for c in made.placed if c[0].shows(face, 4, SIZE))
        origin = np.array(cut.region[:2] * 2)
        found.append((np.array(face) - origin) * cut.scale + (x, y, x, y))
    back = made.to_frame(Detections(np.array(found, np.float32), np.float32([0.9, 0.8, 0.7])), SIZE, 0.3)
    assert np.abs(back.xyxy - faces).max() < 4  # a crop's sides are whole, even pixels
    assert back.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_pieces_of_faces_are_left_out_but_at_the_pictures_edge() -> None:
    made = sheet([[150, 110, 170, 130], [0, 100, 20, 130]])
    (middle, mx, my), (_, ex, ey) = sorted(made.placed, key=lambda cut: -cut[0].region[0])
    cut_off = [mx - 4, my + 5, mx + 10, my + 20]  # over the left edge of its crop
    at_edge = [ex - 4, ey + 10, ex + 10, ey + 30]
    between = [mx + middle.width + 1, my + 2, mx + middle.width + 5, my + 6]
    boxes = np.array([cut_off, at_edge, between], np.float32)
    back = made.to_frame(Detections(boxes, np.float32([0.9, 0.8, 0.7])), SIZE, 0.3)
    assert back.scores.tolist() == pytest.approx([0.8])
    assert back.xyxy[0, 0] < 0
    assert not len(made.to_frame(Detections.empty(), SIZE, 0.3))


def test_a_face_shown_twice_is_found_once() -> None:
    made = sheet([[100, 100, 120, 130], [124, 100, 144, 130]])
    assert len(made.placed) == 2
    boxes = []
    for cut, x, y in made.placed:
        origin = np.array(cut.region[:2] * 2)
        boxes.append((np.array([112, 104, 130, 126]) - origin) * cut.scale + (x, y, x, y))
    found = Detections(np.array(boxes, np.float32), np.float32([0.6, 0.7]))
    assert made.to_frame(found, SIZE, 0.3).scores.tolist() == pytest.approx([0.7])


def test_the_net_finds_on_a_sheet_what_it_finds_in_the_whole_picture() -> None:
    config = read(None).detector
    detector = load_detector(config.model, config.options())
    source = open_source(str(DEMO), SourceOptions())
    source.open()
    frames = [item for item in source.items() if isinstance(item, Frame)][::15]
    source.close()
    stage = DetectionStage(detector, config)
    expected = 0
    again = 0
    for frame in frames:
        whole = FullFrameDetector(detector, config).detect(frame, True).filter_by_score(0.5)
        shaken = whole.xyxy + np.random.default_rng(frame.index).normal(0, 4, (len(whole), 1))
        mosaic = mosaic_of(shaken, frame.size, 960 / frame.size[0], PLENTY)
        analysed = AnalysedFrame(frame, np.zeros((2, 2), np.uint8))
        there = stage.run(analysed, DetectionPlan(frame.index, Scope.CROPS, Reason.INTERVAL, mosaic)).faces
        assert there is not None
        expected += len(whole)
        # Beyond the frame's edge a box is extrapolated: only what is in the frame can agree.
        inside = [np.clip(xyxy, 0, np.array([*frame.size] * 2, np.float32)) for xyxy in (whole.xyxy, there.xyxy)]
        again += int((iou_xyxy(inside[0], inside[1]).max(1, initial=0) > 0.6).sum())
    assert expected >= 20
    assert again >= 0.97 * expected
