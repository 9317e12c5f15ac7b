"""No telemetry: ONNX Runtime's stays off, whoever imports it first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("first", ["engines.onnx_engine", "pipeline.batch.manifest", "build_engine"])
def test_no_telemetry_is_begun(first: str, tmp_path: Path) -> None:
    code = f"import facestream.{first}; from facestream.engines.loader import WEIGHTS; "
    code += "from facestream.engines.onnx_engine import open_session; "
    code += "open_session(str(WEIGHTS / 'plainXS16.onnx'), 1)"
    kept = {key: text for key, text in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    where = {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    done = subprocess.run([sys.executable, "-c", code], env=kept | where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "telemetry" not in done.stderr
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in str(path)] == []
