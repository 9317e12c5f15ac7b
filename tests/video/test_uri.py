"""How sources and sinks are named, what the names mean, and that passwords are redacted."""

from __future__ import annotations

from pathlib import Path

import pytest
from facestream.pipeline.errors import BadInput
from facestream.pipeline.video.uri import Kind, expand, parse, redact

from tests.conftest import unprivileged


@pytest.mark.parametrize(
    ("text", "kind", "opened"),
    [
        ("0", Kind.WEBCAM, "/dev/video0"),
        ("12", Kind.WEBCAM, "/dev/video12"),
        ("/dev/video3", Kind.WEBCAM, "/dev/video3"),
        ("rtsp://cam/live", Kind.RTSP, "rtsp://cam/live"),
        ("RTSPS://cam/live", Kind.RTSP, "RTSPS://cam/live"),
        ("http://cam/mjpeg", Kind.HTTP, "http://cam/mjpeg"),
        ("https://cam/a.m3u8", Kind.HTTP, "https://cam/a.m3u8"),
        ("lavfi:testsrc2=rate=5", Kind.LAVFI, "testsrc2=rate=5"),
        ("clip.mp4", Kind.FILE, "clip.mp4"),
        ("a:b.mkv", Kind.FILE, "a:b.mkv"),
        ("party.GIF", Kind.FILE, "party.GIF"),
        ("face.JPEG", Kind.IMAGE, "face.JPEG"),
        ("face.webp", Kind.IMAGE, "face.webp"),
        ("file:///tmp/my%20clip.mp4", Kind.FILE, "/tmp/my clip.mp4"),
    ],
)
def test_parse_tells_the_kind(text: str, kind: Kind, opened: str) -> None:
    uri = parse(text)
    assert (uri.kind, uri.text) == (kind, opened)


def test_parse_tells_a_folder_from_a_file(tmp_path: Path) -> None:
    assert parse(tmp_path).kind is Kind.FOLDER
    assert parse(tmp_path / "x.mp4").kind is Kind.FILE


@pytest.mark.parametrize("text", ["ftp://host/a.mp4", "srt://host:9", "rtmp://user:secret@host/app"])
def test_parse_rejects_other_schemes_without_showing_the_password(text: str) -> None:
    with pytest.raises(BadInput, match=r"cannot be read.*use a file") as caught:
        parse(text)
    assert "secret" not in str(caught.value)


def test_parse_rejects_an_empty_name() -> None:
    with pytest.raises(BadInput, match="no name"):
        parse("  ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@cam:554/live", "rtsp://***@cam:554/live"),
        ("rtsp://us%40er:sec%2Fret@cam/live", "rtsp://***@cam/live"),
        ("rtsp://user:sec@ret@cam/live", "rtsp://***@cam/live"),
        ("rtsp://user:sec/ret@cam/live", "rtsp://***@cam/live"),
        ("rtsp://user:sec?r#et@cam/live", "rtsp://***@cam/live"),
        ("rtsp://secret@cam/live", "rtsp://***@cam/live"),
        (
            "[Errno 5] Input/output error: 'rtsp://u:secret@cam/live'",
            "[Errno 5] Input/output error: 'rtsp://***@cam/live'",
        ),
        ("from rtsp://a:secret@h1/x to http://b:secret@h2/y", "from rtsp://***@h1/x to http://***@h2/y"),
        ("rtsp://a:secret@h1/x,http://b:secret@h2/y", "rtsp://***@h1/x,http://***@h2/y"),
        ("http://cam/video?user=secret&pwd=secret&res=hd", "http://cam/video?user=***&pwd=***&res=hd"),
    ],
)
def test_redact_hides_users_and_passwords(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text", ["http://cam:8080/path/a@b", "rtsp://cam/live", "mail me@example.org about clip.mp4", "http://[::1]:8554/x"]
)
def test_redact_leaves_the_rest_alone(text: str) -> None:
    assert redact(text) == text


def test_a_shown_uri_is_redacted() -> None:
    uri = parse("rtsp://user:secret@cam/live")
    assert uri.text == "rtsp://user:secret@cam/live"
    assert uri.redacted == "rtsp://***@cam/live"


@pytest.fixture
def album(tmp_path: Path) -> Path:
    names = [
        "b.mp4",
        "a.JPG",
        "notes.txt",
        "deep/er/c.mkv",
        "deep/er/thumbs.db",
        ".hidden.mp4",
        ".trash/d.mp4",
        "[x].mov",
    ]
    for name in names:
        file = tmp_path / "album" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return tmp_path / "album"


def relatives(inputs: list[str | Path], skip: Path | None = None) -> list[str]:
    return [str(file.relative) for file in expand(inputs, skip)]


def test_expand_walks_a_folder_and_keeps_its_structure(album: Path) -> None:
    assert relatives([album]) == ["[x].mov", "a.JPG", "b.mp4", "deep/er/c.mkv"]
    assert all(file.path == album / file.relative for file in expand([album]))


def test_expand_takes_files_globs_and_names_with_brackets(album: Path) -> None:
    assert relatives([album / "notes.txt"]) == ["notes.txt"]  # named outright: opening it will tell
    assert relatives([album / "[x].mov"]) == ["[x].mov"]
    assert relatives([str(album / "*.mp4")]) == ["b.mp4"]
    assert relatives([str(album / "**" / "*.mkv")]) == ["deep/er/c.mkv"]


def test_expand_names_nothing_twice_and_skips_the_output_folder(album: Path) -> None:
    assert relatives([album, album / "b.mp4"]).count("b.mp4") == 1
    assert relatives([album], skip=album / "deep") == ["[x].mov", "a.JPG", "b.mp4"]


def test_expand_hides_no_file_that_is_a_link(album: Path) -> None:
    (album / "link.mp4").symlink_to("b.mp4")
    (album / "gone.mp4").symlink_to("nowhere")
    (album / "round").symlink_to(".")  # folders that are links are not entered
    (album.parent / "other").symlink_to(album)
    names = ["[x].mov", "a.JPG", "b.mp4", "deep/er/c.mkv", "gone.mp4", "link.mp4"]
    assert relatives([album]) == names
    assert relatives([album, album.parent / "other"]) == names


def test_expand_names_a_folder_that_is_closed(album: Path) -> None:
    (album / "deep" / "er").chmod(0)
    with unprivileged(album):
        assert relatives([album]) == ["[x].mov", "a.JPG", "b.mp4", "deep/er"]
        with pytest.raises(BadInput, match="no permission to look into the folder"):
            expand([album / "deep" / "er"])
    (album / "deep" / "er").chmod(0o755)


def test_expand_says_what_is_missing(album: Path) -> None:
    (album / "empty").mkdir()
    for name, message in [("nope.mp4", "no such file"), ("empty", "no video or image"), ("*.wmv", "no video or image")]:
        with pytest.raises(BadInput, match=message) as caught:
            expand([str(album / name)])
        assert name in str(caught.value)


def test_expand_refuses_two_files_for_one_place(album: Path) -> None:
    other = album.parent / "b.mp4"
    other.write_bytes(b"y")
    with pytest.raises(BadInput, match=r"both this and .* b\.mp4"):
        expand([album / "b.mp4", other])
