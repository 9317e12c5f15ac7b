"""How soon the review page answers a key: two hours at 1280x720, 25 frames/s, 500 tracks, made up; in a real Chromium.

    python benchmarks/review_response.py [--seconds 7200] [--rate 25] [--tracks 500] [--pause 0.5]

Two times for each key, from the event until the browser has painted what it did: `answer`, the page's new
state (frame number, selection, lists, timeline), and `picture`, the exact frame as well. Keys come --pause seconds
apart, so that what the page asks for in advance has come, and then all at once. `CPU` is what the server and the page
spend on one key, on all their threads, what is made in advance included: it depends less on who else works here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
from facestream.pipeline.config import Config
from facestream.pipeline.review.command import prepare
from facestream.pipeline.review.server import ReviewServer

SIZE = (1280, 720)
LOOP = 10  # seconds that the video repeats: one group of pictures
KEYS = {
    "step": ("ArrowRight", 40),
    "a second on": ("Shift+ArrowRight", 20),
    "next moment": ("n", 20),
    "accept": ("a", 20),
    "next track": ("ArrowDown", 20),
    "zoom": ("+", 3),
}


def long_video(folder: Path, seconds: int, rate: int, tracks: int, size: tuple[int, int] = SIZE) -> tuple[Path, Path]:
    """A video of this length, and records of so many tracks all over it."""
    video = folder / "long.mp4"
    records = folder / "long.jsonl"
    rng = np.random.default_rng(1)
    times = _video(video, seconds, rate, size, rng)
    faces: dict[int, list[dict[str, Any]]] = defaultdict(list)
    wide = size[0] / 16
    high = size[1] / 7
    for track in range(1, tracks + 1):
        length = int(rng.integers(2 * rate, 60 * rate))
        start = int(rng.integers(0, max(1, len(times) - length)))
        left = rng.uniform(5, size[0] - wide - 5)
        top = rng.uniform(5, size[1] - high - 5)
        box = [round(v, 1) for v in (left, top, left + wide, top + high)]
        for n in range(start, min(len(times), start + length)):
            score = round(0.8 + 0.1 * np.sin(n + track), 3)
            faces[n].append({"id": track, "xyxy": box, "score": score, "state": "observed"})
    with records.open("w") as out:
        for n, (pts, time) in enumerate(times):
            row = {"source": video.name, "frame": n, "pts": pts, "time_s": time, "width": size[0], "height": size[1]}
            out.write(json.dumps(row | {"faces": faces.get(n, [])}) + "\n")
    return video, records


def _video(path: Path, seconds: int, rate: int, size: tuple[int, int], rng: Any) -> list[tuple[int, float]]:
    """Writes it; returns the frames' times, in its units and in seconds. One group of pictures, again and again."""
    wide, high = size
    part = path.with_name("part.mp4")
    ground = cv2.resize(rng.integers(0, 256, (high // 16 + 20, wide // 16 + 20), np.uint8), None, fx=16, fy=16)
    with av.open(str(part), "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        stream.gop_size = LOOP * rate
        stream.options = {"preset": "veryfast", "crf": "23"}
        yuv = np.full((high * 3 // 2, wide), 128, np.uint8)
        for n in range(LOOP * rate):
            yuv[:high] = ground[n % 250 : n % 250 + high, n % 250 : n % 250 + wide]
            picture = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
            picture.pts, picture.time_base = n, Fraction(1, rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    with av.open(str(part)) as once, av.open(str(path), "w") as out:
        source = once.streams.video[0]
        target = out.add_stream_from_template(source)
        unit = source.time_base
        assert unit is not None
        packets = [packet for packet in once.demux(source) if packet.size]
        span = round(LOOP / unit)
        for turn in range(seconds // LOOP):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = (packet.pts or 0) + turn * span, (packet.dts or 0) + turn * span
                copy.duration, copy.time_base, copy.is_keyframe = packet.duration, unit, packet.is_keyframe
                copy.stream = target
                out.mux(copy)
    part.unlink()
    with av.open(str(path)) as container:
        unit = container.streams.video[0].time_base
        assert unit is not None
        times = sorted(p.pts for p in container.demux(video=0) if p.pts is not None)
        return [(pts, float(pts * unit)) for pts in times]


TIMED = """async ([key, shift, limit]) => {
  const began = performance.now(), painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  const state = () => [app.frame, app.at_moment, app.timeline.span, [...app.selected].join()].join();
  const before = state();
  document.dispatchEvent(new KeyboardEvent("keydown", {key, shiftKey: shift, bubbles: true}));
  while (state() === before && performance.now() - began < limit) await painted();
  await painted();
  const answer = performance.now() - began;
  while (app.view.shown.frame !== app.frame && performance.now() - began < limit) await painted();
  await painted();
  return [answer, performance.now() - began];
}"""
EDITED = """async ([id, kind]) => {
  app.select(id);
  await new Promise(done => setTimeout(done, 300));
  const began = performance.now(), painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  document.dispatchEvent(new KeyboardEvent("keydown", {key: kind, bubbles: true}));
  while (app.tracks.has(id) && performance.now() - began < 5000) await painted();
  await painted();
  const answer = performance.now() - began;
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "z", bubbles: true}));
  while (!app.tracks.has(id)) await painted();
  await painted();
  return [answer, performance.now() - began - answer];
}"""


class Work:
    """CPU seconds of this process and all its children, the browser's among them."""

    def __init__(self) -> None:
        self.me = psutil.Process()

    def __call__(self) -> float:
        total = 0.0
        for process in [self.me, *self.me.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description="How soon the review page answers a key.")
    parser.add_argument("--seconds", type=int, default=7200)
    parser.add_argument("--rate", type=int, default=25)
    parser.add_argument("--tracks", type=int, default=500)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two keys")
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
        page.wait_for_timeout(6000)
        work = Work()
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for pause in (options.pause, 0.0):
            print(f"keys {pause} s apart")
            for name, (key, count) in KEYS.items():
                pressed = [key.removeprefix("Shift+"), key.startswith("Shift+"), 5000]
                times = []
                before = work()
                for _ in range(count):
                    times.append(page.evaluate(TIMED, pressed))
                    page.wait_for_timeout(1000 * pause)
                report(name, times, (work() - before) / count)
                page.wait_for_timeout(3000)
        times = []
        before = work()
        for track in sorted(session.document.spans)[100:110]:
            times.append(page.evaluate(EDITED, [track, "x"]))
        spent = (work() - before) / 20
        report("delete", [[a, a] for a, _ in times], spent)
        report("undo", [[b, b] for _, b in times], spent)
        server.stop()


def report(name: str, times: list[list[float]], cpu: float) -> None:
    answers, pictures = zip(*times, strict=True)
    print(
        f"{name:12s} answer median {np.median(answers):5.0f} ms, slowest {max(answers):5.0f} ms; "
        f"picture median {np.median(pictures):5.0f} ms, slowest {max(pictures):5.0f} ms; of {len(times)}; "
        f"CPU {1000 * cpu:.0f} ms a key",
        flush=True,
    )


if __name__ == "__main__":
    main()
