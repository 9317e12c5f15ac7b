"""The network against the paper's figures 2 to 4, with anchors and receptive fields at 1200x1600."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.train.config import recipe  # noqa: E402
from facestream.train.model import SPECS, SSH  # noqa: E402
from facestream.train.paper import anchor_counts, layers, receptive_fields  # noqa: E402

# name, kernel, channels in and out, stride: figure 2 (VGG-16 to conv5-3, fusion), 3 and 4 with X = 128, 256, 256
BACKBONE = [
    ("conv1-1", 3, 3, 64, 1), ("conv1-2", 3, 64, 64, 1),
    ("conv2-1", 3, 64, 128, 2), ("conv2-2", 3, 128, 128, 2),
    ("conv3-1", 3, 128, 256, 4), ("conv3-2", 3, 256, 256, 4), ("conv3-3", 3, 256, 256, 4),
    ("conv4-1", 3, 256, 512, 8), ("conv4-2", 3, 512, 512, 8), ("conv4-3", 3, 512, 512, 8),
    ("conv5-1", 3, 512, 512, 16), ("conv5-2", 3, 512, 512, 16), ("conv5-3", 3, 512, 512, 16),
]  # fmt: skip
FUSION = [("lateral16", 1, 512, 128, 16), ("lateral8", 1, 512, 128, 8), ("smooth", 3, 128, 128, 8)]


def module(name: str, cin: int, x: int, stride: int, k: int = 2) -> list[tuple[str, int, int, int, int]]:
    half = x // 2
    return [
        (f"{name}.face", 3, cin, x, stride),
        (f"{name}.context.shared", 3, cin, half, stride),
        (f"{name}.context.five", 3, half, half, stride),
        (f"{name}.context.seven.0", 3, half, half, stride),
        (f"{name}.context.seven.1", 3, half, half, stride),
        (f"{name}.scores", 1, 2 * x, 2 * k, stride),
        (f"{name}.boxes", 1, 2 * x, 4 * k, stride),
    ]


def test_vgg16_is_the_papers_layer_by_layer() -> None:
    rows = layers("vgg16", 1200, 1600)
    figures = [*BACKBONE, *FUSION, *module("M1", 128, 128, 8), *module("M2", 512, 256, 16), *module("M3", 512, 256, 32)]
    assert [(r.name, r.kernel, r.cin, r.cout, r.stride) for r in rows] == figures
    assert [r.parameters for r in rows] == [k * k * cin * cout + cout for _, k, cin, cout, _ in figures]
    sizes = {1: (1200, 1600), 2: (600, 800), 4: (300, 400), 8: (150, 200), 16: (75, 100), 32: (37, 50)}
    assert [(r.height, r.width) for r in rows] == [sizes[stride] for *_, stride in figures]
    assert sum(r.parameters for r in rows) == 19_766_372
    assert sum(r.parameters for r in rows[:13]) == 14_714_688  # VGG-16 without its head


def test_anchors_at_1200x1600() -> None:
    assert anchor_counts("vgg16", 1200, 1600) == [152 * 200 * 2, 76 * 100 * 2, 38 * 50 * 2]  # padded to 1216x1600
    assert SPECS["vgg16"].sizes == ((16, 32), (64, 128), (256, 512))


def test_receptive_fields_grow_by_the_stride_with_the_context_modules_5x5_and_7x7() -> None:
    """conv5-3 sees 196 px, the pooled map 212; each further 3x3 adds two cells. `narrow` is the same geometry."""
    narrow, wide = SPECS["narrow"], SPECS["vgg16"]
    assert (narrow.backbone, narrow.sizes, narrow.strides) == (wide.backbone, wide.sizes, wide.strides)
    m1, m2, m3 = receptive_fields(SSH(narrow))
    assert m2 == {"face": 196 + 2 * 16, "five": 196 + 4 * 16, "seven": 196 + 6 * 16}
    assert m3 == {"face": 212 + 2 * 32, "five": 212 + 4 * 32, "seven": 212 + 6 * 32}
    # M1 sees what conv5-3 sees through the bilinear up-sampling (one more cell of 16) and the 3x3 of the fusion
    assert m1 == {"face": 212 + 4 * 8, "five": 212 + 6 * 8, "seven": 212 + 8 * 8}


def test_the_recipe_is_section_4_1() -> None:
    c = recipe("vgg16")
    assert (c.optimizer, c.lr, c.momentum, c.weight_decay) == ("sgd", 0.004, 0.9, 5e-4)
    assert (c.steps, c.schedule, c.batch) == (21_000, "step", 4)
    assert (c.view, c.shortest, c.longest) == ("whole_images", 1200, 1600)
    assert (c.assign.face, c.assign.background, c.assign.fewest) == (0.5, 0.3, 0)
    assert (c.hard_anchors.count, c.hard_anchors.face_share, c.hard_anchors.ratio, c.ohem) == (256, 0.25, None, True)
    assert (c.loss, c.warmup, c.clip, c.ema) == ("mined", 0, 0.0, 0.0)  # nothing that the paper does not name
    assert c.frozen == 5  # conv1-1 to conv3-1


@pytest.mark.parametrize(
    ("switch", "sizes", "strides"),
    [
        ({"only_m2": True}, ((16, 32, 64, 128, 256, 512),), (16,)),
        ({"fusion": False}, ((16, 32), (64, 128), (256, 512)), (8, 16, 32)),
        ({"context": False}, ((16, 32), (64, 128), (256, 512)), (8, 16, 32)),
        (
            {"anchors": "finer"},
            ((4, 8, 16, 32, 48), (64, 96, 128, 160, 192), (256, 320, 384, 448, 512)),  # 16 px times section 4.10's
            (8, 16, 32),
        ),
    ],
)
def test_ablations_change_what_their_section_says(switch: dict, sizes: tuple, strides: tuple) -> None:
    spec = recipe("narrow", **switch).spec()
    assert (spec.sizes, spec.strides) == (sizes, strides)
    model = SSH(spec).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 96))
    assert [s.shape[1] for s, _ in outputs] == [
        64 // t * (96 // t) * len(k) for t, k in zip(strides, sizes, strict=True)
    ]
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert ("smooth" in names) == (switch.keys() <= {"context", "anchors"})
    assert any("context" in name for name, _ in model.named_parameters()) == ("context" not in switch)
