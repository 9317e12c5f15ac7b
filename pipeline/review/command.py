"""Runs `facestream review`: prints the list of moments, or serves the page."""

from __future__ import annotations

import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facestream.engines.checked import checked
from facestream.pipeline.config import Config
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.jobs.replay import RecordReplay
from facestream.pipeline.records import Record, RecordSink, read_records, record
from facestream.pipeline.review.document import Document
from facestream.pipeline.review.draft import draft_path, read_draft
from facestream.pipeline.review.estimate import Estimate, estimate
from facestream.pipeline.review.groups import GroupBy, likeness_of
from facestream.pipeline.review.risk import Moment, RiskIndex
from facestream.pipeline.review.scout import Notes, Scout
from facestream.pipeline.review.server import ReviewServer
from facestream.pipeline.review.session import Clip, Session
from facestream.pipeline.run import Job, Recorder, run, run_stages
from facestream.pipeline.types import Frame, StreamInfo, TrackedFrame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.source import open_source
from facestream.pipeline.video.uri import Kind, parse
from facestream.pipeline.web import check_web

log = logging.getLogger(__name__)

RATE = 25.0  # frames/s of a video that does not say
POLITE = 10  # nice value of the second detector while somebody works on the page


class Recorders:
    """Combines several recorders, and keeps the records."""

    def __init__(self, *others: Recorder) -> None:
        self.others = others
        self.rows: dict[int, Record] = {}

    def write(self, tracked: TrackedFrame, source: str) -> None:
        self.rows[tracked.frame.index] = checked(record(tracked, source), Record)
        for other in self.others:
            other.write(tracked, source)


@dataclass(frozen=True, slots=True)
class Found:
    """What `review --list` prints."""

    moments: list[Moment]
    estimate: Estimate
    rate: float

    def text(self) -> str:
        """A line a moment, the likeliest first, then the estimate."""
        out = []
        for number, (span, m) in enumerate(self.spans(), 1):
            of = f", track {', '.join(map(str, m.tracks))}" if m.tracks else ""
            out.append(f"{number:4d}. {span}  {100 * m.risk:3.0f} %  frame {m.frame}: {m.describe()}{of}")
        return "\n".join([*(out or ["no moment is at risk"]), self.estimate.describe()])

    def spans(self) -> list[tuple[str, Moment]]:
        """The moments, each with its time in words."""
        return [(f"{clock(m.start / self.rate)} to {clock(m.end / self.rate)}", m) for m in self.moments]

    def as_dict(self) -> dict[str, Any]:
        e = self.estimate
        return {
            "moments": [
                {
                    "start": m.start, "end": m.end, "frame": m.frame, "risk": round(m.risk, 4), "why": list(m.why),
                    "tracks": list(m.tracks), "xyxy": m.box,
                }
                for m in self.moments
            ],
            "estimate": {
                "open": round(e.share, 6), "low": round(e.low, 6), "high": round(e.high, 6), "frames": e.frames,
                "faces": e.faces,
            },
        }  # fmt: skip


def clock(seconds: float) -> str:
    """H:MM:SS.ss"""
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{seconds % 60:05.2f}"


def found_of(rows: dict[int, Record], notes: Notes, size: tuple[int, int], rate: float, config: Config) -> Found:
    """The list and the estimate."""
    document = Document(rows, rate, config.cover.scale)
    document.set_cuts(notes.cuts)
    index = RiskIndex(document, notes, size)
    return Found(index.moments(), estimate(document, notes, index.open_faces()), rate)


def list_moments(video: Path, records: Path | None, config: Config, progress: bool) -> Found:
    """Process the video once, with a second detector on a sample of frames; nothing is written."""
    info = stream_info(video)
    rate = float(info.rate or RATE)
    scout = Scout(config, info.frames, rate)
    keep = Recorders(scout)
    job = Job(str(video), None)
    if records is None:
        report = run(job, config, detector_of(config), keep, progress)
    else:
        replay = RecordReplay(read_records(records, str(video)), records)
        report = run_stages(job, config, replay, keep, progress)
    if report.lost:
        log.warning("%s", report.lost)
    return found_of(keep.rows, scout.notes, scout.size, rate, config)


def serve(
    video: Path,
    records: Path | None,
    config: Config,
    port: int,
    browser: bool,
    overwrite: bool,
    progress: bool,
    group_by: GroupBy = "appearance",
) -> int:
    """Serve the page until Ctrl-C."""
    check_web("review")
    session, scout = prepare(video, records, config, overwrite, progress, group_by)
    server = ReviewServer(session, port)
    server.start()
    print(f"{video.name} is open for review, on this machine alone, at\n{server.address}\nCtrl-C ends it.", flush=True)
    if scout is None:
        threading.Thread(target=_scout, args=(server, session), name="second detector", daemon=True).start()
    if browser:
        webbrowser.open(server.address)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    print(f"the draft is in {session.draft_file}")
    return 0


