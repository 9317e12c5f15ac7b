"""The Python API: what it returns, what it refuses, and that it lets go of its sources."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.engines.boxes import iou_xyxy

import facestream as fs
from tests.conftest import facestream, render
from tests.pack import cut_demo

ROOT = Path(__file__).parent.parent
DOC = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
QUICK = {"model": "plainXS16", "size": (320, 192)}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo clip's first two seconds and a bit, as they are."""
    return cut_demo(tmp_path_factory.mktemp("short") / "in.mp4", 40)


def open_files(path: Path) -> int:
    """How many of this process's open files are this one."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files can be listed on Linux only")
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link) == str(path.resolve()) for link in links)


def takewhile_whole(frames: Iterator[fs.FrameDetections]) -> Iterator[fs.FrameDetections]:
    """The frames of a source that must break after some."""
    with pytest.raises(fs.SourceLost, match="cut off"):
        yield from frames


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_docs_runs(number: int, short: Path, tmp_path: Path) -> None:
    if "import supervision" in EXAMPLES[number]:
        pytest.importorskip("supervision")
    (tmp_path / "in.mp4").symlink_to(short)
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", EXAMPLES[number]],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if "print(" in EXAMPLES[number]:
        assert done.stdout.strip()


def test_the_docs_show_each_public_name() -> None:
    assert [
        name for name in fs.__all__ if f"fs.{name}" not in DOC and name not in ("Detector", "FrameDetections", "Report")
    ] == []


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, facestream; print(sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"av", "cv2", "numpy", "onnxruntime", "msgspec", "click"} & set(
        json.loads(done.stdout.replace("'", '"'))
    )


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in fs.__all__:
        assert getattr(fs, name).__doc__, name
    assert set(fs.__all__) <= set(dir(fs))
    with pytest.raises(AttributeError, match="nothing"):
        fs.nothing  # noqa: B018


def test_detect_gives_what_the_command_writes(short: Path, tmp_path: Path) -> None:
    done = facestream("detect", short, "-o", tmp_path / "out.jsonl", "--model", "plainXS16", "--size", "320x192")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    frames = list(fs.detect(short, **QUICK))
    assert [frame.frame for frame in frames] == list(range(40))
    for frame, row in zip(frames, rows, strict=True):
        assert frame.to_record() == row
        assert frame.xyxy.shape == (len(frame), 4)
        assert (frame.xyxy.dtype, frame.ids.dtype, frame.scores.dtype) == (np.float32, np.int64, np.float32)
        assert frame.image is None
    assert sum(map(len, frames)) > 0


def test_a_loop_that_is_left_closes_the_source(short: Path) -> None:
    for number, _ in enumerate(fs.detect(short, lookahead=0, **QUICK)):
        if number == 3:
            assert open_files(short) == 1
            break
    assert open_files(short) == 0
    never = fs.detect(short, **QUICK)
    assert open_files(short) == 1
    del never
    assert open_files(short) == 0
    with fs.detect(short, lookahead=0, **QUICK) as frames:
        next(frames)
        assert open_files(short) == 1
    assert open_files(short) == 0


def test_pushed_pictures_come_back_in_order_with_the_faces_of_the_file(short: Path) -> None:
    """Other colours than the file's planes, so boxes may differ by a little; the ids and the images may not."""
    settings = QUICK | {"lookahead": 6, "threshold": 0.6}  # doubtful boxes come and go with a shade of colour
    pipe = fs.FacePipeline(fs.load_detector("plainXS16", threshold=0.6), fs.Config.load(**settings))
    images, times = [], []
    with av.open(str(short)) as video:
        for picture in video.decode(video=0):
            images.append(picture.to_ndarray(format="rgb24"))
            times.append(picture.time)
    done = []
    for image, time_s in zip(images, times, strict=True):
        done += pipe.push(image, time_s)
    assert len(done) < len(images)
    done += pipe.flush()
    assert [frame.frame for frame in done] == list(range(40))
    assert all(frame.image is image for frame, image in zip(done, images, strict=True))
    assert [frame.time_s for frame in done] == pytest.approx(times, abs=1e-6)
    of_file = list(fs.detect(short, **settings))
    assert sum(len(frame) for frame in of_file) > 40
    pairs = [iou_xyxy(a.xyxy, b.xyxy) for a, b in zip(done, of_file, strict=True)]
    partnered = np.concatenate([iou.max(axis, initial=0) > 0.5 for iou in pairs for axis in (0, 1)])
    assert partnered.mean() > 0.7
    last = done[-1]
    covered = pipe.cover(last)
    assert covered.shape == last.image.shape
    changed = (covered != last.image).any(2)
    for left, top, right, bottom in last.xyxy.astype(int):
        assert changed[(top + bottom) // 2, (left + right) // 2]
    assert changed.mean() < 0.2
    assert (last.image == images[-1]).all()


def test_bgr_is_the_same_as_rgb(short: Path) -> None:
    with av.open(str(short)) as video:
        rgb = [picture.to_ndarray(format="rgb24") for picture in video.decode(video=0)][-4:]
    found = []
    for channels, images in (("rgb", rgb), ("bgr", [np.ascontiguousarray(image[..., ::-1]) for image in rgb])):
        config = fs.Config.load(lookahead=0, hide="solid", **QUICK)
        pipe = fs.FacePipeline(fs.load_detector("plainXS16"), config, channels=channels)
        frames = [frame for image in images for frame in pipe.push(image)]
        covered = pipe.cover(frames[-1])
        found.append((frames[-1].xyxy, covered if channels == "rgb" else covered[..., ::-1]))
    assert len(found[0][0])
    assert (found[0][0] == found[1][0]).all()
    assert (found[0][1] == found[1][1]).all()


def test_what_no_pipeline_takes() -> None:
    pipe = fs.FacePipeline(fs.load_detector("plainXS16"))
    image = np.zeros((64, 96, 3), np.uint8)
    for bad in (image[..., 0], image.astype(np.float32), np.zeros((64, 96, 4), np.uint8)):
        with pytest.raises(fs.BadInput, match=r"uint8 \[H, W, 3\]"):
            pipe.push(bad)
    pipe.push(image, 1.0)
    with pytest.raises(fs.BadInput, match="does not come after"):
        pipe.push(image, 1.0)
    with pytest.raises(fs.BadInput, match="size"):
        pipe.push(image[:32], 2.0)
    with pytest.raises(fs.BadConfig, match="rgb or bgr"):
        fs.FacePipeline(fs.load_detector("plainXS16"), channels="yuv")  # type: ignore[arg-type]


def test_a_file_to_a_file_with_its_records(short: Path, tmp_path: Path) -> None:
    report = fs.anonymize(short, tmp_path / "out.mp4", records=tmp_path / "out.jsonl", **QUICK)
    assert (report.frames, report.lost) == (40, None)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 40
    before = (tmp_path / "out.mp4").read_bytes()
    with pytest.raises(fs.BadInput, match="exists already"):
        fs.anonymize(short, tmp_path / "out.mp4", **QUICK)
    assert (tmp_path / "out.mp4").read_bytes() == before
    with pytest.raises(fs.BadInput, match="out"):
        fs.anonymize(short, short, overwrite=True, **QUICK)


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    for source in ("gone.mp4", "text.mp4"):
        with pytest.raises(fs.BadInput, match=source):
            fs.anonymize(tmp_path / source, tmp_path / "out.mp4", records=tmp_path / "out.jsonl", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["text.mp4"]
    with pytest.raises(fs.BadInput, match="not a file"):
        fs.anonymize("rtsp://user:secret@camera/door", tmp_path / "out.mp4")


def test_a_truncated_source_gives_its_frames_then_says_what_is_missing(tmp_path: Path) -> None:
    whole = render(tmp_path / "whole.mp4", frames=120, muxer={"movflags": "faststart"}, options={"g": "15"})
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    frames = fs.detect(tmp_path / "cut.mp4", **QUICK)
    seen = sum(1 for _ in takewhile_whole(frames))
    assert seen > 30
    report = fs.anonymize(tmp_path / "cut.mp4", tmp_path / "out.mp4", **QUICK)
    assert isinstance(report.lost, fs.SourceLost)
    assert report.frames == seen


def test_settings_are_checked_and_named(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('[cover]\nhide = "blur"\nscale = 2.0\n')
    config = fs.Config.load(tmp_path / "my.toml", scale=1.5)
    assert (config.cover.hide, config.cover.scale) == ("blur", 1.5)
    assert config.replace(hide="solid").cover == fs.Config.load(hide="solid", scale=1.5).cover
    with pytest.raises(fs.BadConfig, match=r"^hide: 'fog': must be"):
        fs.anonymize("in.mp4", "out.mp4", hide="fog")
    with pytest.raises(fs.BadConfig, match=r"^scale: 0: must be"):
        config.replace(scale=0)
    with pytest.raises(TypeError, match=r"'hid'; there are: .*hide"):
        fs.detect("in.mp4", hid="solid")


def test_supervision_gets_what_was_found(short: Path) -> None:
    sv = pytest.importorskip("supervision")
    frame = next(frame for frame in fs.detect(short, **QUICK) if len(frame))
    detections = frame.to_supervision()
    assert isinstance(detections, sv.Detections)
    assert (detections.xyxy == frame.xyxy).all()
    assert detections.tracker_id.tolist() == frame.ids.tolist()
    assert detections.data["state"].tolist() == list(frame.states)
    empty = next(fs.detect(short, lookahead=0, threshold=0.999999, **QUICK))
    assert len(empty.to_supervision()) == 0
