from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from facestream.engines.face_crops import SIDE
from facestream.engines.types import Detections
from facestream.engines.verified import VERIFIER, Verifier
from facestream.train.calibrate import halved, logit
from facestream.train.data import Labelled
from facestream.train.fuse import Fused, Fusion, VerifiedPicture, export, fuse, joined, regression
from facestream.train.verifier import VerifierNet, load_verifier


def test_the_regression_finds_the_weights_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 2))
    chance = 1 / (1 + np.exp(-(1.5 * x[:, 0] + 0.5 * x[:, 1] - 0.7)))
    gains, shift = regression(x, rng.random(20_000) < chance)
    assert gains == pytest.approx([1.5, 0.5], abs=0.1)
    assert shift == pytest.approx(-0.7, abs=0.1)


def pictures(count: int) -> list[VerifiedPicture]:
    """One face a picture. The detector's score is chance; the verifier is mostly right."""
    rng = np.random.default_rng(1)
    out = []
    for _ in range(count):
        face = np.float32([[10, 10, 50, 50]])
        item = Labelled(Path("x"), face, np.array([False]), "list", 1)
        boxes = np.float32([[10, 10, 50, 50], [200, 200, 240, 240]])
        scores = rng.uniform(0.2, 0.9, 2).astype(np.float32)
        logits = np.float32([2.0, -2.0]) + rng.normal(0, 1.5, 2).astype(np.float32)
        order = np.argsort(-scores)
        out.append(VerifiedPicture(item, Detections(boxes[order], scores[order]), logits[order]))
    return out


def test_the_joint_score_listens_to_the_one_that_knows() -> None:
    fusion = fuse(pictures(600), 0.2)
    assert fusion.gains[1] > 1
    assert abs(fusion.gains[0]) < 0.3
    best = [found.xyxy[0].tolist() for found in joined(pictures(600), fusion)]
    assert np.mean([box == [10, 10, 50, 50] for box in best]) > 0.9


def test_the_shift_puts_the_default_where_the_asked_share_is_missed() -> None:
    seen = pictures(600)
    fusion = fuse(seen, 0.2, missed=0.1)
    found = joined(seen, fusion)
    kept = [(d.xyxy[d.scores >= 0.2] == 10).any() for d in found]
    assert 1 - np.mean(kept) == pytest.approx(0.1, abs=0.01)


def test_the_graph_computes_what_training_did(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = VerifierNet().eval()
    net.score.weight.data.mul_(30)
    fusion = Fusion((1.3, 0.6), -0.2)
    export(net, fusion, {"training": {}, "fused on": []}, tmp_path / "v.onnx")
    crops = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
    scores = np.float32([0.0, 0.1, 0.5, 0.9, 1.0])
    with torch.inference_mode():
        wanted = Fused(net, fusion)(torch.from_numpy(crops), torch.from_numpy(scores)).numpy()
        logits = net(torch.from_numpy(crops).permute(0, 3, 1, 2)).numpy()
    assert Verifier(tmp_path / "v.onnx").scores(crops, scores) == pytest.approx(wanted, abs=1e-3)
    assert fusion.scores(scores, logits) == pytest.approx(wanted, abs=1e-3)
    assert fusion.scores(np.float32([0.5]), np.float32([0]))[0] == pytest.approx(
        1 / (1 + np.exp(0.2 - 1.3 * logit(np.float32([0.5]))[0]))
    )


def test_the_shipped_graph_is_that_of_the_shipped_weights() -> None:
    """Whoever trains on from the checkpoint starts at what the program runs."""
    root = Path(__file__).parents[2]
    net, _ = load_verifier(root / "train" / "checkpoints" / "verifier.safetensors")
    metadata = {entry.key: entry.value for entry in onnx.load(str(VERIFIER)).metadata_props}
    stored = json.loads(metadata["facestream"])["fusion"]
    fusion = Fusion((stored["gains"][0], stored["gains"][1]), stored["shift"])
    rng = np.random.default_rng(5)
    crops = rng.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    scores = rng.uniform(0.1, 0.9, 4).astype(np.float32)
    with torch.inference_mode():
        own = net(torch.from_numpy(crops).permute(0, 3, 1, 2)).numpy()
    assert Verifier().scores(crops, scores) == pytest.approx(fusion.scores(scores, own), abs=1e-4)


def test_halves_are_apart_and_whole_together() -> None:
    items = [Labelled(Path(str(i)), np.zeros((0, 4), np.float32), np.zeros(0, bool), "", 1) for i in range(5)]
    assert halved(items, "all") == items
    assert halved(items, "even") == items[::2]
    assert halved(items, "odd") == items[1::2]
