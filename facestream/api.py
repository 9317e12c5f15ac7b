"""The Python API: files to files, records of a source, and the pipeline for pictures of your own.

Pictures are uint8 [H, W, 3]. Boxes are float32 xyxy: left, top, right, bottom in pixels of the displayed picture,
counted from its top left corner. Times are seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from facestream.engines.base import Detector
from facestream.engines.loader import load_detector as _load
from facestream.engines.options import DetectorOptions
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadConfig, BadInput, SourceLost
from facestream.pipeline.jobs.two_pass import run_twice
from facestream.pipeline.records import RecordSink, record
from facestream.pipeline.run import Job, Report, run
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.chain import FacePipeline as _Stages
from facestream.pipeline.types import Frame, TrackedFrame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.output import check_distinct
from facestream.pipeline.video.source import open_source
from facestream.pipeline.video.uri import Kind, parse

if TYPE_CHECKING:
    import supervision

StrPath = str | os.PathLike[str]
_TICK = Fraction(1, 1_000_000)


@dataclass(frozen=True, slots=True)
class FrameDetections:
    """The faces of one frame, N of them.

    source: its file or redacted address; empty for pictures of your own. frame: its number, from 0. time_s: seconds
    since the source began, None where a live source does not say. pts: the same in the source's time base. width,
    height: of the displayed picture, in pixels.
    xyxy: float32 [N, 4], pixels. ids: int64 [N], the same for a face over its track's life. scores: float32 [N], 0..1.
    states: why each face is there: "observed" (detected in this frame), "coasted" (predicted from earlier frames) or
    "backfilled" (inferred from later ones).
    image: the picture that was pushed, uint8 [H, W, 3]; None for frames of `detect`.
    """

    source: str
    frame: int
    time_s: float | None
    pts: int | None
    width: int
    height: int
    xyxy: NDArray[np.float32]
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    states: tuple[str, ...]
    image: NDArray[np.uint8] | None
    _tracked: TrackedFrame | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to_record(self) -> dict[str, Any]:
        """The frame as `facestream detect` writes it: one JSON object, boxes rounded to hundredths of a pixel."""
        return {
            "source": self.source,
            "frame": self.frame,
            "pts": self.pts,
            "time_s": self.time_s,
            "width": self.width,
            "height": self.height,
            "faces": [
                {
                    "id": int(face),
                    "xyxy": [round(float(v), 2) for v in box],
                    "score": round(float(score), 4),
                    "state": state,
                }
                for face, box, score, state in zip(self.ids, self.xyxy, self.scores, self.states, strict=True)
            ],
        }

    def to_supervision(self) -> supervision.Detections:
        """The faces as `supervision.Detections`: xyxy, confidence, class_id 0, tracker_id, and in `data` class_name
        and state. ModuleNotFoundError where supervision is not installed."""
        import supervision

        return supervision.Detections(
            xyxy=self.xyxy.reshape(-1, 4),
            confidence=self.scores,
            class_id=np.zeros(len(self), int),
            tracker_id=self.ids,
            data={"class_name": np.array(["face"] * len(self), str), "state": np.array(self.states, str)},
        )


class FacePipeline:
    """Detection, tracking and look-ahead for pictures of your own: push them in order, flush at the end.

    A picture comes back once its look-ahead is over (config.tracker.lookahead pictures later), with its faces and
    itself in `image`. channels: how the pictures' channels are ordered; "bgr" is OpenCV's. fps: frames/s of pictures
    that are pushed without a time. Not for several threads at once.

    BadConfig and BadInput for a cover picture (config.cover.hide "image:PATH") that cannot be used.
    """

    def __init__(
        self, detector: Detector, config: Config | None = None, *, channels: Literal["rgb", "bgr"] = "rgb",
        fps: float = 30.0,
    ) -> None:  # fmt: skip
        if channels not in ("rgb", "bgr"):
            raise BadConfig(f"{channels!r}: must be rgb or bgr", "channels")
        if not fps > 0:
            raise BadConfig(f"{fps!r}: must be over 0", "fps")
        self._config = config or Config()
        self._stages = _Stages(detector, self._config)
        self._anonymizer = Anonymizer(self._config.cover)
        self._format = channels + "24"
        self._fps = fps
        self._images: dict[int, NDArray[np.uint8]] = {}
        self._count = 0
        self._size: tuple[int, ...] = ()
        self._last_s = -1.0

    def push(self, image: NDArray[np.uint8], time_s: float | None = None) -> list[FrameDetections]:
        """The next picture, uint8 [H, W, 3]; returns the frames that are done now, in order: none, one or several.

        time_s: when it is shown, in seconds, rising; None: the picture's number divided by fps. The picture is kept
        until it comes back, and must not be changed until then. BadInput for another shape, type or time.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BadInput(f"a picture is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}", "push")
        if self._size and image.shape != self._size:
            raise BadInput(
                f"its size {image.shape} is not that of the first, {self._size}", "push", "use a new pipeline"
            )
        time_s = self._count / self._fps if time_s is None else float(time_s)
        if not time_s > self._last_s:
            raise BadInput(f"the time {time_s} does not come after {self._last_s}", "push")
        self._size = image.shape
        self._last_s = time_s
        picture = _planar(image, self._format)
        frame = Frame(self._count, round(time_s / _TICK), _TICK, picture)
        picture.pts = frame.pts
        picture.time_base = _TICK
        self._images[self._count] = image
        self._count += 1
        return [self._result(tracked) for tracked in self._stages.push(frame)]

    def flush(self) -> list[FrameDetections]:
        """The frames that still waited, in order. Nothing may be pushed afterwards."""
        return [self._result(tracked) for tracked in self._stages.flush()]

    def cover(self, detections: FrameDetections) -> NDArray[np.uint8]:
        """A copy of a frame's picture with its faces covered as config.cover says: uint8 [H, W, 3], same channels."""
        image = detections.image
        tracked = detections._tracked
        if image is None or tracked is None:
            raise BadInput("it holds no picture", "cover", "frames of push and flush do")
        frame = replace(tracked.frame, picture=_planar(image, self._format))
        covered = self._anonymizer.cover(TrackedFrame(frame, tracked.boxes))
        return np.asarray(covered.picture.to_ndarray(format=self._format), np.uint8)

    def _result(self, tracked: TrackedFrame) -> FrameDetections:
        return _detections(tracked, "", self._images.pop(tracked.frame.index))


