"""The checks that benchmarks/vivid.py runs on a V4L2 webcam: open, requested format, busy, unplugged, plugged in."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import itertools

from facestream.pipeline.connection import State
from facestream.pipeline.video.options import SourceOptions

from tests.servers import Watched, until

DRIVER = Path("/sys/bus/platform/drivers/vivid")
DEVICE = "vivid.0"
SLOW_S = 300.0  # the CPU is emulated


def check() -> None:
    print("devices:", *sorted(path.name for path in Path("/dev").glob("video*")), flush=True)
    options = SourceOptions(threads=1, camera_size=(640, 360), camera_fps=15, camera_format="yuyv422")
    patient = {"first_frame_s": 60.0, "dead_s": 60.0, "stall_s": 5.0, "hang_s": 120.0}
    with Watched("0", source=options, **patient) as seen:
        seen.wait_frames(20, SLOW_S)
        status = seen.wait(State.LIVE, SLOW_S)
        print(f"opened: {status.width}x{status.height}, {status.rate:g} frames/s, {status.frames} frames", flush=True)
        assert (status.width, status.height) == (640, 360)
        times = [pts / 90000 for _, pts, _ in seen.frames]
        assert all(a < b for a, b in itertools.pairwise(times))
        with Watched("/dev/video0", "second", source=options, **patient) as second:
            reported = second.wait(State.RECONNECTING, SLOW_S)
            print("opened twice:", reported.state, "-", reported.message, flush=True)
            assert "another program is using the camera" in reported.message
        frames = len(seen.frames)
        until(lambda: len(seen.frames) > frames + 5, SLOW_S)  # the first one did not notice
        (DRIVER / "unbind").write_text(DEVICE)
        status = seen.wait(State.RECONNECTING, SLOW_S)
        print("unplugged:", status.state, "-", status.message, flush=True)
        time.sleep(1)
        (DRIVER / "bind").write_text(DEVICE)
        seen.wait_frames(5, SLOW_S)
        status = seen.wait(State.LIVE, SLOW_S)
        print(f"plugged in again: {status.state}, {status.losses} connection lost, {status.frames} frames", flush=True)
    with Watched("0", source=SourceOptions(threads=1, camera_format="mjpeg"), **patient) as odd:
        reported = odd.wait(State.RECONNECTING, SLOW_S)
        print("a format it does not have:", reported.state, "-", reported.message, flush=True)
        assert "does not have this" in reported.message


if __name__ == "__main__":
    check()
