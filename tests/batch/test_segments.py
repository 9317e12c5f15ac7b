"""A video processed in segments gives the same result as one processed whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from facestream.engines.loader import load_detector
from facestream.pipeline.batch import segments
from facestream.pipeline.batch.segments import (
    NotSegmentable,
    Segment,
    detect_segment,
    encode_segment,
    find_segments,
    frames,
    run_segments,
)
from facestream.pipeline.config import Config, read
from facestream.pipeline.jobs.two_pass import run_twice
from facestream.pipeline.records import RecordSink
from facestream.pipeline.run import Job, Recorder, run

from tests.conftest import render
from tests.pack import DEMO

FAST = {"detector.model": "plainXS16", "detector.size": (320, 192), "encode.preset": "ultrafast"}


class Here:
    """Does what is submitted at once, and counts it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def submit(self, do: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        self.done.append(do.__name__)
        return partial(do, *arguments)


def settings(**more: Any) -> Config:
    return read(None, FAST | {key.replace("__", "."): value for key, value in more.items()})


def film(
    path: Path, seconds: float, gop: int = 12, size: tuple[int, int] = (320, 180), rate: int = 30, **options: str
) -> Path:
    """The middle of the demo clip, small, over and over, with sound and keyframes; people vanish amid their walk."""
    (width, height), step = size, 30 // rate
    with av.open(str(DEMO)) as clip:
        double = [f.to_ndarray(width=2 * width, height=2 * height, format="rgb24") for f in clip.decode(video=0)]
    middle = slice(height // 2, height // 2 + height), slice(width // 2, width // 2 + width)
    crops = [np.ascontiguousarray(rgb[middle]) for rgb in double[::step]]
    pictures = [av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p") for rgb in crops]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"preset": "veryfast", "g": str(gop), **options})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        sound = out.add_stream("aac", rate=48000, layout="mono")
        assert isinstance(sound, av.AudioStream)
        for n in range(round(seconds * rate)):
            picture = pictures[n % len(pictures)]
            picture.pts, picture.time_base, picture.pict_type = n, Fraction(1, rate), 0
            out.mux(stream.encode(picture))
            tone = av.AudioFrame.from_ndarray(
                np.full((1, 48000 // rate), 0.1, np.float32), format="fltp", layout="mono"
            )
            tone.sample_rate, tone.pts = 48000, 48000 // rate * n
            out.mux(sound.encode(tone))
        out.mux(stream.encode(None))
        out.mux(sound.encode(None))
    return path


def pictures(path: Path) -> list[tuple[int, bytes]]:
    """Each picture's time and pixels."""
    with av.open(str(path)) as container:
        return [(f.pts or 0, f.to_ndarray().tobytes()) for f in container.decode(video=0)]


def sides(path: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(p.pts, bytes(p)) for p in container.demux(audio=0) if p.size]


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def both(source: Path, folder: Path, config: Config, length_s: float, two_pass: bool = False) -> tuple[Path, Path]:
    """Output and records of a file done whole, and of the same in segments."""
    outputs = folder / f"whole{source.suffix}", folder / f"segments{source.suffix}"
    detector = load_detector(config.detector.model, config.detector.options())

    def in_segments(job: Job, records: Recorder) -> None:
        cut = find_segments(job, length_s)
        assert len(cut) > 2
        executor = Here()
        run_segments(job, config, cut, executor, two_pass, records)
        assert executor.done == ["detect_segment"] * len(cut) + ["encode_segment"] * len(cut)

    def whole(job: Job, records: Recorder) -> None:
        (run_twice if two_pass else run)(job, config, detector, records, False)

    for do, output in zip((whole, in_segments), outputs, strict=True):
        notes = RecordSink(output.with_suffix(".jsonl"), False)
        do(Job(str(source), output), notes)
        notes.commit()
        notes.close()
    return outputs


@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}], ids=["closed", "open"])
def test_covers_ids_and_sound_are_those_of_the_whole(options: dict[str, str], tmp_path: Path) -> None:
    """An encoder without loss shows the covered pictures as they are."""
    source = film(tmp_path / "in.mp4", 5, **options)
    whole, cut = both(source, tmp_path, settings(encode__crf=0), 1.5)
    records = rows(whole.with_suffix(".jsonl"))
    assert sum(len(row["faces"]) for row in records) > 100
    assert rows(cut.with_suffix(".jsonl")) == records
    assert pictures(cut) == pictures(whole)
    assert pictures(cut) != pictures(source)
    assert sides(cut) == sides(whole) == sides(source)


def test_two_passes_in_segments_too(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", 4)
    whole, cut = both(source, tmp_path, settings(encode__crf=0), 1, two_pass=True)
    assert rows(cut.with_suffix(".jsonl")) == rows(whole.with_suffix(".jsonl"))
    assert pictures(cut) == pictures(whole)


@pytest.mark.slow
def test_three_minutes_in_segments_are_those_of_the_whole(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 180, gop=25, size=(160, 90), rate=5)
    whole, cut = both(source, tmp_path, settings(encode__crf=0, detector__size=(160, 96)), 30)
    records = rows(whole.with_suffix(".jsonl"))
    assert len(records) == 900
    assert len({face["id"] for row in records for face in row["faces"]}) > 20
    assert rows(cut.with_suffix(".jsonl")) == records
    assert pictures(cut) == pictures(whole)
    assert sides(cut) == sides(source)


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
def test_times_and_lengths_stay_with_a_lossy_encoder_that_reorders(name: str, tmp_path: Path) -> None:
    source = tmp_path / name
    times = [40 * n + (13 if n % 3 else 0) + (700 if n > 60 else 0) for n in range(120)]  # milliseconds, uneven
    render(source, rate=25, time_base=Fraction(1, 1000), times=times, options={"g": "10", "preset": "veryfast"})
    config = settings(encode__preset="veryfast", encode__crf=30, detector__size=(160, 96))
    job = Job(str(source), tmp_path / f"out-{name}")
    cut = find_segments(job, 1)
    assert len(cut) > 3
    run_segments(job, config, cut, Here())
    assert job.output is not None
    assert [pts for pts, _ in pictures(job.output)] == [pts for pts, _ in pictures(source)]
    with av.open(str(job.output)) as container:
        dts = [p.dts for p in container.demux(video=0) if p.size and p.dts is not None]
    assert dts == sorted(set(dts))


def test_segments_begin_at_keyframes_and_hold_every_picture_once(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 4, **{"x264-params": "open-gop=1:bframes=3:b-adapt=0"})
    cut = find_segments(Job(str(source), tmp_path / "out.mp4"), 1)
    with av.open(str(source)) as container:
        keys = {p.pts for p in container.demux(video=0) if p.is_keyframe}
    assert {segment.start for segment in cut} <= keys
    found = [(f.pts, f.picture.to_ndarray().tobytes()) for segment in cut for f in frames(str(source), segment, 1)]
    assert found == pictures(source)
    assert find_segments(Job(str(source), tmp_path / "out.mp4"), 3.5) == []


def test_what_cannot_be_cut_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    assert find_segments(Job(str(film(tmp_path / "in.ts", 2)), out), 0.5) == []
    assert find_segments(Job(str(film(tmp_path / "in.mp4", 2)), tmp_path / "out.avi"), 0.5) == []
    (tmp_path / "text.mp4").write_text("hello")
    assert find_segments(Job(str(tmp_path / "text.mp4"), out), 0.5) == []
    one = film(tmp_path / "one.mp4", 2, gop=1000, **{"x264-params": "scenecut=0"})
    assert find_segments(Job(str(one), out), 0.5) == []


def test_a_segment_that_differs_from_the_whole_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(tmp_path / "in.mp4", 3)
    job = Job(str(source), tmp_path / "out.mp4")
    cut = find_segments(job, 1)
    config = settings(detector__every=1)

    def other_picture(name: str, segment: Segment, config: Config) -> dict[int, segments.FrameDetections]:
        seen = detect_segment(name, segment, config)
        return {pts: replace(row, sum=row.sum ^ 1) for pts, row in seen.items()}

    def picture_gone(name: str, segment: Segment, config: Config) -> dict[int, segments.FrameDetections]:
        return dict(list(detect_segment(name, segment, config).items())[:-1])

    def boxes_gone(job: Job, segment: Segment, boxes: dict[int, Any], config: Config) -> Any:
        return encode_segment(job, segment, dict(list(boxes.items())[:-1]), config)

    for name, fault in (
        ("detect_segment", other_picture), ("detect_segment", picture_gone), ("encode_segment", boxes_gone),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(segments, name, fault)
            with pytest.raises(NotSegmentable):
                run_segments(job, config, cut, Here())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]
