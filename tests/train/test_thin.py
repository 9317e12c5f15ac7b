from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig  # noqa: E402
from facestream.train.model import SPECS, SSH  # noqa: E402
from facestream.train.thin import best_channels, fit_conv, thinned  # noqa: E402
from torch.nn import functional as F  # noqa: E402

BIG = replace(SPECS["plainM"], branches=False)


def trained(seed: int) -> SSH:
    """A net whose norms have statistics, as after training."""
    torch.manual_seed(seed)
    model = SSH(BIG)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(2, 3, 96, 96) * 255)
    return model.eval()


def test_a_convolution_is_found_again() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 5, 24, 24), torch.randn(3, 5, 3, 3), torch.randn(3)
    fit = fit_conv(x, F.conv2d(x, weight, bias, padding=1), 3)
    assert torch.allclose(fit.weight, weight, atol=0.02)
    assert torch.allclose(fit.bias, bias, atol=0.02)
    assert fit.missed < 1e-3


def test_channels_that_repeat_others_go_first() -> None:
    rng = torch.Generator().manual_seed(0)
    free = torch.randn(500, 3, generator=rng)
    samples = torch.cat([free, 0.3 * free[:, :1], 0.2 * free[:, 1:2] - 0.1 * free[:, 2:]], 1)
    assert best_channels(samples.numpy(), 3) == [0, 1, 2]


def test_a_student_of_the_same_size_computes_the_same() -> None:
    teacher, student = trained(0), SSH(BIG)
    images = torch.rand(4, 3, 128, 128) * 255
    missed = thinned(teacher, student, images)
    assert max(missed.values()) < 0.02
    with torch.no_grad():
        for (a, b), (c, d) in zip(teacher(images), student(images), strict=True):
            assert torch.allclose(a, c, atol=0.02)
            assert torch.allclose(b, d, atol=0.02)


def test_a_thinner_student_is_nearer_than_chance() -> None:
    """Half of the channels and a block less, fitted, against the same net with the weights it was born with."""
    spec = replace(BIG, fusion=32, depths=(1, 2, 2, 5, 2))
    teacher, student, born = trained(1), SSH(spec), SSH(spec).eval()
    images = torch.rand(4, 3, 128, 128) * 255
    thinned(teacher, student, images)
    with torch.no_grad():
        wanted, fitted, random = (torch.cat([b for _, b in net(images)], 1) for net in (teacher, student, born))
    assert (fitted - wanted).abs().mean() < 0.6 * (random - wanted).abs().mean()


def test_nets_without_a_pyramid_are_refused() -> None:
    with pytest.raises(BadConfig, match="pyramid"):
        thinned(SSH(replace(SPECS["plainXS16"], branches=False)), SSH(BIG), torch.zeros(1, 3, 64, 64))
