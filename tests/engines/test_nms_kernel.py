"""nms.cu run on the CPU: bit-identical to tests.reference_nms, and every mutation of it is detected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from facestream.engines.boxes import Array
from facestream.engines.cuda.kernels import KERNELS, MAX_BOXES, source

from tests.cuda import Cpu, build, cpu, needs_compiler, run_nms, survives
from tests.reference_nms import nms_xyxy

pytestmark = needs_compiler
INF, NAN = float("inf"), float("nan")
Case = tuple[Array, Array, float, float]  # xyxy, scores, threshold, IoU


def expected(xyxy: Array, scores: Array, threshold: float, iou: float) -> tuple[Array, Array]:
    kept = (scores >= threshold) & np.isfinite(xyxy).all(1)
    xyxy, scores = xyxy[kept], scores[kept]
    with np.errstate(over="ignore", invalid="ignore"):
        keep = nms_xyxy(xyxy, scores, iou)
    return xyxy[keep], scores[keep]


def check(launch: Cpu, case: Case) -> None:
    xyxy, scores, threshold, iou = case
    for i, (boxes, values) in enumerate(run_nms(launch, xyxy, scores, threshold, iou)):
        want_boxes, want_values = expected(xyxy[i], scores[i], threshold, iou)
        assert values.tobytes() == want_values.tobytes()
        assert boxes.tobytes() == want_boxes.tobytes()


def faces(rng: np.random.Generator, images: int, boxes: int, spread: float = 300) -> tuple[Array, Array]:
    """Clusters of boxes as a detector makes them, many of them equal, their scores with many ties."""
    corner = np.round(rng.uniform(-20, spread, (images, boxes, 2)))
    size = np.round(rng.uniform(0, 60, (images, boxes, 2)))
    xyxy = np.concatenate([corner, corner + size], 2).astype(np.float32)
    xyxy[:, ::7] += rng.normal(0, 1, xyxy[:, ::7].shape).astype(np.float32)
    return xyxy, (np.round(rng.uniform(0, 1, (images, boxes)) * 50) / 50).astype(np.float32)


def grid(n: int) -> Array:
    at = np.arange(n, dtype=np.float32)
    corner = np.stack([at % 64, at // 64], 1) * 10
    return np.concatenate([corner, corner + 9], 1)[None]


def cases() -> dict[str, Case]:
    rng = np.random.default_rng(7)
    made: dict[str, Case] = {f"{n} boxes": (*faces(rng, 1, n), 0.3, 0.3) for n in (0, 1, 2, 63, 64, 65, 129)}
    for n in (63, 64, 65, 128):  # reach the chunks of 64, none being under the threshold
        made[f"{n} boxes above the threshold"] = (*faces(rng, 1, n), 0.0, 0.3)
    for n in (1000, 1024):
        made[f"3 x {n} boxes"] = (*faces(rng, 1, 3 * n, 900), 0.02, 0.3)
    for n in range(2, 9):
        made[f"batch of {n}"] = (*faces(rng, n, 90), 0.25, 0.3)
    one = np.tile(np.float32([3, 4, 30, 50]), (1, 200, 1))
    made["all suppressed"] = one, np.float32(rng.uniform(0.3, 1, (1, 200))), 0.3, 0.3
    made["all equal"] = one, np.full((1, 200), 0.5, np.float32), 0.3, 0.3
    made["none suppressed"] = grid(300), np.float32(rng.uniform(0.3, 1, (1, 300))), 0.3, 0.3
    made["none suppressed, full"] = grid(MAX_BOXES), np.ones((1, MAX_BOXES), np.float32), 0.3, 0.3
    made["none above the threshold"] = grid(70), np.zeros((1, 70), np.float32), 0.3, 0.3
    made["at the threshold"] = grid(3), np.float32([[0.3, np.nextafter(np.float32(0.3), np.float32(0)), 0.4]]), 0.3, 0.3
    half = np.float32([[[0, 0, 2, 1], [0, 0, 1, 1], [10, 0, 12, 1], [10, 0, 11, 1.001]]])
    made["IoU at its threshold"] = half, np.float32([[0.9, 0.8, 0.7, 0.6]]), 0.3, 0.5
    made["IoU threshold 0 and empty boxes"] = (
        np.repeat(half, 2, 1) * np.float32([1, 1, 1, 0]),
        np.ones((1, 8), np.float32),
        0.0,
        0.0,
    )
    chain = np.float32([[k, 0, k + 10, 10] for k in range(0, 400, 2)])[None]
    made["chain over words"] = chain, np.float32(np.linspace(1, 0.5, 200)[None]), 0.3, 0.3
    odd = np.float32(rng.choice([NAN, INF, -INF, 0.0, -0.0, 0.5, 1.0], (2, 150)))
    made["odd scores"] = faces(rng, 2, 150)[0], odd, 0.0, 0.3
    made["odd scores below zero"] = faces(rng, 2, 150)[0], odd - np.float32(0.5), -1.0, 0.3
    wild, scores = faces(rng, 1, 100)
    wild[0, rng.integers(0, 100, 30), rng.integers(0, 4, 30)] = rng.choice([NAN, INF, -INF, 3e38, -3e38, 1e-40], 30)
    made["odd corners"] = wild, scores, 0.0, 0.3
    made["inverted boxes"] = np.ascontiguousarray(faces(rng, 1, 100)[0][..., [2, 3, 0, 1]]), scores, 0.0, 0.3
    return made


CASES = cases()


@pytest.fixture(scope="module")
def kernels() -> Cpu:
    return cpu("nms.cu")


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_kernel_keeps_what_numpy_keeps_to_the_bit(kernels: Cpu, name: str) -> None:
    check(kernels, CASES[name])


def test_the_order_of_threads_changes_nothing() -> None:
    for seed in range(5):
        check(cpu("nms.cu", seed=1000 * seed), CASES["batch of 3"])


def test_too_many_boxes_are_refused(kernels: Cpu) -> None:
    with pytest.raises(ValueError, match="3072"):
        run_nms(kernels, *faces(np.random.default_rng(0), 1, MAX_BOXES + 1), 0.3, 0.3)


BARRIER = "__syncthreads();"
MUTATIONS = {
    "IoU at the threshold suppresses": ("shared_area > __fmul_rn(iou, joint)", "shared_area >= __fmul_rn(iou, joint)"),
    "score at the threshold is dropped": ("scores[i] >= threshold", "scores[i] > threshold"),
    "ties to the higher index": ("| (unsigned)index;", "| (0xffffffffu - index);"),
    "worst first": ("(Word)~rising", "(Word)rising"),
    "minus zero sorts behind zero": ("score + 0.0f", "score"),
    "sorted up to the next power only": ("while (size < n)", "while (2 * size < n)"),
    "padding one short": ("int i = n + thread; i < size", "int i = n + 1 + thread; i < size"),
    "the next box is not compared": ("thread + 1 : 0", "thread + 2 : 0"),
    "the last column is not compared": ("j < width; j++", "j < width - 1; j++"),
    "a chunk's last box is forgotten": ("(n - 64 * c)) - 1", "(n - 64 * c - 1)) - 1"),
    "a whole chunk is none": ("if (n - 64 * c < 64) alive", "if (n - 64 * c <= 64) alive"),
    "chunks rounded down": ("(n + 63) / 64", "n / 64"),
    "later chunks are not struck": ("if (word > c && gone)", "if (word > c + 1 && gone)"),
    "suppressed boxes suppress": ("if (keep >> (first + j) & 1) gone", "gone"),
    "the masks of the chunk before": ("int row = 64 * (c + 1) + first + j;", "int row = 64 * c + first + j;"),
    "NaN corners stay": ("return x - x == 0.0f", "return x == x"),
    "rest not cleared": ("faces[i] = 0.0f", "(void)i"),
    "image 0's boxes for all": ("xyxy += (long long)image * boxes * 4;", ""),
} | {f"without barrier {n}": (BARRIER, "") for n in range(source("nms.cu").count(BARRIER))}
TELLING = ("64 boxes above the threshold", "65 boxes", "129 boxes", "batch of 3", "IoU at its threshold",
           "at the threshold", "odd scores", "odd corners", "all equal", "chain over words",
           "none suppressed")  # fmt: skip


def battery(launch: Cpu) -> None:
    for _ in range(3):
        for case in TELLING:
            check(launch, CASES[case])


def test_the_source_itself_passes_what_mutations_must_not(kernels: Cpu) -> None:
    assert survives(battery, kernels)


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_mutations_are_found(name: str) -> None:
    old, new = MUTATIONS[name]
    parts = source("nms.cu").split(old)
    if name.startswith("without barrier"):
        at = int(name.split()[-1])
        parts = [old.join(parts[: at + 1]), old.join(parts[at + 1 :])]
    assert len(parts) == 2, "the mutation must fit one place"
    mutant = cpu("nms.cu", new.join(parts))
    assert not survives(battery, mutant)


def test_no_access_is_outside_of_its_array() -> None:
    """Once more under AddressSanitizer, which must come first in a process of its own."""
    sanitizer = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    preload = Path(sanitizer.stdout.strip())
    if not preload.is_file():
        pytest.skip("the compiler has no AddressSanitizer")
    library = build(source("nms.cu"), KERNELS["nms.cu"], "-fsanitize=address", "-g")
    bad = build(source("nms.cu").replace("SORT 4096", "SORT 1024"), KERNELS["nms.cu"], "-fsanitize=address", "-g")
    script = Path(__file__).parents[1].joinpath("sanitized_nms.py")
    environment = os.environ | {"LD_PRELOAD": str(preload), "ASAN_OPTIONS": "detect_leaks=0"}
    for path, passes in ((library, True), (bad, False)):
        done = subprocess.run(
            [sys.executable, str(script), str(path)], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == passes, done.stderr[-2000:]
        assert ("AddressSanitizer" in done.stderr) != passes