def load_detector(
    model: str = "plainS", *, backend: str = "file", threshold: float = 0.2, nms_iou: float = 0.3, threads: int = 1,
    verify: bool = True,
) -> Detector:  # fmt: skip
    """A face detector: a shipped model's name (plainXS16, plainS, plainM), or an .onnx, .xml or .plan file.

    backend: what runs it (file, auto, cuda, torch, torch-cpu; docs/gpu.md). threshold: score from which a box is a
    face. nms_iou: of two boxes that overlap by more than this, the better one stays. threads: CPU threads.
    verify: a second net looks at each face again, where the detector runs on the CPU.

    BadConfig for an unknown name or backend, BadInput for a file that is missing, EngineMismatch for one that is no
    detector or does not run here.
    """
    return _load(model, DetectorOptions(threshold, nms_iou, threads, backend, verify=verify))


def anonymize(
    source: StrPath, output: StrPath, *, config: Config | StrPath | None = None, detector: Detector | None = None,
    records: StrPath | None = None, two_pass: bool = False, overwrite: bool = False, progress: bool = False,
    **settings: Any,
) -> Report:  # fmt: skip
    """Write a video or an image again with every face covered. `output` appears when it is whole.

    settings: flags of the command line by name, such as hide="solid", shape="box", scale=1.5, size=(960,
    544), threshold=0.3, lookahead=15, codec="h264", crf=23; they beat config. config: settings, or a file like
    config.toml. detector: one of `load_detector` in the place of the settings'. records: also write what was found:
    .jsonl, .csv or .mot. two_pass: go through the video twice. progress: a bar on a terminal.

    Returns what was done: frames, face_boxes, tracks, seconds, warnings, and lost, which says why a damaged source
    ended early (what could be decoded is covered and kept).
    Raises BadInput, BadConfig or EngineMismatch before anything is written, SinkLost where writing fails; then
    nothing of the output is left. TypeError for a setting that there is not.
    """
    made = _config(config, settings)
    uri = parse(source)
    if uri.kind not in (Kind.FILE, Kind.IMAGE):
        raise BadInput("not a file", uri.redacted, "anonymize works on a video or an image")
    job = Job(os.fspath(source), Path(output), overwrite)
    files = [source, made.detector.model, config if isinstance(config, str | os.PathLike) else None]
    check_distinct(files, [output, records])
    if detector is None:
        detector = _load(made.detector.model, made.detector.options())
    notes = RecordSink(Path(records), overwrite) if records is not None else None
    try:
        report = (run_twice if two_pass else run)(job, made, detector, notes, progress)
    except BaseException:
        if notes is not None:
            notes.abort()
        raise
    if notes is not None:
        notes.close()
    return report


