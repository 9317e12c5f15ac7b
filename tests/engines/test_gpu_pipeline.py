"""GpuPipeline's order of operations on a simulated GPU (lazy_device.py), with real kernels and a real net."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from facestream.engines.boxes import Array, iou_xyxy
from facestream.engines.build.fp16 import Fp16Detector, to_fp16
from facestream.engines.build.sidecar import Profile
from facestream.engines.build.tensorrt import verify_plan
from facestream.engines.cuda.detector import GpuDetector, Pending
from facestream.engines.cuda.driver import CudaDevice, find_gpu
from facestream.engines.cuda.frame import SOURCE, Normalisation
from facestream.engines.cuda.kernels import Dim3
from facestream.engines.cuda.pipeline import HEAD, SHAPES, GpuPipeline, Needs, Shape
from facestream.engines.errors import BadInput, EngineMismatch
from facestream.engines.letterbox import pad, view
from facestream.engines.loader import WEIGHTS, load_detector
from facestream.engines.options import DetectorOptions
from facestream.engines.tensorrt_engine import canvas_of
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.config import DetectorConfig
from facestream.pipeline.stages.detect import FullFrameDetector
from facestream.pipeline.types import Frame

from tests.cuda import needs_compiler
from tests.lazy_device import CpuNet, LazyDevice, Stream
from tests.lazy_device import view as memory
from tests.pack import demo_frames, demo_truth
from tests.reference_nms import nms_xyxy

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
    above = scores >= threshold
    keep = nms_xyxy(xyxy[above], scores[above], 0.3)
    return xyxy[above][keep], scores[above][keep]


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
    device = LazyDevice(3)
    made = loop(device, fp16, threshold=1e-6)
    (faces,) = made.result(made.submit([shown(pictures[3])]))
    assert len(faces[0]) > HEAD
    assert same(faces, expected(fp16, pictures[3], 1e-6))
    assert len(device.host) == 1, "into the slot's own page-locked memory"


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


@pytest.mark.parametrize("inside", [False, True])
def test_a_batch_that_is_padded_says_the_same(fp16: Fp16Detector, pictures: list[Array], inside: bool) -> None:
    device = LazyDevice(12)
    made = loop(device, fp16, inside)
    for _ in range(3):
        found = made.result(made.submit([shown(p) for p in pictures[:3]]))
        assert len(found) == 3
        for faces, picture in zip(found, pictures, strict=False):
            assert same(faces, expected(fp16, picture))
    assert made.shape_of([shown(p) for p in pictures[:3]]) == Shape(4, 160, 96)
    assert device.replayed == 2


def test_batches_of_changing_size_are_replayed(fp16: Fp16Detector, pictures: list[Array]) -> None:
    """3, 4, 3, 4, and 1, 2, 1, 2: each but the first of its shape in a slot is a graph, and two are kept at once."""
    device = LazyDevice(13)
    made = loop(device, fp16)
    for n in (3, 4, 1, 2) * 3:
        found = made.result(made.submit([shown(p) for p in pictures[:n]]))
        assert all(same(f, expected(fp16, p)) for f, p in zip(found, pictures, strict=False))
    assert made.counters.replays == 12 - 3
    assert len(device.graphs) == 3
    made.close()
    assert not device.alive()


def test_where_capturing_fails_it_runs_step_by_step_and_says_so_once(
    fp16: Fp16Detector, pictures: list[Array], caplog: pytest.LogCaptureFixture
) -> None:
    device = LazyDevice(14)
    device.refuses = "cuMemAlloc failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
    made = loop(device, fp16)
    for _ in range(2):
        for ticket in [made.submit([shown(pictures[0])]) for _ in range(3)]:
            assert same(made.result(ticket)[0], expected(fp16, pictures[0]))
    (record,) = caplog.records
    assert "no CUDA graph for inputs of 1x160x96" in record.getMessage()
    assert "CAPTURE_UNSUPPORTED" in record.getMessage()
    device.refuses = ""
    assert made.result(made.submit([shown(pictures[0])]))
    assert not device.graphs, "it is not tried again for that shape"
    for _ in range(2):
        assert same(made.result(made.submit([shown(p) for p in pictures[:2]]))[1], expected(fp16, pictures[1]))
    assert len(device.graphs) == 1, "another shape is"


def test_a_batch_that_fails_half_way_leaves_its_slot_usable(fp16: Fp16Detector, pictures: list[Array]) -> None:
    """What it had put into the stream is done before the memory that it reads is filled anew."""
    device = LazyDevice(15)
    made = loop(device, fp16)
    enqueue = made.net.enqueue

    def fails(*given: object) -> None:
        raise EngineMismatch("the plan did not run", "plan")

    made.net.enqueue = fails  # type: ignore[method-assign]
    with pytest.raises(EngineMismatch, match="did not run"):
        made.submit([shown(pictures[0])])
    assert not any(stream.work for stream in device.streams), "the upload is still to come"
    made.net.enqueue = enqueue  # type: ignore[method-assign]
    assert same(made.result(made.submit([shown(pictures[1])]))[0], expected(fp16, pictures[1]))


class Faint:
    """A net of next to no work that answers from its input: one box, as bright as the image's first pixel."""

    nms_inside, max_batch = True, 16

    def __init__(self) -> None:
        self.prepared: set[tuple[int, Shape]] = set()

    def canvas(self, images: int, width: int, height: int) -> tuple[int, int]:
        return -(-width // 32) * 32, -(-height // 32) * 32

    def prepare(self, slot: int, shape: Shape, stream: Stream) -> Needs:
        self.prepared.add((slot, shape))
        return Needs(1, 0)

    def forget(self, slot: int, shape: Shape) -> None:
        self.prepared.remove((slot, shape))

    def capturable(self, slot: int, shape: Shape, stream: Stream) -> bool:
        return True

    def enqueue(
        self, slot: int, shape: Shape, images: int, first: int, second: int, scratch: int, stream: Stream
    ) -> None:
        def run() -> None:
            pixels = memory(images, np.float16, (shape.images, 3, shape.height, shape.width))
            memory(first, np.int32, (shape.images,))[:] = 1
            memory(second, np.float32, (shape.images, 5))[:] = [0, 0, shape.width, shape.height, 0]
            memory(second, np.float32, (shape.images, 5))[:, 4] = pixels[:, 0, 0, 0]

        stream.put(run)


def first_pixels(name: str, grid: Dim3, block: Dim3, arguments: Sequence[Any]) -> None:
    """preprocess.cu as far as `Faint` looks, so that thousands of batches take no time."""
    assert name == "preprocess"
    table, _, _, output = (argument.value for argument in arguments[:4])
    width, height = (argument.value for argument in arguments[4:])
    pixels = memory(output, np.float16, (grid[2], 3, height, width))
    for image, row in zip(pixels, memory(table, np.uint8, (grid[2] * SOURCE.itemsize,)).view(SOURCE), strict=True):
        image[0, 0, 0] = memory(int(row["plane"][0]), np.uint8, (1,))[0] / 255 if row["width"] else np.nan


def gray(size: tuple[int, int], level: int) -> HostFrame:
    return HostFrame("rgb24", (np.full((size[1], size[0], 3), level, np.uint8),), size, *size)


def test_two_thousand_random_batches_are_replayed_and_leave_nothing_behind() -> None:
    """Of 1 to 8 cameras, of two sizes, up to two batches on their way: see docs/gpu.md."""
    device, net, rng = LazyDevice(16), Faint(), np.random.default_rng(0)
    device.kernels = first_pixels
    made = GpuPipeline(device, net, Normalisation((0.0,) * 3, (255.0,) * 3), 0.01, 0.3)
    detector = GpuDetector(made, 16, DetectorOptions(threshold=0.01))
    sizes = (40, 24), (24, 40)
    for size in sizes:
        detector.warm_up([gray(size, 1)] * 8)
    warm, most, counted = device.alive(), 0, (made.counters.batches, made.counters.replays)
    waiting: deque[tuple[list[int], Pending]] = deque()

    def take() -> None:
        levels, pending = waiting.popleft()
        found = [float(f.scores[0]) for f in detector.collect(pending)]
        assert found == pytest.approx([level / 255 for level in levels], abs=1e-3)

    for _ in range(2000):
        levels = rng.integers(10, 255, rng.integers(1, 9)).tolist()
        frames = [gray(sizes[rng.integers(2)], level) for level in levels]
        waiting.append((levels, detector.submit(frames)))
        if len(waiting) == detector.in_flight:
            take()
        most = max(most, device.alive() + len(net.prepared))
    while waiting:
        take()
    batches, replays = made.counters.batches - counted[0], made.counters.replays - counted[1]
    assert batches >= 2000
    assert replays / batches >= 0.9
    assert device.alive() <= warm
    assert most <= 1 + 4 * len(made.slots) + 2 * SHAPES * len(made.slots)
    assert len(device.streams) == 3
    made.close()
    assert not device.alive()
    assert not net.prepared


@pytest.mark.parametrize("under_way", [1, 2, 3])
def test_warming_up_captures_all_slots_and_loses_no_batch_under_way(under_way: int) -> None:
    device = LazyDevice(18)
    device.kernels = first_pixels
    made = GpuPipeline(device, Faint(), Normalisation((0.0,) * 3, (255.0,) * 3), 0.01, 0.3)
    tickets = [made.submit([gray((40, 24), 50 * (1 + n))]) for n in range(under_way)]
    made.warm_up([gray((24, 40), 1)] * 4)
    found = [float(made.result(ticket)[0][1][0]) for ticket in tickets]
    assert found == pytest.approx([50 * (1 + n) / 255 for n in range(under_way)], abs=1e-3)
    shapes = [made.shape_of([gray((24, 40), 1)] * n) for n in (1, 2, 4)]
    assert all(slot.shapes[shape].graph is not None for slot in made.slots for shape in shapes)
    made.close()
    assert not device.alive()


def test_what_was_used_longest_ago_is_destroyed() -> None:
    device, net = LazyDevice(17), Faint()
    made = GpuPipeline(device, net, Normalisation((0.0,) * 3, (255.0,) * 3), 0.01, 0.3, slots=1)
    widths = [32 * n for n in range(1, SHAPES + 4)]
    for width in widths:
        for again in (width, width, widths[0]):  # the first one stays, since it is used again and again
            made.result(made.submit([gray((again, 32), 9)]))
    assert {shape.width for _, shape in net.prepared} == {widths[0], *widths[1 - SHAPES :]}
    assert made.counters.replays == 3 * len(widths) - len(widths), "all but the first batch of each shape"
    assert len(device.graphs) <= SHAPES
    made.close()
    assert not device.alive()


def test_graphs_are_destroyed_when_the_memory_that_they_know_moves() -> None:
    device = LazyDevice(19)
    made = GpuPipeline(device, Faint(), Normalisation((0.0,) * 3, (255.0,) * 3), 0.01, 0.3, slots=1)
    for _ in range(2):
        made.result(made.submit([gray((32, 32), 9)]))
    assert len(device.graphs) == 1
    made.result(made.submit([gray((320, 320), 9)]))
    assert not device.graphs
    made.close()
    assert not device.alive()


def test_a_batch_goes_to_the_slot_that_has_a_graph_for_it() -> None:
    made = GpuPipeline(LazyDevice(20), Faint(), Normalisation((0.0,) * 3, (255.0,) * 3), 0.01, 0.3)
    wide, high = [gray((64, 32), 9)], [gray((32, 64), 9)]
    for _ in range(2):
        for ticket in [made.submit(wide), made.submit(high)]:
            made.result(ticket)
    before = made.counters.replays
    for batch in (high, wide, high):
        made.result(made.submit(batch))
    assert made.counters.replays == before + 3


def test_frames_of_unlike_shapes_do_not_share_a_batch() -> None:
    detector = GpuDetector(
        GpuPipeline(LazyDevice(18), Faint(), Normalisation((0.0,) * 3, (255.0,) * 3), 0.01, 0.3), 16, DetectorOptions()
    )
    frames = [gray(size, i + 9) for i, size in enumerate([(96, 32), (32, 96), (92, 32), (32, 96), (96, 30)])]
    pending = detector.submit(frames)
    assert [len(ticket.frames) for ticket in pending.tickets] == [2, 3]
    assert [ticket.shape for ticket in pending.tickets] == [Shape(2, 32, 96), Shape(4, 96, 32)]
    found = detector.collect(pending)
    assert [round(float(f.scores[0]) * 255) for f in found] == [9, 10, 11, 12, 13]


class Hasty(LazyDevice):
    def wait(self, event: object) -> None:
        pass


def test_a_loop_that_does_not_wait_is_found_out(fp16: Fp16Detector, pictures: list[Array]) -> None:
    hasty = GpuPipeline.__new__(GpuPipeline)
    device = Hasty(6)
    GpuPipeline.__init__(hasty, device, CpuNet(device, fp16, PROFILES, False), fp16.normalisation, THRESHOLD, 0.3)
    ticket = hasty.submit([shown(pictures[0])])
    with pytest.raises((AssertionError, ValueError)):
        assert same(hasty.result(ticket)[0], expected(fp16, pictures[0]))


def test_a_slot_used_again_too_early_is_found_out(fp16: Fp16Detector, pictures: list[Array]) -> None:
    made = loop(LazyDevice(7), fp16)
    first = [made.submit([shown(p)]) for p in pictures[:3]]
    kept = list(made._busy)
    made._busy.popleft().ticket = None  # still in flight
    made.submit([shown(pictures[3])])
    made._busy.clear()
    made._busy.extend(kept)
    for slot, ticket in zip(kept, first, strict=True):
        slot.ticket = ticket
    found = [made.result(ticket)[0] for ticket in first]
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
def test_frames_go_to_the_gpu_as_they_are_stored(fp16: Fp16Detector, layout: str, rotation: int) -> None:
    (rgb,) = demo_frames([60])
    x0, y0 = (int(v) for v in demo_truth()[60][0, :2])
    cut = np.ascontiguousarray(rgb[max(0, y0 - 40) : max(0, y0 - 40) + 240, max(0, x0 - 60) : max(0, x0 - 60) + 320])
    turned = np.ascontiguousarray(np.rot90(cut, -rotation // 90))
    stored = av.VideoFrame.from_ndarray(turned, format="rgb24").reformat(format=layout)
    frame = Frame(0, 0, Fraction(1, 30), stored, rotation)
    config = DetectorConfig(size=(160, 120))
    detector = GpuDetector(loop(LazyDevice(9), fp16, False, config.threshold), 4, config.options())
    detectors = (detector, load_detector("plainS", config.options()))
    found, want = (FullFrameDetector(d, config).detect(frame, full_resolution=True) for d in detectors)
    assert len(found) == len(want) > 0
    assert (iou_xyxy(found.xyxy, want.xyxy).max(1) > 0.85).all()


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
