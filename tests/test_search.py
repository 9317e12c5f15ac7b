"""A behaviour is found by its standard name: the first place that `git grep` names is where it is implemented.

Searched are the installed sources, without import lines. Case counts in abbreviations.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("engines/*.py", "engines/*.cu", "pipeline/*.py", "train/*.py", "facestream/*.py")
BEHAVIOURS = [
    ("letterbox", "-i", "engines/letterbox.py"),
    ("NMS threshold", "-i", "engines/types.py"),
    ("drop when late", "-i", "pipeline/ring.py"),
    ("drops the oldest", "-i", "pipeline/ring.py"),
    ("before its first detection", "-i", "pipeline/stages/backfill.py"),
    ("CRF", "", "pipeline/video/encode.py"),
    ("reconnect", "-i", "pipeline/connection.py"),
    ("redaction", "-i", "pipeline/url.py"),
    ("def redact", "-i", "pipeline/url.py"),
    ("rename on success", "-i", "pipeline/video/output.py"),
    ("EXIF", "-i", "pipeline/video/still.py"),
    ("anchor assignment", "-i", "train/assign.py"),
    ("OHEM", "", "train/loss.py"),
    ("learning rate", "-i", "train/loop.py"),
    ("TensorRT build", "-i", "engines/build/tensorrt.py"),
    ("TensorRT plugin", "-i", "engines/cuda/nms_plugin.cu"),
    ("NMS plugin", "-i", "engines/cuda/nms_plugin.py"),
    ("Prometheus", "-i", "pipeline/live/metrics.py"),
    ("Prometheus metrics", "-i", "pipeline/live/metrics.py"),
    ("resume", "-i", "pipeline/batch/journal.py"),
    ("pixelation", "-i", "pipeline/stages/anonymise.py"),
]


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs git and a checkout")
@pytest.mark.parametrize(("words", "flag", "file"), BEHAVIOURS, ids=[words for words, _, _ in BEHAVIOURS])
def test_a_behaviour_is_found_where_it_is_implemented(words: str, flag: str, file: str) -> None:
    command = ["git", "grep", "-nF", *([flag] if flag else []), words, "--", *SOURCES]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    hits = [line.split(":", 2) for line in found]
    hits = [hit for hit in hits if not hit[2].lstrip().startswith(("import ", "from "))]
    assert hits, f"nothing is called {words!r}"
    assert hits[0][0] == file
