"""How soon the review page answers a key: two hours, 500 tracks, made up; in a real Chromium.

    python benchmarks/review_response.py [--seconds 7200] [--rate 10] [--tracks 500]

Prints the median and the slowest of the times from the key to the picture that shows what it did.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from facestream.pipeline.config import Config
from facestream.pipeline.review.command import prepare
from facestream.pipeline.review.server import ReviewServer

SIZE = (160, 90)
KEYS = {
    "step": ("ArrowRight", 40),
    "a second on": ("Shift+ArrowRight", 20),
    "next moment": ("n", 20),
    "next track": ("ArrowDown", 20),
    "leave the range, zoom": ("+", 3),
}


def long_video(folder: Path, seconds: int, rate: int, tracks: int) -> tuple[Path, Path]:
    """A tiny video of this length, and MOT records of so many tracks all over it."""
    video, records = folder / "long.mp4", folder / "long.mot"
    rng = np.random.default_rng(1)
    frames = seconds * rate
    with av.open(str(video), "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.gop_size = 10 * rate
        stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        picture = av.VideoFrame(*SIZE, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        luma: Any = picture.planes[0]
        view = np.frombuffer(luma, np.uint8).reshape(SIZE[1], -1)
        for n in range(frames):
            picture.make_writable()
            view = np.frombuffer(luma, np.uint8).reshape(SIZE[1], -1)
            view[:10] = n % 200 + 30
            picture.pts, picture.time_base = n, Fraction(1, rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    rows = []
    for track in range(1, tracks + 1):
        length = int(rng.integers(2 * rate, 60 * rate))
        start = int(rng.integers(0, max(1, frames - length)))
        x, y = rng.uniform(5, SIZE[0] - 40), rng.uniform(5, SIZE[1] - 40)
        rows += [f"{start + n + 1},{track},{x:.1f},{y:.1f},24,30,0.8,-1,-1,-1\n" for n in range(length)]
    records.write_text("".join(rows))
    return video, records


TIMED = """async ([key, shift]) => {
  const began = performance.now(), view = app.view, mark = [app.frame, app.at_moment, app.timeline.span];
  document.dispatchEvent(new KeyboardEvent("keydown", {key, shiftKey: shift, bubbles: true}));
  const same = () => app.frame === mark[0] && app.at_moment === mark[1] && app.timeline.span === mark[2];
  while ((same() || view.shown.frame !== app.frame) && performance.now() - began < 5000)
    await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""
EDITED = """async kind => {
  const track = app.order[Math.floor(app.order.length / 2)].id, began = performance.now();
  app.select(track);
  document.dispatchEvent(new KeyboardEvent("keydown", {key: kind, bubbles: true}));
  while (app.tracks.has(track) && performance.now() - began < 5000) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  const done = performance.now() - began;
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "z", bubbles: true}));
  while (!app.tracks.has(track)) await new Promise(requestAnimationFrame);
  return done;
}"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description="How soon the review page answers a key.")
    parser.add_argument("--seconds", type=int, default=7200)
    parser.add_argument("--rate", type=int, default=10)
    parser.add_argument("--tracks", type=int, default=500)
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as api:
        video, records = long_video(Path(folder), options.seconds, options.rate, options.tracks)
        session, _ = prepare(video, records, Config(), False, False)
        server = ReviewServer(session)
        server.start()
        page = api.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        page.set_viewport_size({"width": 1500, "height": 950})
        page.goto(server.address)
        page.wait_for_timeout(3000)
        for name, (key, count) in KEYS.items():
            pressed = [key.removeprefix("Shift+"), key.startswith("Shift+")]
            report(name, [page.evaluate(TIMED, pressed) for _ in range(count)])
        report("delete", [page.evaluate(EDITED, "x") for _ in range(10)])
        server.stop()


def report(name: str, times: list[float]) -> None:
    print(f"{name:22s} median {np.median(times):5.0f} ms, slowest {max(times):5.0f} ms of {len(times)}", flush=True)


if __name__ == "__main__":
    main()
