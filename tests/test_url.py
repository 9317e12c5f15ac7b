"""Forty addresses with secrets: parsed correctly, and shown redacted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from facestream.pipeline.errors import BadInput
from facestream.pipeline.live.builder import SinkSpec
from facestream.pipeline.rtsp.client import target_of
from facestream.pipeline.url import parse_url, redact, shown_text
from facestream.pipeline.video.uri import parse

from tests.live.test_rtsp_server import serving
from tests.servers import free_port, until

WORD = "Zq7Xw9Kd"  # part of every secret
# Each address with the host it leads to; "" for what is no address.
FORMS = {
    f"rtsp://admin:{WORD}@10.0.0.5/stream": "10.0.0.5",
    f"rtsp://admin:{WORD}@10.0.0.5:554/stream": "10.0.0.5",
    f"rtsp://{WORD}@cam/live": "cam",
    f"rtsp://:{WORD}@cam/live": "cam",
    f"rtsp://admin:a@{WORD}@cam/live": "cam",
    f"rtsp://admin:a/{WORD}@10.0.0.5/live": "10.0.0.5",
    f"rtsp://admin:a/{WORD}@cam/live": "cam",
    f"rtsp://admin:a?{WORD}@10.0.0.5/live": "10.0.0.5",
    f"rtsp://admin:a#{WORD}@10.0.0.5/live": "10.0.0.5",
    f"rtsp://admin:#{WORD}@cam:8554/live": "cam",
    f"rtsp://admin:1234/{WORD}@10.0.0.5/live": "10.0.0.5",
    f"rtsp://admin:1234?{WORD}@10.0.0.5/live": "10.0.0.5",
    f"rtsp://admin:1234#{WORD}@cam/live": "cam",
    f"rtsp://admin:my {WORD}@10.0.0.5/live": "10.0.0.5",
    f"rtsp://admin:{WORD} is long@cam/live": "cam",
    f"rtsp://admin:%40{WORD}%2F@10.0.0.5/live": "10.0.0.5",
    f"rtsp://admin:p@ss/{WORD}@10.0.0.5/live": "10.0.0.5",
    f"rtsp://admin:{WORD}@[::1]:8554/live": "::1",
    f"RTSP://admin:{WORD}@10.0.0.5/live": "10.0.0.5",
    f"rtsps://admin:{WORD}@10.0.0.5/live": "10.0.0.5",
    f"http://admin:{WORD}@10.0.0.5/video.mjpg": "10.0.0.5",
    f"https://admin:{WORD}@10.0.0.5/live.m3u8": "10.0.0.5",
    f"http://10.0.0.5/video?user=admin&password={WORD}": "10.0.0.5",
    f"http://10.0.0.5/video.cgi?loginuse=admin&loginpas={WORD}": "10.0.0.5",
    f"http://10.0.0.5/video?usr=admin&psw={WORD}": "10.0.0.5",
    f"http://10.0.0.5/video?sessionToken={WORD}": "10.0.0.5",
    f"https://store.example/a.m3u8?X-Amz-Credential={WORD}x&X-Amz-Signature={WORD}": "store.example",
    f"https://store.example/a.m3u8?Expires=99&Signature={WORD}&Key-Pair-Id={WORD}K": "store.example",
    f"http://10.0.0.5/video?channel=1;auth={WORD}": "10.0.0.5",
    f"http://10.0.0.5/video?whatever={WORD}": "10.0.0.5",
    f"http://10.0.0.5/video?{WORD}{WORD}": "10.0.0.5",
    f"http://10.0.0.5/video#access={WORD}": "10.0.0.5",
    f"rtsp://10.0.0.5:554/user=admin_password={WORD}_channel=1_stream=0.sdp?real_stream": "10.0.0.5",
    f"rtsp://10.0.0.5:554/user=admin&password={WORD}&channel=1&stream=0.sdp?": "10.0.0.5",
    f"rtsp://10.0.0.5/0/admin:{WORD}/main": "10.0.0.5",
    f"rtsp://10.0.0.5/token/{WORD}/live": "10.0.0.5",
    f"rtsps://10.0.0.5:7441/{WORD}Ab3c9?enableSrtp": "10.0.0.5",
    f"http://10.0.0.5/live;jsessionid={WORD}/a": "10.0.0.5",
    f"rtmp://admin:{WORD}@10.0.0.5/app": "10.0.0.5",
    f"srt://10.0.0.5:9000?passphrase={WORD}": "10.0.0.5",
    f"admin:{WORD}@10.0.0.5/live": "",
    f"lavfi:movie=rtsp\\://admin\\:{WORD}@10.0.0.5/live": "",
}


@pytest.mark.parametrize("text", FORMS)
def test_a_secret_is_in_no_text_form_and_the_host_is_right(text: str) -> None:
    if FORMS[text]:
        url = parse_url(text)
        assert url.host == FORMS[text]
        assert WORD not in f"{url} {url!r} {url.redacted} {(url,)}"
        assert WORD in url.with_user
    assert WORD not in redact(f"[Errno 5] Input/output error: '{text}' after 3 tries")
    assert WORD not in shown_text(text)
    for read in (parse, target_of, lambda text: SinkSpec.of(text, False)):
        message = ""
        result = None
        try:
            result = read(text)
        except BadInput as error:
            message = str(error)
        assert WORD not in f"{message} {result} {result!r}"


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        ("rtsp://admin:1234/5678@10.0.0.5/live", "admin", "1234/5678"),
        ("rtsp://admin:#x?y/z@cam:554/live", "admin", "#x?y/z"),
        ("rtsp://us%40er:sec%2Fret@cam/live", "us@er", "sec/ret"),
        ("rtsp://admin:50%off@cam/live", "admin", "50%off"),
        ("rtsp://10.0.0.5:554/a@b", "", ""),
        ("http://cam:8080/path?mail=a@b.example", "", ""),
    ],
)
def test_users_and_passwords_are_taken_as_they_were_typed(text: str, user: str, password: str) -> None:
    url = parse_url(text)
    assert (url.user, url.password) == (user, password)
    again = parse_url(url.with_user)  # what is opened says the same
    assert (again.user, again.password, again.host, again.rest) == (user, password, url.host, url.rest)


@pytest.mark.parametrize(
    "text", ["rtsp://[user:password@]host[:port]/path", "http://TOKEN@host:port", "give user:password@", "a token"]
)
def test_our_own_hints_stay_as_they_are(text: str) -> None:
    parse_url("rtsp://admin:ab@cam/")  # short passwords are found in words
    assert redact(text) == text


def test_secrets_from_the_environment_and_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "a/b@c:d#e"
    (tmp_path / "word").write_text(odd + "\n")
    monkeypatch.setenv("DOOR", odd)
    monkeypatch.setenv("WHOLE", f"rtsp://admin:{WORD}@cam/live")
    for text in (
        "rtsp://admin:${DOOR}@cam/live",
        f"rtsp://admin:file:{tmp_path}/word@cam/live",
        f"rtsp://admin:${{file:{tmp_path}/word}}@cam/live",
    ):
        url = parse_url(text)
        assert (url.user, url.password, url.host) == ("admin", odd, "cam")
        assert url.redacted == "rtsp://***@cam/live"
        assert odd not in redact(f"it said {odd}")
    assert parse("${WHOLE}").redacted == "rtsp://***@cam/live"
    assert parse_url("http://cam/v?key=${DOOR}").rest == "/v?key=a/b%40c%3Ad%23e"
    with pytest.raises(BadInput, match="NOT_THERE is not set"):
        parse_url("rtsp://admin:${NOT_THERE}@cam/live")
    with pytest.raises(BadInput, match="cannot be read"):
        parse_url(f"rtsp://admin:file:{tmp_path}/gone@cam/live")


@pytest.mark.parametrize("sources", [list(FORMS)[start : start + 14] for start in range(0, len(FORMS), 14)])
def test_no_exit_of_a_run_shows_a_secret(tmp_path: Path, sources: list[str]) -> None:
    """stdout, stderr, records, recordings, events, the page, metrics, /status, /healthz and the process list: of
    cameras that are not there, of one that is, of outputs and of a webhook."""
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    port = free_port()
    nobody = free_port()
    good = [s for s in sources if s.partition(":")[0].lower() in ("rtsp", "rtsps", "http", "https")]
    out = tmp_path / "out"
    out.mkdir()
    is_hook = sources[0] == next(iter(FORMS))
    events = f"http://{WORD}hook@127.0.0.1:{nobody}/hook?key={WORD}" if is_hook else str(out / "events.json")
    (tmp_path / "settings.toml").write_text(f'[run]\nevents = "{events}"\nopen_timeout_s = 1\n')
    command = [sys.executable, "-m", "facestream", "run", *good, "--to", f"http://{WORD}@0.0.0.0:{port}"]
    command += ["--to", str(out / "{name}.jsonl"), "--to", str(out / "{name}.mkv"), "--size", "320x192"]
    command += ["--to", f"serve:rtsp://viewer:{WORD}@127.0.0.1:{free_port()}/{{name}}"]
    command += ["--to", f"rtsp://pusher:{WORD}@127.0.0.1:{nobody}/{{name}}", "--log-json" if is_hook else "--overwrite"]
    command += ["--config", str(tmp_path / "settings.toml"), "--lookahead", "3"]
    with serving({"viewer": WORD}) as (camera, _, _):
        command.append(f"live=rtsp://viewer:{WORD}@127.0.0.1:{camera.port}/door?token={WORD}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:

            def fetch(path: str) -> str:
                words = ["curl", "-s", "-H", f"Authorization: Bearer {WORD}", f"http://127.0.0.1:{port}/{path}"]
                return subprocess.run(words, capture_output=True, text=True, check=False).stdout

            until(lambda: re.search(r'_emitted_total\{camera="live"\} [1-9]', fetch("metrics")), 90)
            seen = {path: fetch(path) for path in ("", "status", "metrics", "healthz")}
            if sys.platform == "linux":
                seen["ps"] = Path(f"/proc/{run.pid}/cmdline").read_text()
                assert "facestream" in seen["ps"]
            time.sleep(2)  # the cameras are tried
            run.terminate()
            seen["stdout"], seen["stderr"] = run.communicate(timeout=30)
    assert len(json.loads(seen["status"])["cameras"]) == len(good) + 1
    assert "facestream_frames_decoded_total" in seen["metrics"]
    assert "<html" in seen[""]
    assert '"source": "rtsp://***@127.0.0.1' in (out / "live.jsonl").read_text()
    assert (out / "live.mkv").stat().st_size > 0
    assert "does not take events" in seen["stderr"] if is_hook else "camera_down" in Path(events).read_text()
    for path in out.iterdir():
        seen[path.name] = path.name + path.read_bytes().decode("latin-1")
    shown = [name for name, text in seen.items() if WORD in text]
    assert not shown, [seen[name][:3000] for name in shown]
    assert "Traceback" not in seen["stderr"]


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "{}"],
        ["bench", "{}"],
        ["detect", "{}", "-o", "faces.jsonl"],
        ["anonymize", "clip.mp4", "-o", "{}"],
        ["anonymize", "clip.mp4", "-o", "covered.mp4", "--config", "{}"],
        ["apply", "clip.mp4", "{}", "-o", "covered.mp4"],
        ["review", "clip.mp4", "--records", "{}"],
        ["evaluate", "leaks", "clip.mp4", "{}"],
    ],
)
def test_an_address_where_a_files_name_belongs(words: list[str], tmp_path: Path, clip: Callable[..., Path]) -> None:
    """A path holds it with one slash after the scheme, which no pattern for addresses knows."""
    shutil.copyfile(clip("clip.mp4"), tmp_path / "clip.mp4")
    text = f"rtsp://admin:{WORD}@127.0.0.1:1/x"
    command = [sys.executable, "-m", "facestream", *(word.format(text) for word in words)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, env=environment
    )
    assert done.returncode != 0
    assert "127.0.0.1:1/x" in done.stderr
    assert WORD not in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="of /proc")
def test_a_command_on_files_hides_what_was_typed_too(tmp_path: Path) -> None:
    """Whoever gives an address where a file's name belongs finds it in no process list while the command works."""
    script = (
        "import sys, time\nfrom facestream.pipeline.cli import app\n"
        "app.app.main = lambda *words, **more: print(open('/proc/self/cmdline').read())\napp.main()\n"
    )
    words = ["verify", f"http://admin:{WORD}@127.0.0.1/manifest.json"]
    command = [sys.executable, "-c", script, *words]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "127.0.0.1/manifest.json" in shown
    assert WORD not in shown


@pytest.mark.parametrize("source", [s for s in FORMS if not s.startswith(("rtsp", "http", "RTSP"))])
def test_what_cannot_be_read_is_said_without_the_secret(source: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "facestream",
        "run",
        source,
        "--to",
        str(tmp_path / "o.jsonl"),
        "--size",
        "320x192",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ))
    assert done.returncode == 2
    assert WORD not in done.stdout + done.stderr