def prepare(
    video: Path,
    records: Path | None,
    config: Config,
    overwrite: bool,
    progress: bool,
    group_by: GroupBy = "appearance",
) -> tuple[Session, Scout | None]:
    """A session on the video. The scout is None where its pass over the video is still to come."""
    likeness = likeness_of(group_by)
    info = stream_info(video)
    rate = float(info.rate or RATE)
    scout: Scout | None = None
    if records is None:
        records = video.with_name(video.name + ".faces.jsonl")
        if not records.exists() or overwrite:
            scout = Scout(config, info.frames, rate, likeness=likeness)
            _find(video, records, scout, config, overwrite, progress)
        else:
            log.info("%s are used; --overwrite finds the faces anew", records)
    rows = read_records(records, str(video))
    rows, clip = _complete(video, rows, records, info, rate, config, progress)
    session = Session(clip, rows, records, config, group_by)
    if scout is not None:
        session.take_notes(scout)
        session.save()
    _check_first(session)
    return session, scout if scout is not None or session.needs_pass else Scout(config, None, rate, second=False)


def _find(video: Path, records: Path, scout: Scout, config: Config, overwrite: bool, progress: bool) -> None:
    """Detect the faces, with the second detector in the same pass."""
    draft = read_draft(draft_path(records), records) if records.exists() else None
    if draft is not None and draft.edits:
        do = "move it away to find the faces anew"
        raise BadInput("there is a draft to the records that would be replaced", str(draft_path(records)), do)
    sink = RecordSink(records, overwrite)
    try:
        report = run(Job(str(video), None), config, detector_of(config), Recorders(sink, scout), progress)
    except BaseException:
        sink.abort()
        raise
    sink.commit()
    sink.close()
    draft_path(records).unlink(missing_ok=True)
    if report.lost:
        log.warning("%s", report.lost)


def _complete(
    video: Path, rows: dict[int, Record], records: Path, info: StreamInfo, rate: float, config: Config, progress: bool
) -> tuple[dict[int, Record], Clip]:
    """Records of every frame, with its size and time: MOT files hold neither, so the video is gone through for them."""
    whole = rows and max(rows) == len(rows) - 1 and all(r.width and r.time_s is not None for r in rows.values())
    if not whole:
        keep = Recorders()
        replay = RecordReplay(rows, records)
        report = run_stages(Job(str(video), None), config, replay, keep, progress)
        if report.lost:
            log.warning("%s", report.lost)
        rows = keep.rows
    if not rows:
        raise BadInput("there is no frame in the records", str(records))
    rows = {index: rows[index] for index in sorted(rows)}
    first = rows[0]
    size = (first.width or info.width, first.height or info.height)
    times = [row.pts for row in rows.values()]
    return rows, Clip(video, size, rate, times, [row.time_s for row in rows.values()])


def _check_first(session: Session) -> None:
    """Refuse records of another video as early as possible. The export compares every frame with its record."""
    frame = session.reader.get(0)
    RecordReplay({0: session.document.rows[0]}, session.records).push(frame)


def scout_of(session: Session, note: Callable[[str], None] = lambda _: None) -> Scout:
    """The pass over the video for given records: cuts, appearances, and the second detector. note: called with the
    progress."""
    frames = session.document.frames
    scout = Scout(session.config, frames, session.clip.rate, likeness=likeness_of(session.group_by))

    class Watched(RecordReplay):
        def push(self, frame: Frame) -> list[TrackedFrame]:
            if frame.index % 25 == 0:
                note(f"second detector: {100 * frame.index // max(1, frames)} %")
            return super().push(frame)

    job = Job(str(session.clip.video), None)
    run_stages(job, session.config, Watched(dict(session.document.rows), session.records), scout, progress=False)
    return scout


def _scout(server: ReviewServer, session: Session) -> None:
    """Thread: the pass over the video, whose result goes to the page."""

    def note(text: str) -> None:
        server.progress = text

    if sys.platform == "linux":  # there a thread has a priority, and those that it starts inherit it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), POLITE)
    try:
        scout = scout_of(session, note)
    except UserError as e:
        server.progress = f"the second detector failed: {e}"
        return

    def done() -> None:
        session.take_notes(scout)
        session.save()
        server.progress = ""

    server.call(done)


def stream_info(video: Path) -> StreamInfo:
    """The video's properties. Raises BadInput if it is not a video."""
    uri = parse(str(video))
    if uri.kind not in (Kind.FILE, Kind.IMAGE):
        raise BadInput("not a file", uri.redacted, "review works on one video or image")
    source = open_source(uri, SourceOptions())
    try:
        return source.open()
    finally:
        source.close()
