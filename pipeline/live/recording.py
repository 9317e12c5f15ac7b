"""Recording sinks of a live camera: video files and records. Recorded data is never deleted, whatever happens.

A file is written under a name that marks it as unfinished, and can be played at any time, also after a power failure or
a kill. If the disk is nearly full, it is closed while there is still room for its end; recording continues in a new
file once there is room again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import IO

from facestream.pipeline import records
from facestream.pipeline.errors import BadConfig, BadInput, SinkLost, UserError
from facestream.pipeline.live.audio import AudioSink, codec_of
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.retention import Limits, SegmentCleaner
from facestream.pipeline.stages.anonymise import fitted
from facestream.pipeline.system import lock
from facestream.pipeline.types import CoveredFrame, StreamInfo
from facestream.pipeline.url import redact
from facestream.pipeline.video.encode import EncodeOptions, container_for, encoder_for
from facestream.pipeline.video.output import Temporary, check
from facestream.pipeline.video.picture import matrix_of
from facestream.pipeline.video.sink import FileSink, check_output

RESERVE = 256 << 10  # bytes that must stay free for a file's end, in addition to
RESERVE_S = 3.0  # as many seconds of video, which encoder and container may still buffer
RESUME = 1 << 20  # bytes that must be free before a new file begins
RETRY_S = 2.0  # seconds between checks whether there is room again
FLUSH_S = 1.0  # seconds of records that a kill may lose


class UnfinishedFile(Temporary):
    """An unfinished file beside its target: door.unfinished.mkv. Written data is never removed."""

    def __init__(self, target: Path, overwrite: bool = False) -> None:
        self.target = target
        self._overwrite = overwrite
        for number in range(1, 10_000):
            mark = ".unfinished" + (f"-{number}" if number > 1 else "")
            self.path = target.absolute().with_name(f"{target.stem}{mark}{target.suffix}")
            try:
                self._file = open(self.path, "xb")  # noqa: SIM115  it stays open, and locked, until the file is whole
            except FileExistsError:  # of a run that was killed
                continue
            except PermissionError:
                raise BadInput("no permission to write into the output's folder", str(target)) from None
            except OSError as error:
                raise SinkLost(f"the output cannot be written ({error.strerror})", str(target)) from None
            break
        lock(self._file)

    def commit(self) -> None:
        """Rename the file to its final name, or to a numbered one if that exists."""
        target = self.target if self._overwrite else free_name(self.target)
        self._rename(target)

    def discard(self) -> None:
        """The file cannot be finished: keep it under this name, remove it if empty."""
        self._file.close()
        with contextlib.suppress(OSError):
            if self.path.stat().st_size == 0:
                self.path.unlink()


def free_name(path: Path) -> Path:
    """The path, with a number if it exists."""
    names = (path if n == 1 else path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(1, 10_000))
    return next(name for name in names if not name.exists())


def segment_path(path: Path, wall_s: float) -> Path:
    """A segment's path by local time, with a number if there is one of that second already."""
    when = time.strftime("%Y%m%d-%H%M%S", time.localtime(wall_s))
    return free_name(path.with_name(f"{path.stem}-{when}{path.suffix}"))


def has_room(path: Path, octets: int) -> bool:
    """Whether this many bytes are free on the file's disk."""
    try:
        return shutil.disk_usage(path.absolute().parent).free >= octets
    except OSError:
        return False


class Resuming:
    """Handles write errors of a continuous recording: stop, report, retry.

    trouble: why nothing is recorded at the moment, "" if all is well. losses: how often recording stopped.
    """

    def __init__(self, path: Path, on_event: Callable[[str], None]) -> None:
        self.path = path
        self.trouble = ""
        self.losses = 0
        self._on_event = on_event
        self._next_s = 0.0

    def may_begin(self) -> bool:
        """Whether a file may be opened now."""
        if not self.trouble:
            return True
        if time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + RETRY_S
        return has_room(self.path, RESUME)

    def lost(self, reason: str) -> None:
        self._next_s = time.monotonic() + RETRY_S
        if self.trouble:
            return
        self.trouble = redact(reason)
        self.losses += 1
        self._on_event(f"recording lost: {self.trouble}; it goes on in a new file when that is possible")

    def resumed(self, path: Path) -> None:
        if self.trouble:
            self.trouble = ""
            self._on_event(f"recording goes on: {path.name}")


