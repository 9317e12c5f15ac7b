"""Nothing in a folder is left out without a word; kinds of files that are only read become .mp4."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from facestream.pipeline.cli.app import main
from facestream.pipeline.video.uri import expand

from tests.conftest import picture, render


def mpeg(path: Path, codec: str, kind: str) -> Path:
    with av.open(str(path), "w", format=kind) as out:
        film = out.add_stream(codec, rate=25)
        assert isinstance(film, av.VideoStream)
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        for index in range(6):
            out.mux(film.encode(picture(index, (96, 64)).reformat(format="yuv420p")))
        out.mux(film.encode(None))
    return path


def test_what_a_folder_holds_and_is_not_taken_is_listed(tmp_path: Path) -> None:
    taken = render(tmp_path / "film.mp4", frames=3)
    film = taken.read_bytes()
    left = {
        ".hidden.mp4": "it is hidden",
        "raw.cr2": ".cr2 is not read here",
        "song.mp3": ".mp3 is not read here",
        "nosuffix": "it looks like media, but its suffix says nothing",
        "film.xyz": ".xyz is not known here",
    }
    for name in left:
        (tmp_path / name).write_bytes(film)
    for name in ("notes.txt", "._film.mp4"):
        (tmp_path / name).write_bytes(b"no media")
    said: list[str] = []
    assert [file.path for file in expand([tmp_path], left_out=said)] == [taken]
    assert sorted(said) == sorted(f"{tmp_path / name}: {why}" for name, why in left.items())


def test_the_list_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    render(source / "film.mp4", frames=3)
    (source / "raw.cr2").write_bytes(b"II*\0")
    assert main(["anonymize", str(source), "-o", str(tmp_path / "out")]) == 0
    shown = capfd.readouterr()
    assert "raw.cr2: .cr2 is not read here" in shown.err + shown.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["film.mp4"]


def test_kinds_that_are_only_read_become_mp4(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    mpeg(source / "a.wmv", "wmv2", "asf")
    mpeg(source / "b.mpg", "mpeg2video", "mpeg")
    render(source / "b.mp4", frames=6)
    assert main(["anonymize", str(source), "-o", str(tmp_path / "out")]) == 0
    shown = capfd.readouterr().err
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"a.mp4", "b.mp4", "b.mpg.mp4"}
    assert ".wmv is not written here, the output is a.mp4" in shown
    assert ".mpg is not written here, the output is b.mpg.mp4" in shown
    for name in made:
        with av.open(str(tmp_path / "out" / name)) as file:
            assert file.streams.video[0].codec_context.name == "h264"
            assert sum(1 for _ in file.decode(video=0)) == 6
