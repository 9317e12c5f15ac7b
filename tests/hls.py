"""An HLS server for tests: a playlist that advances as its segments are finished, or that stops."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LENGTH = 1.0  # seconds of a segment
SHOWN = 3  # segments in the playlist


class Hls:
    """Serves folders that FFmpeg's HLS muxer wrote, one after the other, as one live stream, from its third segment on.

    stalled: no segment is added any more. status: what is answered to everything.
    """

    def __init__(self, *playlists: Path) -> None:
        folders = [sorted(p.parent.glob("*.ts"), key=lambda s: int(s.stem.removeprefix(p.stem))) for p in playlists]
        self.segments = [(n == 0, path) for folder in folders for n, path in enumerate(folder)]
        self.stalled, self.status = False, 200
        self.ready = SHOWN
        self.asked: Counter[int] = Counter()  # how often for which segment
        self._over = threading.Event()

    def __enter__(self) -> Hls:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        for run in (self.server.serve_forever, self._grow):
            threading.Thread(target=run, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server.server_port}/live.m3u8"

    def _grow(self) -> None:
        due = time.monotonic()
        while not self._over.is_set() and self.ready < len(self.segments):
            due += LENGTH
            self._over.wait(max(0.0, due - time.monotonic()))
            self.ready += not self.stalled

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.partition("?")[0].strip("/")
        if name.endswith(".ts"):
            self.asked[int(name[:-3])] += 1
            body = self.segments[int(name[:-3])][1].read_bytes()
        else:
            body = self.playlist()
        request.send_response(self.status)
        request.send_header("Content-Type", "video/mp2t" if name.endswith(".ts") else "application/vnd.apple.mpegurl")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def playlist(self) -> bytes:
        """RFC 8216 section 4: a media playlist without an end."""
        first = self.ready - SHOWN
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{LENGTH:.0f}", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for n in range(first, self.ready):
            if self.segments[n][0] and n > 0:
                lines.append("#EXT-X-DISCONTINUITY")
            lines += [f"#EXTINF:{LENGTH:.3f},", f"{n}.ts"]
        return "\n".join([*lines, ""]).encode()


def segments(clip: Callable[..., Path], seconds: int = 20, size: tuple[int, int] = (64, 48)) -> Path:
    """A playlist with its segments, ten frames/s, times from 0 on."""
    how: dict[str, Any] = {"options": {"g": "10", "bf": "0"}, "muxer": {"hls_time": "1", "hls_list_size": "0"}}
    return clip("live.m3u8", frames=10 * seconds, rate=10, size=size, audio=(), **how)