class ContinuousSink:
    """What recordings of pictures and of records have in common: segments, their retention, and how they go on.

    segment_s: if above 0, a new file is started after this many seconds, named by the time of its first frame:
    door.mkv becomes door-20260131-235959.mkv. epoch_s: returns the wall-clock time of tick 0. limits: retention of
    segments. on_event: called with messages for the user.
    """

    upright = False

    def __init__(self, path: Path, segment_s: float, epoch_s: Callable[[], float], limits: Limits | None) -> None:
        self.name = str(path)
        self.on_event: Callable[[str], None] = lambda message: None
        self._path = path
        self._segment_s = segment_s
        self._epoch_s = epoch_s
        self._began = 0  # ticks of the current file's first frame
        self._files = 0  # that were begun
        self._cleaner = SegmentCleaner(path, limits or Limits(), lambda message: self.on_event(message))
        self._resuming = Resuming(path, lambda message: self.on_event(message))

    @property
    def trouble(self) -> str:
        """Why nothing is recorded at the moment, "" if all is well."""
        return self._resuming.trouble

    @property
    def losses(self) -> int:
        """How often recording stopped because of an error."""
        return self._resuming.losses

    def wants(self, size: tuple[int, int]) -> bool:
        return True

    def close(self) -> None:
        """Finish the file. Raises SinkLost if its end cannot be written; recorded data is kept."""
        raise NotImplementedError

    def abort(self) -> None:
        """End without finishing; recorded data is kept."""
        with contextlib.suppress(UserError, OSError):
            self.close()

    def _is_full(self, ticks: int) -> bool:
        """Whether the current segment is as long as segments are."""
        return self._segment_s > 0 and float((ticks - self._began) * TICK) >= self._segment_s

    def _segment_path(self, ticks: int) -> Path:
        return segment_path(self._path, self._epoch_s() + float(ticks * TICK))


