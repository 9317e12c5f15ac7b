"""The log: levels, times, JSON, and no secret in any line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from facestream.pipeline import log
from facestream.pipeline.cli.app import main
from facestream.pipeline.video.uri import parse

SECRET = "opensesame"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers, level = log.ROOT.handlers[:], log.ROOT.level
    yield
    log.ROOT.handlers[:] = handlers
    log.ROOT.setLevel(level)


def test_a_line_has_time_level_and_camera(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    logger = logging.getLogger("facestream.pipeline.live")
    logger.debug("unseen")
    logger.warning("connection lost after %d s", 3, extra={"camera": "door"})
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} warning: door: connection lost after 3 s", line)


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("debug", as_json=True)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("facestream.x").exception("it\nbroke", extra={"camera": "door"})
    log.fail("no such file")
    rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(row["level"], row["message"]) for row in rows] == [("error", "it\nbroke"), ("error", "no such file")]
    assert (rows[0]["camera"], rows[0]["logger"]) == ("door", "facestream.x")
    assert "ValueError" in rows[0]["exception"]
    assert rows[0]["time"].endswith("+00:00")


@pytest.mark.parametrize("as_json", [False, True])
def test_no_line_holds_a_password(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    parse(f"rtsp://user:{SECRET}@camera/door")  # known from here on
    log.configure("info", as_json)
    logger = logging.getLogger("facestream.y")
    logger.info("opening %s", f"rtsp://user:{SECRET}@camera/door", extra={"camera": f"http://a:{SECRET}@b"})
    try:
        raise OSError(f"rtsp://user:{SECRET}@camera: refused")
    except OSError:
        logger.exception("it broke")
    log.fail(f"rtsp://user:{SECRET}@camera/door: refused")
    said = capsys.readouterr().err
    assert "camera/door" in said
    assert SECRET not in said


def test_the_command_line_sets_level_and_form(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["detect", str(tmp_path / "none.mp4"), "-o", str(tmp_path / "o.jsonl")]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("facestream: error: ")
    assert main([*words, "--log-json", "--log-level", "error"]) == 2
    assert "no such file" in json.loads(capsys.readouterr().err)["message"]
    assert log.ROOT.level == logging.ERROR
    assert main([*words, "--log-level", "loud"]) == 2
    assert "--log-level" in capsys.readouterr().err
