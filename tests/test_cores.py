"""How cores are distributed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from facestream.pipeline import cores
from facestream.pipeline.batch import run
from facestream.pipeline.batch.journal import Journal
from facestream.pipeline.config import Config, read
from facestream.pipeline.run import Job


def test_workers_need_a_core_and_a_gb_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 64)
    for gb, most in ((0.5, 1), (3.9, 3), (500, 64)):
        monkeypatch.setattr(cores, "memory_gb", lambda gb=gb: gb)
        assert cores.workers() == most


def test_the_memory_is_known() -> None:
    assert 0.1 < cores.memory_gb() < 100_000


def test_workers_side_by_side_share_the_threads_that_are_left_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "cores", lambda: 16)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    jobs = [Job(f"{n}.mp4", tmp_path / f"{n}.mp4") for n in range(100)]
    free, asked = read(None), read(None, {"encode.threads": 7, "decode.threads": 5})

    def threads(size: int, config: Config = free) -> tuple[int, int]:
        batch = run.Batch(jobs, tmp_path, config, workers=size)
        with closing(Journal(batch.output)) as journal:
            shared = run.Dispatcher(batch, journal).setup.config
        return shared.encode.threads, shared.decode.threads

    assert threads(1) == (0, 0)
    assert threads(4) == (4, 2)
    assert threads(100) == (1, 1)
    assert threads(4, asked) == (7, 5)
