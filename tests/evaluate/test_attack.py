"""Face matchers against covers: the scores, and the matcher itself where its extra is installed."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from facestream.pipeline.evaluate.attack import Person, neutral, score, scores, take, wilson

INSTALLED = all(find_spec(name) for name in ("dlib", "face_recognition_models", "onnx"))


def test_a_matcher_that_knows_everybody() -> None:
    one = score(1 - np.eye(20))
    assert (one.rank1, one.eer) == (1.0, 0.0)
    assert one.low > 0.8


def test_a_matcher_that_sees_nothing_is_at_chance() -> None:
    one = score(np.zeros((40, 40)))
    assert one.rank1 == pytest.approx(1 / 40)
    assert one.eer == pytest.approx(0.5)
    assert one.low <= 1 / 40 <= one.high
    rng = np.random.default_rng(1)
    many = [score(rng.random((40, 40))) for _ in range(50)]
    assert np.mean([m.rank1 for m in many]) == pytest.approx(1 / 40, abs=0.015)
    assert np.mean([m.eer for m in many]) == pytest.approx(0.5, abs=0.02)


def test_wilsons_interval() -> None:
    low, high = wilson(0.5, 100)
    assert (low, high) == (pytest.approx(0.404, abs=0.002), pytest.approx(0.596, abs=0.002))
    assert wilson(0.0, 10)[0] == 0.0


def test_neutral_ground_shows_what_is_under_the_cover_alone() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    shown = neutral(rgb, np.array([40.0, 40, 60, 60]))
    assert (shown[45:55, 45:55] == rgb[45:55, 45:55]).all()
    assert (shown[:30] == 128).all()
    assert (shown[:, :30] == 128).all()


@pytest.mark.skipif(not INSTALLED, reason="the extra `attack` is not installed")
def test_the_net_is_dlibs_own() -> None:
    from importlib.util import find_spec as spec
    from pathlib import Path

    import dlib
    from facestream.pipeline.evaluate.embedder import Embedder

    astronaut = pytest.importorskip("skimage.data").astronaut()
    embedder = Embedder()
    chip = embedder.aligned(astronaut, np.array([175.0, 60, 275, 190]))
    origin = spec("face_recognition_models").origin  # type: ignore[union-attr]
    weights = Path(str(origin)).parent / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    theirs = np.array(dlib.face_recognition_model_v1(str(weights)).compute_face_descriptor(np.ascontiguousarray(chip)))
    assert np.abs(embedder.embed([chip])[0] - theirs).max() < 1e-4


@pytest.mark.skipif(not INSTALLED, reason="the extra `attack` is not installed")
def test_bare_faces_are_known_again_and_solid_covers_tell_nothing() -> None:
    """Four "people": the astronaut's face in four colours and mirrored are different pictures; each is taken twice."""
    from facestream.pipeline.evaluate.embedder import Embedder

    astronaut = pytest.importorskip("skimage.data").astronaut()
    box = np.array([175.0, 60, 275, 190])
    rng = np.random.default_rng(0)
    embedder = Embedder()
    bare, hidden = [], []
    for turn in range(4):
        person, covered = Person(), Person()
        tinted = np.clip(astronaut * np.roll([1.0, 0.5, 0.8], turn) + 12 * turn, 0, 255).astype(np.uint8)
        for is_probe in (False, True):
            for _ in range(2):
                shot = np.clip(tinted + rng.normal(0, 4, tinted.shape), 0, 255).astype(np.uint8)
                take(person, embedder, shot, shot, box, is_probe)
                take(covered, embedder, shot, np.full_like(shot, 128), box, is_probe)
        bare.append(person)
        hidden.append(covered)
    assert scores(bare, embedder)["colours"].rank1 == 1.0
    assert scores(bare, embedder)["parrot"].rank1 == 1.0
    for name, one in scores(hidden, embedder).items():
        assert one.rank1 == pytest.approx(0.25), name
