"""The loop's order of things, on a stand-in for the GPU (lazy_device.py): real kernels and a real net, no GPU."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from facestream.engines.base import DetectorOptions
from facestream.engines.boxes import Array, iou_xyxy, nms_xyxy
from facestream.engines.build.fp16 import Fp16Detector, to_fp16
from facestream.engines.build.sidecar import Profile
from facestream.engines.build.tensorrt import verify_plan
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.cuda.driver import CudaDevice, find_gpu
from facestream.engines.cuda.pipeline import HEAD, CoverStyle, GpuPipeline
from facestream.engines.errors import BadInput, EngineMismatch
from facestream.engines.letterbox import pad, view
from facestream.engines.loader import WEIGHTS, load_detector
from facestream.engines.tensorrt_engine import canvas_of
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.config import CoverConfig, DetectorConfig
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.detect import DetectionStage
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame, xyxy
from facestream.pipeline.video.planes import host_frame, planes

from tests.cuda import needs_compiler
from tests.engines.test_gpu_frame import noise
from tests.lazy_device import CpuNet, LazyDevice
from tests.pack import demo_frames, demo_truth
from tests.reference import FACES

PROFILES = (Profile((1, 64, 96), (2, 96, 160), (4, 160, 192)), Profile((1, 96, 64), (2, 160, 96), (4, 192, 160)))
THRESHOLD = 0.03


@pytest.fixture(scope="module")
def fp16() -> Fp16Detector:
    data, normalisation, _ = to_fp16(WEIGHTS / "plainS.onnx")
    return Fp16Detector(data, normalisation, DetectorOptions())


@pytest.fixture(scope="module")
def pictures() -> list[Array]:
    """Twelve pictures of 160 x 96 pixels with a face each."""
    made = []
    for index, rgb in zip(range(10, 130, 10), demo_frames(list(range(10, 130, 10))), strict=True):
        x0, y0, x1, y1 = demo_truth()[index][0]
        left, top = (int(np.clip(v, 0, m)) for v, m in (((x0 + x1) / 2 - 80, 1120), ((y0 + y1) / 2 - 48, 624)))
        made.append(np.ascontiguousarray(rgb[top : top + 96, left : left + 160]))
    return made


def shown(rgb: Array) -> HostFrame:
    size = rgb.shape[1], rgb.shape[0]
    return HostFrame("rgb24", (rgb,), size, *size)


def loop(device: LazyDevice, fp16: Fp16Detector, inside: bool = False, threshold: float = THRESHOLD) -> GpuPipeline:
    return GpuPipeline(device, CpuNet(device, fp16, PROFILES, inside), fp16.normalisation, threshold, 0.3)


def expected(fp16: Fp16Detector, rgb: Array, threshold: float = THRESHOLD) -> tuple[Array, Array]:
    xyxy, scores = (a[0] for a in fp16.infer(pad(rgb)[None]))
    sure = scores >= threshold
    keep = nms_xyxy(xyxy[sure], scores[sure], 0.3)
    return xyxy[sure][keep], scores[sure][keep]


def same(found: tuple[Array, Array], want: tuple[Array, Array]) -> bool:
    return len(found[0]) == len(want[0]) and all(np.allclose(a, b, atol=1e-3) for a, b in zip(found, want, strict=True))


pytestmark = needs_compiler


@pytest.mark.parametrize("inside", [False, True])
def test_every_batch_says_what_the_cpu_says(fp16: Fp16Detector, pictures: list[Array], inside: bool) -> None:
    device = LazyDevice(1)
    made = loop(device, fp16, inside)
    tickets = [made.submit([shown(p) for p in pictures[at : at + 2]]) for at in range(0, 12, 2)]
    found = [faces for ticket in tickets for faces in made.result(ticket)]
    for faces, picture in zip(found, pictures, strict=True):
        assert same(faces, expected(fp16, picture))
    assert sum(len(scores) for _, scores in found) > 12
    assert device.replayed == 3, "each of three slots runs once as it is, then from its graph"


def test_a_few_hundred_bytes_come_down_a_picture(fp16: Fp16Detector, pictures: list[Array]) -> None:
    device = LazyDevice(2)
    made = loop(device, fp16, threshold=0.3)
    made.result(made.submit([shown(pictures[0])]))
    assert device.copied_down == 4 + 20 * HEAD


def test_more_faces_than_come_down_at_once_are_fetched(fp16: Fp16Detector, pictures: list[Array]) -> None:
    made = loop(LazyDevice(3), fp16, threshold=0.0005)
    (faces,) = made.result(made.submit([shown(pictures[3])]))
    assert len(faces[0]) > HEAD
    assert same(faces, expected(fp16, pictures[3], 0.0005))


def test_sizes_may_change_from_batch_to_batch(fp16: Fp16Detector, pictures: list[Array]) -> None:
    made = loop(LazyDevice(4), fp16)
    cut = [p[: 96 - 7 * (i % 3), : 160 - 30 * (i % 2)] for i, p in enumerate(pictures[:8])]
    tickets = [made.submit([shown(np.ascontiguousarray(p))]) for p in cut]
    for ticket, picture in zip(tickets, cut, strict=True):
        (faces,) = made.result(ticket)
        assert same(faces, expected(fp16, np.ascontiguousarray(picture)))


def test_one_batch_may_mix_sizes_and_layouts(fp16: Fp16Detector, pictures: list[Array]) -> None:
    small = np.ascontiguousarray(pictures[1][:64, :128])
    bgr = replace(shown(np.ascontiguousarray(pictures[2][..., ::-1])), layout="bgr24")
    made = loop(LazyDevice(5), fp16)
    found = made.result(made.submit([shown(pictures[0]), shown(small), bgr]))
    wide = [np.pad(p, ((0, 96 - p.shape[0]), (0, 160 - p.shape[1]), (0, 0)), constant_values=127) for p in (small,)]
    for faces, picture in zip(found, [pictures[0], wide[0], pictures[2]], strict=True):
        assert same(faces, expected(fp16, picture))


class Hasty(LazyDevice):
    def wait(self, event: object) -> None:
        pass


class Early(GpuPipeline):
    """Takes a slot that is still in flight."""

    def submit(self, pictures):  # type: ignore[no-untyped-def]
        if len(self._busy) == len(self.slots):
            self._busy.popleft().ticket = None
        return super().submit(pictures)


def test_a_loop_that_does_not_wait_is_found_out(fp16: Fp16Detector, pictures: list[Array]) -> None:
    hasty = GpuPipeline.__new__(GpuPipeline)
    device = Hasty(6)
    GpuPipeline.__init__(hasty, device, CpuNet(device, fp16, PROFILES, False), fp16.normalisation, THRESHOLD, 0.3)
    ticket = hasty.submit([shown(pictures[0])])
    with pytest.raises((AssertionError, ValueError)):
        assert same(hasty.result(ticket)[0], expected(fp16, pictures[0]))


def test_a_slot_used_again_too_early_is_found_out(fp16: Fp16Detector, pictures: list[Array]) -> None:
    device = LazyDevice(7)
    early = Early(device, CpuNet(device, fp16, PROFILES, False), fp16.normalisation, THRESHOLD, 0.3)
    first = [early.submit([shown(p)]) for p in pictures[:3]]
    kept = list(early._busy)
    early.submit([shown(pictures[3])])
    early._busy.clear()
    early._busy.extend(kept)
    for slot, ticket in zip(kept, first, strict=True):
        slot.ticket = ticket
    found = [early.result(ticket)[0] for ticket in first]
    assert not all(same(faces, expected(fp16, p)) for faces, p in zip(found, pictures, strict=False))


def test_the_detector_is_one_like_any_other(fp16: Fp16Detector) -> None:
    (rgb,) = demo_frames([60])
    truth = demo_truth()[60]
    x0, y0 = (int(v) for v in truth[0, :2])
    cut = np.ascontiguousarray(rgb[max(0, y0 - 40) : y0 + 200, max(0, x0 - 60) : x0 + 260])
    options = DetectorOptions()
    detector = GpuDetector(loop(LazyDevice(8), fp16, True, options.threshold), 4, options)
    views = [view(cut, (160, 120)), view(cut, (128, 96)), view(cut, (160, 120))]
    for a, b in zip(detector.detect(views), load_detector("plainS", options).detect(views), strict=True):
        assert len(a) == len(b) > 0
        assert (iou_xyxy(a.xyxy, b.xyxy).max(1) > 0.95).all()


@pytest.mark.parametrize(("layout", "rotation"), [("nv12", 0), ("yuv420p", 90)])
def test_frames_go_to_the_card_as_they_are_stored(fp16: Fp16Detector, layout: str, rotation: int) -> None:
    (rgb,) = demo_frames([60])
    x0, y0 = (int(v) for v in demo_truth()[60][0, :2])
    cut = np.ascontiguousarray(rgb[max(0, y0 - 40) : max(0, y0 - 40) + 240, max(0, x0 - 60) : max(0, x0 - 60) + 320])
    turned = np.ascontiguousarray(np.rot90(cut, -rotation // 90))
    stored = av.VideoFrame.from_ndarray(turned, format="rgb24").reformat(format=layout)
    frame = Frame(0, 0, Fraction(1, 30), stored, rotation)
    config = DetectorConfig(size=(160, 120))
    detector = GpuDetector(loop(LazyDevice(9), fp16, False, config.threshold), 4, config.options())
    found, want = (DetectionStage(d, config).look(frame) for d in (detector, load_detector("plainS", config.options())))
    assert found is not None
    assert want is not None
    assert len(found) == len(want) > 0
    assert (iou_xyxy(found.xyxy, want.xyxy).max(1) > 0.85).all()


STYLES = {"pixelate": CoverStyle(), "solid": CoverStyle("box", 1.2, None)}


@pytest.mark.parametrize("hide", sorted(STYLES))
def test_faces_are_covered_where_the_picture_lies_on_the_gpu(fp16: Fp16Detector, hide: str) -> None:
    """To the last bit as the pipeline covers them, while other batches are on their way."""
    made, style = loop(LazyDevice(10), fp16), STYLES[hide]
    rng = np.random.default_rng(3)
    frames, tickets = [noise((151, 93), rng.integers(1 << 30)) for _ in range(6)], []
    for at in range(0, 6, 2):
        stored = [Frame(at + i, 0, Fraction(1, 30), frames[at + i]) for i in range(2)]
        shown_ = [host_frame(frame, (160, 96)) for frame in stored]
        tickets.append(made.submit([p for p in shown_ if p is not None], keep=True))
    with pytest.raises(RuntimeError, match="wait to be covered"):
        made.submit([shown(np.zeros((32, 32, 3), np.uint8))])
    config = CoverConfig(hide=hide, shape=style.shape, scale=style.scale)  # type: ignore[arg-type]
    for turn, ticket in enumerate(tickets):
        for i, covered in enumerate(made.cover(ticket, [np.float32(FACES), np.float32(FACES[:3])], style)):
            frame = Frame(0, 0, Fraction(1, 30), frames[2 * turn + i])
            boxes = tuple(Box(n, xyxy(face), 1.0, BoxState.OBSERVED) for n, face in enumerate(FACES[: (8, 3)[i]]))
            want = planes(Anonymizer(config).cover(TrackedFrame(frame, boxes)).picture)
            assert [p.tobytes() for p in covered] == [p.pixels.tobytes() for p in want]
    again = made.submit([shown(np.zeros((32, 32, 3), np.uint8))], keep=True)  # the slots are free again
    with pytest.raises(ValueError, match="NV12"):
        made.cover(again, [np.float32(FACES)], style)


def test_a_plan_is_verified_in_pixels_and_scores(fp16: Fp16Detector, pictures: list[Array]) -> None:
    """On the stand-in: the net is the right one, one whose boxes are moved, one that misses."""
    options = DetectorOptions(threshold=THRESHOLD)
    reference, shots = load_detector("plainS", options), [p[None] for p in pictures[:4]]
    gpu = GpuDetector(loop(LazyDevice(11), fp16), 4, options)
    found = verify_plan(reference, gpu, (160, 96), "fp16", shots)
    assert found["faces_compared"] > 3
    assert found["box_error_px"] < 0.5
    detect = gpu.detect

    def moved(views: object) -> list[Detections]:
        return [Detections(d.xyxy + 0.8, d.scores) for d in detect(views)]  # type: ignore[arg-type]

    gpu.detect = moved  # type: ignore[method-assign, assignment]
    with pytest.raises(EngineMismatch, match="says other boxes"):
        verify_plan(reference, gpu, (160, 96), "fp16", shots)
    assert verify_plan(reference, gpu, (160, 96), "int8", shots)["box_error_px"] > 0.7
    gpu.detect = lambda views: [Detections.empty() for _ in views]  # type: ignore[method-assign, assignment]
    with pytest.raises(EngineMismatch, match="finds 0% of the faces"):
        verify_plan(reference, gpu, (160, 96), "fp16", shots)


def test_the_canvas_fits_a_profile() -> None:
    assert canvas_of(PROFILES, 1, 160, 90) == (160, 96)
    assert canvas_of(PROFILES, 4, 33, 150) == (64, 160)
    assert canvas_of(PROFILES, 1, 10, 10) in ((96, 64), (64, 96))
    for size in ((5, 32, 32), (1, 200, 200)):
        with pytest.raises(EngineMismatch, match="--profile"):
            canvas_of(PROFILES, *size)


def test_without_a_driver_or_files_there_is_one_clear_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput, match="not found"):
        load_detector(str(tmp_path / "none.plan"))
    (tmp_path / "x.plan").write_bytes(b"plan")
    with pytest.raises(BadInput, match="sidecar is missing"):
        load_detector(str(tmp_path / "x.plan"))
    if find_gpu() is None:
        with pytest.raises(EngineMismatch) as caught:
            CudaDevice()
        assert "\n" not in str(caught.value)