def detect(
    source: StrPath, *, config: Config | StrPath | None = None, detector: Detector | None = None, **settings: Any
) -> FrameIterator:
    """The faces of each frame of a video, image, camera or stream, as the frames are done.

    source: as for `facestream run`: a path, 0, rtsp://..., http://... settings, config, detector: see `anonymize`.
    Frames are decoded as they are asked for, and none is kept: memory does not grow with the source's length. The
    source is closed at its end and when the loop is left.

    BadInput, BadConfig and EngineMismatch are raised by the call; SourceLost comes after the last frame of a source
    that broke. TypeError for a setting that there is not.
    """
    made = _config(config, settings)
    opened = open_source(source, SourceOptions(made.decode.threads, hardware=made.decode.hardware))
    stages = _Stages(detector or _load(made.detector.model, made.detector.options()), made)
    info = opened.open()

    def frames() -> Iterator[FrameDetections]:
        with closing(opened):
            lost: SourceLost | None = None
            try:
                for item in opened.items():
                    if isinstance(item, Frame):
                        yield from (_detections(tracked, info.source) for tracked in stages.push(item))
            except SourceLost as e:
                lost = e
            yield from (_detections(tracked, info.source) for tracked in stages.flush())
            if lost is not None:
                raise lost

    return FrameIterator(frames(), opened.close)


class FrameIterator(Iterator[FrameDetections]):
    """The frames of `detect`. Its source is closed at the end, by close(), and when nobody holds this any more."""

    def __init__(self, frames: Iterator[FrameDetections], close: Any) -> None:
        self._frames = frames
        self._close = close

    def __next__(self) -> FrameDetections:
        return next(self._frames)

    def close(self) -> None:
        """Close the source; there are no more frames."""
        self._frames.close()  # type: ignore[attr-defined]
        self._close()

    def __enter__(self) -> FrameIterator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _config(config: Config | StrPath | None, settings: dict[str, Any]) -> Config:
    return config.replace(**settings) if isinstance(config, Config) else Config.load(config, **settings)


def _planar(image: NDArray[np.uint8], layout: str) -> av.VideoFrame:
    """A copy of a picture as the planar RGB that the stages work on."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=layout).reformat(format="gbrp")


def _detections(tracked: TrackedFrame, source: str, image: NDArray[np.uint8] | None = None) -> FrameDetections:
    row = record(tracked, source)
    boxes = tracked.boxes
    return FrameDetections(
        source=source,
        frame=row["frame"],
        time_s=row["time_s"],
        pts=row["pts"],
        width=row["width"],
        height=row["height"],
        xyxy=np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4),
        ids=np.array([box.id for box in boxes], np.int64),
        scores=np.array([box.score for box in boxes], np.float32),
        states=tuple(str(box.state) for box in boxes),
        image=image,
        _tracked=None if image is None else replace(tracked, frame=replace(tracked.frame, picture=_NO_PICTURE)),
    )


_NO_PICTURE = av.VideoFrame(2, 2, "gray")  # the picture itself is kept as `image`
