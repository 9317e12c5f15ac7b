"""A batch on a Ray cluster of two nodes, both on this machine, gives the same results as on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from facestream.pipeline.batch.cluster import ClusterDispatcher
from facestream.pipeline.batch.journal import Journal
from facestream.pipeline.batch.manifest import fingerprint, sha256
from facestream.pipeline.batch.run import Batch
from facestream.pipeline.batch.worker import Setup, Task
from facestream.pipeline.cli.app import main
from facestream.pipeline.config import read
from facestream.pipeline.run import Job

from tests.batch.test_segments import film, pictures, sides
from tests.conftest import render

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'facestream[ray]'")

FAST = ["--model", "plainXS16", "--size", "160x96", "--preset", "ultrafast", "--crf", "0"]


class Machines:
    """A cluster: the first machine stays, the second may be lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        how = {"num_cpus": 1, "include_dashboard": False}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=how)
        self.second: Any = self.cluster.add_node(num_cpus=1)
        self.address = str(self.cluster.address)

    def lose_one(self) -> None:
        """All its processes are killed at once."""
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture
def machines() -> Iterator[Machines]:
    try:
        made = Machines()
    except Exception as e:  # it waits for its own processes for 30 s at most
        pytest.skip(f"no Ray cluster could be started here: {str(e).splitlines()[0]}")
    yield made
    made.cluster.shutdown()


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 1200
    while not what() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert what(), process.communicate()


def as_before(folder: Path, expected: Path) -> None:
    """Whole files are the same byte by byte; the long one, in segments, shows the same pictures at the same times."""
    names = sorted(str(p.relative_to(expected)) for p in expected.rglob("*") if p.is_file())
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == names
    for name in names:
        if name == "0-long.mp4":
            assert pictures(folder / name) == pictures(expected / name)
            assert sides(folder / name) == sides(expected / name)
        else:
            assert sha256(folder / name) == sha256(expected / name)


def test_the_machines_can_compare_the_settings_that_they_get_with_the_key(tmp_path: Path) -> None:
    jobs = [Job(f"{n}.mp4", tmp_path / f"{n}.mp4") for n in range(9)]
    batch = Batch(jobs, tmp_path / "out", read(None, {"anonymize.workers": 9}), ray="auto", workers=9)
    with closing(Journal(batch.output)) as journal:
        setup = ClusterDispatcher(batch, journal).setup
    assert fingerprint(setup.config, setup.two_pass) == setup.key


@pytest.mark.slow
def test_a_machine_lost_half_way_changes_nothing(machines: Machines, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    film(source / "0-long.mp4", 180, gop=25, size=(160, 90), rate=5)
    for n in range(1, 5):
        render(source / ("deep" if n % 2 else "") / f"{n}.mp4", frames=12, size=(160, 96))
    (source / "5-broken.mp4").write_bytes(b"\0" * 5000)
    alone = ["anonymize", str(source), "-o", str(tmp_path / "alone"), *FAST, "--records", str(tmp_path / "a.jsonl")]
    assert main([*alone, "--quiet"]) == 2
    settings = tmp_path / "settings.toml"
    settings.write_text("[anonymize]\nsegment_s = 30\n")
    out, notes = tmp_path / "out", tmp_path / "r.jsonl"
    words = ["anonymize", str(source), "-o", str(out), *FAST, "--records", str(notes), "--config", str(settings)]
    words += ["--ray", machines.address, "--manifest", str(tmp_path / "m.json")]
    command = [sys.executable, "-m", "facestream", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(out.rglob("[1-4].mp4"))) >= 2, process)
    machines.lose_one()
    said, errors = process.communicate(timeout=1200)
    assert process.returncode == 2, errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert "5-broken.mp4" in errors
    assert "5 of 6 files done, 1 failed" in said
    as_before(out, tmp_path / "alone")
    assert notes.read_text() == (tmp_path / "a.jsonl").read_text()
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest["complete"] is True
    assert manifest["totals"]["faces"] > 200
    assert main(["verify", str(tmp_path / "m.json")]) == 0
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, timeout=600)
    assert "5 of 6 files done, 5 of them before" in again.stdout, again.stderr
    assert notes.read_text() == (tmp_path / "a.jsonl").read_text()


@pytest.mark.slow
def test_the_moments_at_risk_are_those_of_one_machine(machines: Machines, tmp_path: Path) -> None:
    """Of a file that is done in segments, and of one that is done whole."""
    source = tmp_path / "in"
    source.mkdir()
    film(source / "long.mp4", 180, gop=25, size=(160, 90), rate=5)
    render(source / "short.mp4", frames=12, size=(160, 96))
    settings = tmp_path / "settings.toml"
    settings.write_text("[anonymize]\nsegment_s = 30\n")
    words = ["anonymize", str(source), *FAST, "--config", str(settings), "--report", "--quiet"]
    assert main([*words, "-o", str(tmp_path / "alone")]) == 0
    cluster = [*words, "-o", str(tmp_path / "out"), "--ray", machines.address]
    assert main(cluster) == 0
    for name in ("long.mp4.report.html", "short.mp4.report.html"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "alone" / name).read_text()
    assert "frame" in (tmp_path / "out" / "long.mp4.report.html").read_text()


def test_a_report_is_made_on_a_machine_of_the_cluster(tmp_path: Path) -> None:
    from facestream.pipeline.batch.cluster import cover_file

    config = read(None, {"detector.model": "plainXS16"})
    task = Task(0, Job(str(render(tmp_path / "in.mp4", frames=8)), tmp_path / "out.mp4"))
    answer = cover_file(task, Setup(config, False, fingerprint(config, False), report=True))
    assert answer.outcome.code == 0, answer.outcome.entry.error
    assert "face-frames may be visible" in (tmp_path / "out.mp4.report.html").read_text()


def test_a_report_that_exists_is_not_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    render(source / "a.mp4", frames=3)
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "a.mp4.report.html"
    kept.write_text("mine")
    assert main(["anonymize", str(source), "-o", str(tmp_path / "out"), "--report", "--quiet"]) == 2
    error = capfd.readouterr().err.strip()
    assert "a.mp4.report.html: the report exists already" in error
    assert "\n" not in error
    assert kept.read_text() == "mine"
    assert not (tmp_path / "out" / "a.mp4").exists()


def test_other_software_on_a_machine_is_refused(tmp_path: Path) -> None:
    from facestream.pipeline.batch.cluster import cover_file

    config = read(None)
    task = Task(2, Job(str(render(tmp_path / "in.mp4", frames=3)), tmp_path / "out.mp4"))
    assert fingerprint(config, False) != "another"
    answer = cover_file(task, Setup(config, False, "another"))
    assert answer.outcome.code == 2
    assert "the software of" in answer.outcome.entry.error
    assert not (tmp_path / "out.mp4").exists()


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = render(tmp_path / "in.mp4", frames=3)
    code = main(["anonymize", str(source), "-o", str(tmp_path / "out.mp4"), "--ray", "127.0.0.1:1"])
    assert code == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("facestream: error: 127.0.0.1:1: no Ray cluster answers")