class RecordingSink(ContinuousSink, AudioSink):
    """Records a video file, from the first frame on; frames of another size are scaled to the first one's, or start a
    new segment.
    """

    def __init__(
        self, path: Path, options: EncodeOptions, source: str, rate: Callable[[], float],
        segment_s: float = 0.0, epoch_s: Callable[[], float] = lambda: 0.0, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        AudioSink.__init__(self)
        ContinuousSink.__init__(self, path, segment_s, epoch_s, limits)
        self._options = options
        self._source = source
        self._rate = rate
        self._sink: FileSink | None = None
        self._size = (0, 0)
        self._codec = ""  # of the sound in the file
        self._reported: set[str] = set()

    def write(self, covered: CoveredFrame) -> None:
        """Write a frame. Raises UserError if the first one cannot be written because of a permanent error."""
        try:
            self._write(covered)
        except (UserError, OSError) as error:
            will_pass = isinstance(error, SinkLost | OSError) and not isinstance(error, PermissionError)
            if not self._files and not will_pass:
                raise
            self._lose(str(error.what if isinstance(error, UserError) else error.strerror))

    def _write(self, covered: CoveredFrame) -> None:
        picture = covered.picture
        ticks = covered.tracked.frame.pts or 0
        for audio in self.audio_queue.until(ticks) if self.audio_queue is not None else ():
            if self._sink is not None and audio.codec == self._codec:
                self._sink.copy(audio.side())
        resized = self._segment_s > 0 and (picture.width, picture.height) != self._size
        if self._sink is not None and (resized or self._is_full(ticks)):
            self.close()
        if self._sink is not None and not has_room(self._path, self._reserve(ticks)):
            self._lose("the disk is full")
        begins = self._sink is None
        if self._sink is None:
            if not self._resuming.may_begin():
                return
            if not has_room(self._path, RESERVE):
                raise SinkLost("the disk is full", str(self._path))
            self._sink = self._open(covered)
            self._size = picture.width, picture.height
            self._began = ticks
        if self._segment_s:
            self._cleaner.sweep(self._sink.unfinished, now=begins)
        self._sink.write(fitted(covered, *self._size))
        self._resuming.resumed(self._sink.unfinished)

    def _reserve(self, ticks: int) -> int:
        """Bytes to reserve for the end of the current file, from its bitrate so far."""
        assert self._sink is not None
        seconds = max(1.0, float((ticks - self._began) * TICK))
        try:
            written = self._sink.unfinished.stat().st_size
        except OSError:
            written = 0
        return RESERVE + self._size[0] * self._size[1] + round(RESERVE_S * written / seconds)

    def _lose(self, reason: str) -> None:
        """Close the current file and keep it."""
        with contextlib.suppress(UserError, OSError):
            self.close()
        self._resuming.lost(reason)

    def _open(self, covered: CoveredFrame) -> FileSink:
        frame = covered.tracked.frame
        rate = self._rate()
        audio_stream = self.audio_stream() if self.audio_queue is not None else None
        if self.audio_queue is not None and audio_stream is None:
            self._report_once("there is no sound")
        self._codec = "" if audio_stream is None else codec_of(audio_stream)
        info = StreamInfo(
            side_streams=() if audio_stream is None else (audio_stream,),
            source=self._source, width=frame.size[0], height=frame.size[1], rotation=frame.rotation,
            time_base=TICK, rate=Fraction(rate).limit_denominator(1001) if rate else None, frames=None, live=True,
            matrix=matrix_of(frame.rotation, frame.mirrored),
        )  # fmt: skip
        path = self._path
        if self._segment_s or self._files:
            path = self._segment_path(frame.pts or 0)
        target = check_output(path, self._options, [self._source])
        container = container_for(target)
        encoder = encoder_for(container, info, self._options)
        unfinished = UnfinishedFile(target, self._options.overwrite)
        sink = FileSink(unfinished, container, encoder, info, self._options)
        self._files += 1
        for warning in sink.warnings:
            self._report_once(warning)
        return sink

    def _report_once(self, what: str) -> None:
        """Once, not with each segment."""
        if what not in self._reported:
            self._reported.add(what)
            self.on_event(f"pictures alone: {what}")

    def close(self) -> None:
        """Finish the file. Raises SinkLost if its end cannot be written; recorded data is kept."""
        if self._sink is not None:
            sink = self._sink
            self._sink = None
            sink.close()


class RecordsSink(ContinuousSink):
    """Writes records of every frame that left: JSON Lines, CSV or MOT."""

    def __init__(
        self, name: str, path: Path, overwrite: bool, source: str,
        segment_s: float = 0.0, epoch_s: Callable[[], float] = time.time, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        """Raises BadInput and BadConfig for a path that cannot be written."""
        super().__init__(path, segment_s, epoch_s, limits)
        self.name = name
        self._overwrite = overwrite
        self._source = source
        self._ending = records.ending_of(path)
        check(segment_path(path, time.time()) if segment_s else path, overwrite)
        self._unfinished: UnfinishedFile | None = None
        self._file: IO[str] | None = None
        self._flushed_s = 0.0
        self._whole = 0  # bytes up to the end of the last line that was surely written
        if not segment_s:
            self._open(path)

    def write(self, covered: CoveredFrame) -> None:
        if self._file is None and not self._resuming.may_begin():
            return
        ticks = covered.tracked.frame.pts or 0
        try:
            if self._is_full(ticks):
                self.close()
            begins = self._file is None
            if begins:
                self._open(self._segment_path(ticks))
                self._began = ticks
            if self._segment_s and self._unfinished is not None:
                self._cleaner.sweep(self._unfinished.path, now=begins)
            if not has_room(self._path, RESERVE):
                raise SinkLost("the disk is full", str(self._path))
            assert self._file is not None
            self._file.write(records.lines(records.record(covered.tracked, self._source), self._ending))
            if time.monotonic() - self._flushed_s > FLUSH_S:
                self._flush()
        except (UserError, OSError) as error:
            self.abort()
            self._resuming.lost(str(error.what if isinstance(error, UserError) else error.strerror))
        else:
            assert self._unfinished is not None
            self._resuming.resumed(self._unfinished.path)

    def _open(self, path: Path) -> None:
        self._unfinished = UnfinishedFile(path, self._overwrite and not self._files)
        self._file = self._unfinished.path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        self._files += 1
        self._whole = 0
        self._file.write(records.head(self._ending))

    def _flush(self) -> None:
        assert self._file is not None
        self._file.flush()
        self._flushed_s = time.monotonic()
        self._whole = self._file.tell()

    def close(self) -> None:
        """Finish the file. Raises SinkLost if the last lines cannot be written; the others are kept."""
        if self._file is None or self._unfinished is None:
            return
        file = self._file
        unfinished = self._unfinished
        self._file = None
        try:
            file.close()
            unfinished.commit()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(unfinished.path, self._whole)
            unfinished.discard()
            raise SinkLost(f"cannot write the records ({error.strerror})", str(self._path)) from None


def check_limits(limits: Limits, segment_s: float) -> None:
    """Raises BadConfig for retention limits without segments."""
    if limits and not segment_s:
        raise BadConfig("only segments can be kept for a time", "run.keep_days, run.keep_gb", "--segment S too")
