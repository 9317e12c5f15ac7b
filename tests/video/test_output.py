"""Text files appear under their names only when they are whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from facestream.pipeline.errors import SinkLost
from facestream.pipeline.video.output import write_text


def test_a_text_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    for text in ("first", "secönd \udcff"):
        write_text(path, text)
    assert path.read_text(encoding="utf-8", errors="surrogateescape") == "secönd \udcff"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(28, "No space left on device"), SinkLost), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_what_fails_or_is_interrupted_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: type[BaseException]
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(self: Path, *args: object, **more: object) -> int:
        raise error

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(raised):
        write_text(path, "new", "the report")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
