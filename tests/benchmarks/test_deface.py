from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from facestream.benchmarks.deface import cover_with
from facestream.pipeline.errors import BadConfig, BadInput

from tests.conftest import facestream
from tests.pack import DEMO, TRUTH


def test_a_tool_that_is_not_there_or_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="not installed"):
        cover_with("deface", str(tmp_path / "none"), DEMO, tmp_path / "out.mp4")
    broken = tmp_path / "deface"
    broken.write_text("#!/bin/sh\necho something >&2\necho the last word >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(BadInput, match="the last word"):
        cover_with("deface", str(broken), DEMO, tmp_path / "out.mp4")


def test_both_outputs_are_judged_by_their_pixels(tmp_path: Path) -> None:
    """The other tool is one that leaves the video as it is."""
    copy = tmp_path / "copy"
    copy.write_text('#!/bin/sh\ncp "$1" "$3"\n')
    copy.chmod(0o755)
    done = facestream(
        "evaluate", "leaks", str(DEMO), str(TRUTH), "--against", "deface", "--command", str(copy), "--json",
        "--pictures", str(tmp_path / "pictures"), "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout.splitlines()[-1])
    assert ours["face_frames"] == ours["against"]["deface"]["face_frames"] == 367
    assert ours["leak_rate_tau50"] < 0.05
    assert ours["against"]["deface"]["leak_rate_tau50"] > 0.98
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {"timeline.png", "worst.png"}


@pytest.mark.slow
def test_deface_itself(tmp_path: Path) -> None:
    if shutil.which("deface") is None:
        pytest.skip("deface is not installed")
    took = cover_with("deface", None, DEMO, tmp_path / "out.mp4", ("--scale", "640x360"))
    assert took > 0
    assert (tmp_path / "out.mp4").stat().st_size > 10_000
