from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.train.anchors import decode, encode, grid_anchors  # noqa: E402
from facestream.train.model import SPECS, STRIDES  # noqa: E402


def test_anchors_are_centred_on_their_cells_row_by_row_and_size_within() -> None:
    anchors = grid_anchors(2, 3, 8, (16, 32))
    assert anchors.shape == (2 * 3 * 2, 4)
    assert anchors[0].tolist() == [4 - 8, 4 - 8, 4 + 8, 4 + 8]
    assert anchors[1].tolist() == [4 - 16, 4 - 16, 4 + 16, 4 + 16]
    assert anchors[2].tolist() == [12 - 8, 4 - 8, 12 + 8, 4 + 8]  # next column
    assert anchors[6].tolist() == [4 - 8, 12 - 8, 4 + 8, 12 + 8]  # next row


def test_paper_anchors_are_16_to_512_px_and_count_two_a_cell() -> None:
    spec = SPECS["vgg16"]
    assert spec.sizes == ((16, 32), (64, 128), (256, 512))  # scales {1,2} {4,8} {16,32} on 16 px
    counts = [len(grid_anchors(1216 // s, 1600 // s, s, k)) for s, k in zip(STRIDES, spec.sizes, strict=True)]
    assert counts == [152 * 200 * 2, 76 * 100 * 2, 38 * 50 * 2]


def test_encode_by_hand() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    box = torch.tensor([[4.0, 2.0, 36.0, 18.0]])  # centre (20, 10), 32 x 16
    dx, dy, dw, dh = encode(anchor, box)[0].tolist()
    assert (dx, dy) == pytest.approx((12 / 16, 2 / 16))
    assert dw == pytest.approx(0.693147, abs=1e-5)
    assert dh == pytest.approx(0, abs=1e-6)


def test_decode_undoes_encode() -> None:
    torch.manual_seed(0)
    corner = torch.rand(50, 2) * 100
    anchors = torch.cat([corner, corner + 1 + torch.rand(50, 2) * 60], 1)
    corner = torch.rand(50, 2) * 100
    boxes = torch.cat([corner, corner + 1 + torch.rand(50, 2) * 60], 1)
    assert torch.allclose(decode(anchors, encode(anchors, boxes)), boxes, atol=1e-3)


def test_decode_stays_finite_on_wild_offsets() -> None:
    assert torch.isfinite(decode(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 500, 500]]))).all()
