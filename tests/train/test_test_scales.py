from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig  # noqa: E402
from facestream.engines.letterbox import ImageView  # noqa: E402
from facestream.engines.loader import load_detector  # noqa: E402
from facestream.engines.options import DetectorOptions  # noqa: E402
from facestream.engines.torch_engine import TorchDetector  # noqa: E402
from facestream.train.checkpoint import save_weights  # noqa: E402
from facestream.train.evaluate import command  # noqa: E402
from facestream.train.model import Deploy, build  # noqa: E402
from facestream.train.snip import LEVELS, Level  # noqa: E402
from facestream.train.test_scales import (  # noqa: E402
    InputSize,
    parse_size,
    pyramid_scales,
    scale_to,
    scales_from_options,
    trained_levels,
)

from tests.pack import demo_frames, make_pack  # noqa: E402
from tests.train.test_fddb import sample  # noqa: E402


def test_sizes_of_the_paper_and_sizes_to_shrink_into() -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    assert parse_size("native") is None
    sizes = {"1200x1600": (1200, 1600), "400x800": (400, 533), "640x384": (300, 400), "200x160": (150, 200)}
    for text, (h, w) in sizes.items():
        size = parse_size(text)
        assert size is not None
        assert size.view(picture).rgb.shape == (h, w, 3)
    assert InputSize(400, 800).view(np.zeros((100, 400, 3), np.uint8)).rgb.shape == (
        200,
        800,
        3,
    )  # the longer side bounds
    for bad in ("large", "3x", "0x5", "99999x9"):
        with pytest.raises(BadConfig, match="--size"):
            parse_size(bad)


def test_scales_of_the_papers_pyramid() -> None:
    assert pyramid_scales(1024, 768) == pytest.approx([800 / 768 * s / 800 for s in (500, 800, 1200, 1600)])
    assert scale_to(1024, 400, 800, 1200) == pytest.approx(1200 / 1024)


def test_a_protocol_has_its_size_and_views_exclude_each_other() -> None:
    assert scales_from_options(None, "wider", 1, False, False, False).size is None
    assert scales_from_options(None, "fddb", 1, False, False, False).size == InputSize(400, 800)  # section 4.4
    assert scales_from_options(None, "wider", 0.5, False, True, True).levels == LEVELS
    for flags in (("1200x1600", True, False), (None, True, True)):
        with pytest.raises(BadConfig, match="give one of"):
            scales_from_options(flags[0], "wider", 1, flags[1], flags[2], False)
    with pytest.raises(BadConfig, match="--zoom"):
        scales_from_options(None, "wider", 9, False, False, False)


@pytest.mark.parametrize("shipped", [False, True])
def test_the_largest_level_can_do_without_m3(shipped: bool) -> None:
    """What remains are the boxes of the other two modules, and no box of the coarsest one's anchors."""
    torch.manual_seed(0)
    options = DetectorOptions(threshold=0.0, nms_iou=1.0)
    detector = load_detector("plainS", options) if shipped else TorchDetector(Deploy(build("narrow")), options)
    rgb = demo_frames([20])[0][:128, :192]
    k = detector.coarsest_anchors
    assert k in (1, 2)
    views = [ImageView(rgb, 192, 128)]
    every, rest = (len(detector.detect(views, coarsest=c)[0]) for c in (True, False))
    assert 0 < every - rest <= 4 * 6 * k, "boxes without an area fall out"
    assert shipped or every - rest == 4 * 6 * k


def invoke(*words: str) -> dict:
    done = CliRunner().invoke(command, [*words, "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.output.splitlines()[-1])


def test_the_command_knows_fddb_and_draws_it(tmp_path: Path) -> None:
    root = sample(tmp_path / "fddb")
    result = invoke("--data", str(root), "--protocol", "fddb", "--plots", str(tmp_path / "plots"))
    assert (result["images"], result["missing"], result["faces"]) == (10, 0, 20)
    assert set(result["discrete_continuous_at_false"]) == {"100", "500", "1000", "2000"}
    for name in ("roc.png", "sheet.jpg", "fddb/fold-10-out.txt"):
        assert (tmp_path / "plots" / name).is_file()


def test_a_smaller_picture_can_be_shown_at_snips_levels(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, 1)
    low = ("--data", str(pack), "--zoom", "0.5", "--threshold", "0.02")
    half, snip = invoke(*low), invoke(*low, "--snip", "--soft")
    assert half["faces"] == snip["faces"] > 0
    assert half["miss_rate"].keys() == snip["miss_rate"].keys()
    assert snip["false_alarms"] != half["false_alarms"]
    assert snip["ms_per_image"] > 0


def test_timing_prints_the_papers_sizes_beside_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facestream.train.timing.TABLE_2", {"40x80": 48, "120x160": 182})
    result = invoke("--timing", "--model", "narrow", "--device", "cpu")
    assert {n: v["paper_ms"] for n, v in result["timing"].items()} == {"40x80": 48, "120x160": 182}
    assert all(v["ms"] > 0 for v in result["timing"].values())
    assert result["device"] == "cpu"


def test_without_data_the_command_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "facestream.train.evaluate"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "--data" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_that_snip_trained_are_looked_at_at_their_levels(tmp_path: Path) -> None:
    level = {"shortest": 64, "longest": 96, "low": 0.0, "high": 50.0}
    for name, config in {
        "snip": {"snip": True, "levels": [level]},
        "plain": {"snip": False, "levels": [level]},
    }.items():
        save_weights(tmp_path / f"{name}.safetensors", build("narrow"), {"config": config})
    assert trained_levels(tmp_path / "snip.safetensors") == (Level(**level),)
    assert trained_levels(tmp_path / "plain.safetensors") == trained_levels(None) == LEVELS


def test_detections_are_written_for_widers_own_evaluation(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack", 1)
    result = invoke("--data", str(pack), "--results", str(tmp_path / "out"))
    (file,) = (tmp_path / "out" / "demo").iterdir()
    name, count, *rows = file.read_text().splitlines()
    assert name == file.stem
    assert len(rows) == int(count) > 0
    assert all(len(row.split()) == 5 for row in rows)
    (pack / "WIDER_val").rename(pack / "WIDER_test")
    listing = pack / "wider_face_split" / "wider_face_test_filelist.txt"
    listing.write_text(f"demo/{file.stem}.png\ndemo/none.png\n")
    test = invoke("--data", str(pack), "--split", "test", "--results", str(tmp_path / "test"))
    assert (test["images"], test["missing"]) == (result["images"], 1)
    assert (tmp_path / "test" / "demo" / file.name).read_text() == file.read_text()
    refused = CliRunner().invoke(command, ["--data", str(pack), "--split", "test"])
    assert "--results" in str(refused.exception)
