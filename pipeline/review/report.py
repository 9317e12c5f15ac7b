"""The report of a review: one HTML file without pictures, scripts or anything from elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from typing import Any

from facestream.pipeline.review.edits import (
    Accept,
    AnyEdit,
    Boxes,
    Cover,
    Delete,
    LeaveOpen,
    Mask,
    Merge,
    MoveMask,
    Split,
    Unmask,
)
from facestream.pipeline.review.session import Session

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2.5rem auto;padding:0 1.2rem;color:#1c2127}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2.2rem 0 .5rem;border-bottom:1px solid #d9dee4}
p.sum{font-size:1.05rem}table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{text-align:left;padding:.25rem .8rem .25rem 0;vertical-align:top;border-bottom:1px solid #eceff2}
th{font-weight:600;color:#56616d}code{font-size:.82rem;overflow-wrap:anywhere}.warn{color:#a03a00}
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the report says. lists hold rows of cells; times are those of the frames, in words."""

    video: str
    size: str
    by: str
    estimate: str
    sample: str
    tracks: int
    covered: int
    drawn: int
    deleted: int
    left_open: tuple[tuple[str, ...], ...]
    masks: tuple[tuple[str, ...], ...]
    decisions: tuple[tuple[str, ...], ...]
    moments: int
    looked_at: int
    unseen: tuple[tuple[str, ...], ...]
    input_sha256: str = ""
    output: str = ""
    output_sha256: str = ""
    records_sha256: str = ""
    frames: int = 0
    warnings: tuple[str, ...] = ()
    manifest: str = ""
    manifest_check: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None
    written: str = ""

    @staticmethod
    def of(session: Session, by: str) -> Facts:
        """As the document is now."""
        document = session.document
        when = Clock(session)
        edits = [step.edit for step in document.done]
        found = session.estimate()
        moments = session.moments()
        waiting = [m for m in moments if m.key not in document.accepted]
        left_open = []
        for track, ranges in sorted(document.open.items()):
            for r in ranges:
                inside = [f for f in document.spans.get(track, ()) if r.start <= f <= r.end]
                open_frames = sum(document.is_left_open(f, track) for f in inside)
                doubt = (
                    f"{len(inside) - open_frames} frames stay covered, being in doubt"
                    if open_frames < len(inside)
                    else "all"
                )
                row = (
                    str(track),
                    when.span(r.start, r.end),
                    f"{open_frames} of {len(inside)}",
                    doubt,
                    r.reason,
                    r.by,
                    r.at,
                )
                left_open.append(row)
        kinds = Counter(type(edit) for edit in edits)
        return Facts(
            video=session.clip.video.name,
            size="{} x {}, {} frames, {:.3f} a second".format(*session.clip.size, document.frames, session.clip.rate),
            by=by,
            estimate=found.describe() if found else "no estimate: the second detector has not run",
            sample=f"second detector ({session.notes.model}): {found.frames} frames" if found and session.notes else "",
            tracks=len([t for t in document.spans if t > 0]),
            covered=sum(len(document.covered(f)) for f in document.by_frame),
            drawn=len(document.drawn),
            deleted=kinds[Delete],
            left_open=tuple(left_open),
            masks=tuple(
                (str(m.label), when.span(m.start, m.end), ", ".join(map(when.at, m.key_frames())), m.by, m.at)
                for m in document.masks.values()
            ),
            decisions=tuple((e.at, e.by, _describe(e, when)) for e in edits),
            moments=len(moments),
            looked_at=len(document.accepted),
            unseen=tuple((when.span(m.start, m.end), f"{100 * m.risk:.0f} %", m.describe()) for m in waiting[:20]),
        )


class Clock:
    """Frames in words: their times."""

    def __init__(self, session: Session) -> None:
        self.rate = session.clip.rate

    def at(self, frame: int) -> str:
        seconds = frame / self.rate
        return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{seconds % 60:05.2f}"

    def span(self, start: int, end: int) -> str:
        return f"{self.at(start)} to {self.at(end)} (frames {start} to {end})"


