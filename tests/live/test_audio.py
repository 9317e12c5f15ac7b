"""Audio copied beside the covered video: the offset of beep and flash at the receiver."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import av
import pytest

from tests.beeps import apart_ms, make, onsets
from tests.live.test_fail_closed import Moody
from tests.live.test_live import Run
from tests.servers import free_port, until

LATE_MS = 40


def check(flashes: list[tuple[float, float]], beeps: list[float], min_s: int) -> None:
    apart = apart_ms(flashes, beeps)
    assert len(apart) >= min_s, (flashes, beeps)
    assert max(apart) < LATE_MS, apart


@pytest.mark.parametrize(
    ("codec", "transport", "lookahead"), [("aac", "tcp", 15), ("opus", "udp", 3), ("pcm_alaw", "tcp", 3)]
)
def test_players_hear_what_they_see(tmp_path: Path, codec: str, transport: str, lookahead: int) -> None:
    source, url = (
        make(tmp_path / f"clip.{'mov' if 'pcm' in codec else 'mkv'}", codec),
        f"rtsp://127.0.0.1:{free_port()}/door",
    )
    with Run(
        {"door": str(source)},
        [f"serve:{url}"],
        Moody(),
        run__audio=True,
        cover__hide="pixelate",
        tracker__lookahead=lookahead,
    ) as run:
        run.until(lambda: run.left("door") > 20)
        check(*onsets(url, 4.0, rtsp_transport=transport), min_s=2)
        assert run["door"].counts.line.fully_covered == 0


def test_pictures_that_are_covered_all_over_break_no_sync(tmp_path: Path) -> None:
    """Withheld frames do not shift the audio that follows."""
    source, out, moody = make(tmp_path / "clip.mkv", "aac"), tmp_path / "out.mkv", Moody()
    with Run({"door": str(source)}, [str(out)], moody, run__audio=True, cover__hide="pixelate") as run:
        run.until(lambda: run.left("door") > 40)
        moody.mood = "raise"
        run.until(lambda: run["door"].counts.line.fully_covered > 30)
        moody.mood = ""
        cover = run["door"].tuner.coverer.cover
        run.until(lambda: ("door", "faces are detected again") in run.said)

        def broken(tracked: object) -> None:
            raise RuntimeError("out of order")

        run["door"].tuner.coverer.cover = broken  # type: ignore[method-assign,assignment]
        run.until(lambda: run["door"].counts.line.withheld > 10)
        run["door"].tuner.coverer.cover = cover  # type: ignore[method-assign]
        left = run.left("door")
        run.until(lambda: run.left("door") > left + 60)
    check(*onsets(out, 60), min_s=3)


def test_segments_have_it_and_what_they_cannot_hold_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make(tmp_path / "clip.mov", "pcm_mulaw")
    sinks = [str(tmp_path / "a.mov"), str(tmp_path / "b.mp4")]
    with Run({"door": str(source)}, sinks, Moody(), run__audio=True, cover__hide="pixelate", run__segment_s=2) as run:
        run.until(lambda: len([p for p in tmp_path.glob("[ab]-*.m*") if "unfinished" not in p.name]) >= 4)
    for path in sorted(tmp_path.glob("a-*.mov"))[:2]:
        check(*onsets(path, 60), min_s=1)
    warnings = [record.getMessage() for record in caplog.records if "pictures alone" in record.getMessage()]
    assert len(warnings) == 1
    assert "pcm_mulaw" in warnings[0]
    with av.open(str(next(tmp_path.glob("b-*.mp4")))) as container:
        assert not container.streams.audio


def test_off_unless_asked_and_said_where_it_cannot_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = make(tmp_path / "clip.mkv", "aac", seconds=1), tmp_path / "out.mkv"
    with Run({"door": str(source)}, [str(out)], Moody()) as run:
        run.until(lambda: run.left("door") > 20)
    with av.open(str(out)) as container:
        assert not container.streams.audio
    source, url = make(tmp_path / "flac.mkv", "flac", seconds=1), f"rtsp://127.0.0.1:{free_port()}/door"
    with Run({"door": str(source)}, [f"serve:{url}"], Moody(), run__audio=True, cover__hide="pixelate") as run:
        run.until(lambda: run.left("door") > 5)
        with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(5.0, 5.0)) as container:
            assert not container.streams.audio
            assert next(container.decode(video=0)).width == 160
    assert "pictures alone: flac sound cannot be sent over RTSP as it is" in caplog.text


def test_a_pushed_stream_has_it(tmp_path: Path) -> None:
    """Debian's ffmpeg takes it."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    source, url, out = make(tmp_path / "clip.mkv", "aac"), f"rtsp://127.0.0.1:{free_port()}/live", tmp_path / "got.mkv"
    words = ["-nostdin", "-v", "error", "-rtsp_flags", "listen", "-i", url, "-c", "copy", "-t", "5", str(out)]
    with (
        subprocess.Popen(["ffmpeg", *words], stdout=subprocess.PIPE) as process,
        Run({"door": str(source)}, [url], Moody(), run__audio=True, cover__hide="pixelate") as run,
    ):
        try:
            run.until(lambda: run.live.pushers[0].counts.sent > 10)
            until(lambda: process.poll() is not None, 60)
        finally:
            process.kill()
    check(*onsets(out, 60), min_s=2)
