from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import pytest
from facestream.benchmarks.command import _deface_runs
from facestream.benchmarks.goals import chart, goals
from facestream.benchmarks.job_bench import CALLS, Bench, Spent, bench, timed
from facestream.pipeline.config import read
from facestream.pipeline.errors import BadConfig, BadInput
from PIL import Image

from tests.conftest import facestream, render


def test_every_stage_takes_its_share_and_a_baseline_runs_on_the_same_clip(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=20)
    baseline = tmp_path / "deface"
    baseline.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\ncp "$1" "$3"\n')
    baseline.chmod(0o755)
    messages: list[str] = []
    config = read(None, {"detector.size": (160, 96), "encode.preset": "ultrafast"})
    result = bench(
        source, config, {"deface": (), "deface small": ("--scale", "9x9")}, str(baseline), 1, messages.append
    )
    report = result.as_dict()
    assert report["frames"] == 20
    assert set(report["stages_ms"]) == {"decode", *CALLS, "cover", "encode", "rest"}
    assert all(report["stages_ms"][name] > 0 for name in ("decode", *CALLS))
    assert report["stages_ms"]["detect"] > report["stages_ms"]["track"]
    assert set(report["peers"]) == {"deface", "deface small"}
    assert set(report["peers"]["deface"]) == {"cpu_s_per_frame", "fps", "peak_rss_mb", "cpu_ratio"}
    assert report["peak_rss_mb"] > 50 > report["peers"]["deface"]["peak_rss_mb"]
    assert [line.split()[0] for line in (tmp_path / "said").read_text().splitlines()] == [str(source)] * 2
    assert (tmp_path / "said").read_text().splitlines()[1].endswith("--scale 9x9")
    assert len(messages) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deface", "in.mp4", "said"]


def test_a_baseline_may_get_fewer_frames_and_is_compared_on_these(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=20)
    baseline = tmp_path / "deface"
    baseline.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/given.mp4\ncp "$1" "$3"\n')
    baseline.chmod(0o755)
    config = read(None, {"detector.size": (160, 96), "encode.preset": "ultrafast"})
    report = bench(source, config, {"deface": ()}, str(baseline), 1, lambda _: None, baseline_frames=8).as_dict()
    with av.open(str(tmp_path / "given.mp4")) as given:
        assert len(list(given.decode(video=0))) == 8
    assert (report["frames"], report["baseline_frames"]) == (20, 8)
    assert report["same_frames"]["cpu_s_per_frame"] > report["cpu_s_per_frame"] / 2


def test_what_is_cut_is_compared_with_what_is_cut() -> None:
    cut = (5, Spent(1.5, 2.0, 100.0))
    result = Bench(10, Spent(2.0, 4.0, 100.0), {"decode": 1.0}, 1.0, {"deface": Spent(16.0, 20.0, 300.0)}, cut)
    assert result.as_dict()["peers"]["deface"]["cpu_s_per_frame"] == 3.2
    assert result.as_dict()["peers"]["deface"]["cpu_ratio"] == pytest.approx(16 / 1.5, abs=1e-3)
    assert "10.67" in result.table().splitlines()[-1]


def test_figures_are_those_of_a_frame() -> None:
    result = Bench(10, Spent(2.0, 4.0, 100.0), {"decode": 1.0}, 1.0, {"deface": Spent(16.0, 20.0, 300.0)})
    report = result.as_dict()
    assert (report["cpu_s_per_frame"], report["fps"], report["peak_rss_mb"]) == (0.2, 2.5, 100.0)
    assert (report["limit_cpu_s_per_frame"], report["times_limit"]) == (0.1, 2.0)
    assert report["peers"]["deface"] == {"cpu_s_per_frame": 1.6, "fps": 0.5, "peak_rss_mb": 300.0, "cpu_ratio": 8.0}
    assert "8.00" in result.table().splitlines()[-1]


def test_cpu_and_memory_are_a_commands_own() -> None:
    burn = "import time\nb = bytearray(80_000_000)\nwhile time.process_time() < 0.4: pass\nprint('done')"
    spent, said = timed([sys.executable, "-c", burn])
    assert said == "done\n"
    assert 0.4 <= spent.cpu_s < 5
    assert 80 < spent.rss_mb < 400


def test_what_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the last word"):
        timed(["sh", "-c", "echo something >&2; echo the last word >&2; exit 3"])
    with pytest.raises(BadConfig, match="not installed"):
        bench(tmp_path / "x.mp4", read(None), {"deface": ()}, str(tmp_path / "none"), 1, print)


def test_the_command(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=6, size=(96, 64))
    done = facestream("bench", source, "--json", "--quiet", "--size", "160x96")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) >= {
        "frames", "cpu_s_per_frame", "fps", "peak_rss_mb", "stages_ms", "peers"
    }  # fmt: skip
    missing = facestream("bench", tmp_path / "none.mp4", "--quiet")
    assert missing.returncode == 2
    assert "none.mp4" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1


def test_several_clips_are_held_against_the_goals_and_drawn(tmp_path: Path) -> None:
    baselines = {"deface": Spent(16.0, 20.0, 300.0), "deface 640x360, auto": Spent(4.0, 20.0, 300.0)}
    street = Bench(10, Spent(2.0, 4.0, 299.0), {"decode": 1.0}, 0.5, baselines, height=1080)
    results = {"street.mp4": street, "small.mp4": Bench(10, Spent(1.0, 4.0, 400.0), {}, 0.5, {}, height=720)}
    head, first, second = goals(results).splitlines()
    assert [cell.split()[0] for cell in head.split("  ") if cell][:3] == ["clip", "frames", "CPU"]
    # 4 times the limit, 299 MB, 8 times and twice as fast; of a small picture memory has no goal, and no baseline ran
    assert first.split() == ["street.mp4", "10", "0.2000", "4", "no", "299", "yes", "8", "yes", "2", "no"]
    assert second.split() == ["small.mp4", "10", "0.1000", "2", "yes", "-", "-", "-"]
    chart(results, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as picture:
        colours = dict((colour, count) for count, colour in picture.getcolors(1 << 16) or ())
    assert (
        colours[200, 85, 61] > colours[43, 122, 120] > colours[154, 165, 177] > 1000
    )  # deface, ours twice, the limits


def test_the_baseline_gets_our_encoders_words() -> None:
    (*_, last) = _deface_runs("auto", 20).values()
    words = json.loads(last[-1])["output_params"]
    chosen = dict(zip(words[::2], words[1::2], strict=True))
    assert chosen["-preset"] == "superfast"
    assert "mbtree=1" in chosen["-x264-params"]
    assert json.loads(list(_deface_runs("fast", 18.5).values())[-1][-1])["output_params"] == [
        "-crf",
        "18.5",
        "-preset",
        "fast",
    ]