def _describe(edit: AnyEdit, when: Clock) -> str:
    """An edit as a person would say it."""
    if isinstance(edit, (Cover, LeaveOpen, Delete)):
        what = {Cover: "covered again", LeaveOpen: "left open", Delete: "deleted as no face"}[type(edit)]
        names = ", ".join(map(str, edit.tracks))
        reason = f": {edit.reason}" if isinstance(edit, LeaveOpen) else ""
        return f"track {names} {what}, {when.span(edit.start, edit.end)}{reason}"
    if isinstance(edit, Split):
        return f"track {edit.track} split at {when.at(edit.frame)}: {edit.new} from there on"
    if isinstance(edit, Merge):
        return "tracks " + ", ".join(map(str, edit.tracks)) + " are one"
    if isinstance(edit, Boxes):
        frames = [frame for frame, _ in edit.boxes]
        what = "drawn and followed" if edit.drawn else "box moved and followed"
        return f"track {edit.track} {what}, {when.span(min(frames), max(frames))}"
    if isinstance(edit, Mask):
        return f"mask {edit.label}, {when.span(edit.start, edit.end)}"
    if isinstance(edit, MoveMask):
        return f"mask {edit.label} moved at {when.at(edit.frame)}"
    if isinstance(edit, Unmask):
        return f"mask {edit.label} taken away"
    if isinstance(edit, Accept):
        return f"moment looked at and accepted ({edit.key})"
    return f"sound: {edit.audio}"


def html(facts: Facts) -> str:
    """The whole file."""
    settings = facts.settings or {}
    files = [
        ("source", facts.video, facts.input_sha256),
        ("covered video", facts.output, facts.output_sha256),
        ("records", f"{facts.output}.jsonl", facts.records_sha256),
    ]
    opened = "Nobody was left open." if not facts.left_open else ""
    sample = f", by {facts.sample}" if facts.sample else ""
    by = f"{facts.size}. Reviewed by {facts.by or 'nobody named'}, written {facts.written}."
    parts = [
        f"<p>{facts.covered} boxes of {facts.tracks} tracks are covered; {facts.drawn} tracks were drawn by hand, "
        f"{facts.deleted} times boxes were deleted. Of {facts.moments} moments at risk {facts.looked_at} were looked "
        "at and accepted.</p>",
        *(f"<p class=warn>{escape(warning)}</p>" for warning in facts.warnings),
        "<h2>Left open</h2>",
        opened or table(("track", "when", "frames open", "", "reason", "by", "decided"), facts.left_open),
        "<h2>Masks</h2>",
        table(("mask", "when", "key frames", "by", "decided"), facts.masks) if facts.masks else "None.",
        "<h2>Moments that nobody accepted, the likeliest first</h2>",
        table(("when", "risk", "why"), facts.unseen) if facts.unseen else "None.",
        "<h2>Who decided what, and when</h2>",
        table(("when (UTC)", "who", "what"), facts.decisions) if facts.decisions else "Nothing was changed.",
        "<h2>Files</h2>",
        table(("", "name", "SHA-256"), files),
        f"<p>Manifest {escape(facts.manifest)}: {escape('; '.join(facts.manifest_check))}.</p>",
        "<h2>Covers</h2>",
        table(("setting", "value"), [(key, str(value)) for key, value in settings.items()]),
    ]
    return page(f"Review of {facts.video}", f"{facts.estimate}{sample}.", by, parts)


def page(title: str, summary: str, note: str, parts: list[str]) -> str:
    """A whole HTML file. parts: its body, as HTML; the others are text."""
    head = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(note)} facestream {escape(version('facestream'))}.</p>",
        f"<p class=sum><b>{escape(summary)}</b></p>",
    ]
    foot = (
        "<p>The estimate speaks of faces, not of people: clothes, gait, places, companions and voices are not covered. "
        "No program finds every face.</p></html>\n"
    )
    return "\n".join([*head, *parts, foot])


def table(head: tuple[str, ...], rows: Any) -> str:
    """Rows of cells under a head."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"
