"""preprocess.cu itself, run on the CPU against numpy and against what the CPU path does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from facestream.engines.boxes import Array
from facestream.engines.cuda.frame import (
    SOURCE,
    DeviceFrame,
    colour_row,
    colour_table,
    packed_bytes,
    preprocess,
    source_row,
)
from facestream.engines.cuda.kernels import Launch, pointer, source
from facestream.engines.letterbox import fit, pad
from facestream.pipeline.types import Frame
from facestream.pipeline.video import planes as planes_module
from facestream.pipeline.video.planes import planes, rgb_view

from tests.cuda import Cpu, build, cpu, needs_compiler, survives
from tests.pack import demo_frames
from tests.reference import NORM, full_planes, reference

pytestmark = needs_compiler


def bytes_of(picture: av.VideoFrame) -> Array:
    """The planes one after the other, without padding."""
    return np.concatenate([plane.pixels.ravel() for plane in planes(picture)])


def run_preprocess(
    launch: Launch, frames: list[tuple[DeviceFrame, tuple[int, int]] | None], out: tuple[int, int]
) -> Array:
    """Half [N, 3, H, W] of frames and what they are shrunk to; None: a place that no frame has."""
    output = np.full((len(frames), 3, out[1], out[0]), np.nan, np.float16)
    table = np.array([np.zeros((), SOURCE).item() if f is None else source_row(*f) for f in frames], SOURCE)
    norm, colours = NORM.row(), colour_table()
    addresses = (a.ctypes.data for a in (table, colours, norm, output))
    preprocess(launch, len(frames), *addresses, out)
    return output


@pytest.mark.parametrize("layout", ["nv12", "yuv420p", "rgb24", "bgr24"])
@pytest.mark.parametrize(("size", "fitted", "out", "turn"), [
    ((64, 32), (64, 32), (64, 32), 0),
    ((64, 48), (64, 48), (64, 64), 0),
    ((131, 77), (54, 31), (64, 32), 0),
    ((131, 77), (31, 54), (32, 64), 1),
    ((80, 60), (40, 30), (64, 32), 2),
    ((90, 62), (41, 60), (64, 64), 3),
])  # fmt: skip
def test_a_picture_becomes_the_input_to_the_bit(
    layout: str, size: tuple[int, int], fitted: tuple[int, int], out: tuple[int, int], turn: int
) -> None:
    data = np.random.default_rng(size[0]).integers(0, 256, packed_bytes(layout, *size), dtype=np.uint8)
    for full_range in (False, True):
        picture = DeviceFrame.packed(layout, *size, data.ctypes.data, 90 * turn, full_range)
        (made,) = run_preprocess(cpu("preprocess.cu"), [(picture, fitted)], out)
        colour = colour_row(full_range) if layout in ("nv12", "yuv420p") else None
        want = reference(full_planes(layout, data, *size), fitted, out, turn, colour)
        assert made.tobytes() == want.tobytes()


def by_area(pixels: Array, width: int, height: int, out: Array | None = None) -> Array:
    return cv2.resize(pixels, (width, height), out, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("layout", "rotation"), [("nv12", 0), ("yuv420p", 0), ("yuv420p", 90), ("nv12", 270)])
@pytest.mark.parametrize("exact", [True, False])
def test_the_input_is_what_the_cpu_path_shows_its_detector(
    layout: str, rotation: int, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """exact: where the CPU averages areas as a GPU does, not only as far as that is fast (`planes.shrunk`)."""
    if exact:
        monkeypatch.setattr(planes_module, "shrunk", by_area)
    (rgb,) = demo_frames([60])
    stored = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:, :900]), format="rgb24").reformat(format=layout)
    frame = Frame(0, 0, Fraction(1, 30), stored, rotation)
    shown = rgb_view(frame, (320, 192)).rgb
    fitted, padded = shown.shape[1::-1], pad(shown)
    data = bytes_of(stored)
    picture = DeviceFrame.packed(layout, stored.width, stored.height, data.ctypes.data, rotation)
    made = run_preprocess(cpu("preprocess.cu"), [(picture, fitted)], padded.shape[1::-1])[0].astype(np.float32)
    row = NORM.row()
    back = made / row[3:6, None, None] + row[:3, None, None]
    difference = back - padded.transpose(2, 0, 1)
    assert np.abs(difference).mean() < 1
    # Brightness agrees everywhere; the CPU path has half the resolution of colour at the edges of things.
    brightness = np.abs(np.tensordot([0.299, 0.587, 0.114], difference, 1))
    assert np.percentile(brightness, 99.9) < (3 if exact else 16)
    assert brightness.mean() < 0.7
    assert fitted == fit(*frame.size, 320, 192)


@pytest.mark.filterwarnings("error")
def test_half_precision_is_rounded_as_numpy_rounds_it() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint32)
    halves = np.arange(0, 2**16, 7, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    ties = (halves[:-1].astype(np.float32) + halves[1:].astype(np.float32)) / 2
    values = np.concatenate(
        [bits.view(np.float32), halves.astype(np.float32), ties, np.float32([65519.9, 65520, 1e-8])]
    )
    values = np.ascontiguousarray(values[~np.isnan(values)], np.float32)
    out = np.zeros(len(values), np.uint16)
    text = """extern "C" __global__ void half(const float* x, unsigned short* y) {
        y[blockIdx.x] = float_to_half(x[blockIdx.x]);
    }"""
    launch = Cpu(build(text, ["half"]))
    launch("half", (len(values), 1, 1), (1, 1, 1), [pointer(values.ctypes.data), pointer(out.ctypes.data)])
    with np.errstate(over="ignore"):
        assert (out == values.astype(np.float16).view(np.uint16)).all()


def noise(size: tuple[int, int], seed: int = 4) -> av.VideoFrame:
    rng = np.random.default_rng(seed)
    picture = av.VideoFrame(*size, "nv12")
    for plane in planes(picture):
        plane.pixels[...] = rng.integers(0, 256, plane.pixels.shape, dtype=np.uint8)
    return picture


MUTATIONS = {
    ("preprocess.cu", "one pixel short"): (0, "column <= x.last", "column < x.last"),
    ("preprocess.cu", "tail weighs as a whole"): (0, "i == s.last ? s.tail", "i == -1 ? s.tail"),
    ("preprocess.cu", "red and green swapped"): (0, "rgb[0] = a, rgb[1] = b,", "rgb[0] = b, rgb[1] = a,"),
    ("preprocess.cu", "turned the other way"): (0, "turn == 1 ? width - 1 - y", "turn == 3 ? width - 1 - y"),
    ("preprocess.cu", "not clipped"): (0, "return x < 0.0f ? 0.0f : x > 255.0f ? 255.0f : x", "return x"),
    ("preprocess.cu", "every frame is the first"): (0, "sources + blockIdx.z", "sources"),
    ("preprocess.cu", "one colour range for all"): (0, "colours + 6 * frame->colour", "colours"),
    ("preprocess.cu", "chroma at full size"): (0, "(column >> shift)", "column"),
}  # fmt: skip


def battery(file: str, launch: Cpu) -> None:
    """Two frames and a place that is empty."""
    data = np.random.default_rng(0).integers(0, 256, packed_bytes("nv12", 90, 62), dtype=np.uint8)
    for turn, fitted in ((0, (60, 41)), (1, (41, 60)), (3, (41, 60))):
        frame = DeviceFrame.packed("nv12", 90, 62, data.ctypes.data, 90 * turn)
        made = run_preprocess(launch, [(frame, fitted), None, (replace(frame, full_range=True), fitted)], (64, 64))
        for image, full_range in ((made[0], False), (made[2], True)):
            want = reference(full_planes("nv12", data, 90, 62), fitted, (64, 64), turn, colour_row(full_range))
            assert image.tobytes() == want.tobytes()
        row = NORM.row()
        assert (made[1] == ((row[6] - row[:3]) * row[3:6]).astype(np.float16)[:, None, None]).all()


@pytest.mark.parametrize("file", ["preprocess.cu"])
def test_the_source_itself_passes_what_mutations_must_not(file: str) -> None:
    launch = cpu(file)
    assert survives(battery, file, launch)


@pytest.mark.parametrize(("file", "name"), sorted(MUTATIONS))
def test_mutations_are_found(file: str, name: str) -> None:
    at, old, new = MUTATIONS[file, name]
    parts = source(file).split(old)
    assert len(parts) > at + 1
    text = old.join(parts[: at + 1]) + new + old.join(parts[at + 1 :])
    assert text != source(file)
    launch = cpu(file, text)
    assert not survives(battery, file, launch)
