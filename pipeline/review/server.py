"""The review page's server: on loopback, protected by a token. Extra `web`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from facestream.engines.checked import Wrong, checked
from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.records import Face
from facestream.pipeline.review.document import Step
from facestream.pipeline.review.edits import AnyEdit
from facestream.pipeline.review.export import Export, ExportRequest
from facestream.pipeline.review.frames import FrameReader
from facestream.pipeline.review.pictures import covered, face_jpeg, jpeg
from facestream.pipeline.review.session import Session, now
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import XYXY, Polygon
from facestream.pipeline.web import RequestGuard, WebServer, check_web, web
from msgspec import Struct

HERE = Path(__file__).parent
SCRIPTS = ("view.js", "timeline.js", "review.js")
CHUNK = 2000  # frames whose boxes are given at a time


class SetBox(Struct, frozen=True, forbid_unknown_fields=True):
    """A box that was drawn or moved on the page. track: None for a new one. follow: carry it to the frames around."""

    frame: int
    xyxy: XYXY
    track: int | None = None
    follow: bool = True
    by: str = ""


class ReviewServer(WebServer):
    """Serves one session on 127.0.0.1. progress: what still goes on in the background, in words, "" when nothing."""

    body = 1 << 20

    def __init__(self, session: Session, port: int = 0) -> None:
        check_web("review")
        self.session = session
        self.token = secrets.token_urlsafe(24)
        hint = "open the address that `facestream review` printed"
        super().__init__("review page", "127.0.0.1", port, RequestGuard(self.token, True, True, hint))
        self.progress = ""
        self.export: Export | None = None
        self._anonymizer = Anonymizer(session.config.cover)
        self._pool = ThreadPoolExecutor(2, "review")
        self._spare_pool = ThreadPoolExecutor(1, "review, later")
        self._faces: dict[tuple[int, int, XYXY], bytes] = {}
        self._saving: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """What the user opens: only who has it gets in."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def stop(self, timeout_s: float = 10.0) -> None:
        """Save what is not saved, and end."""
        super().stop(timeout_s)
        if self.export is not None:
            self.export.cancel()
        if not self.session.saved:
            self.session.save()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._spare_pool.shutdown(wait=False, cancel_futures=True)
        self.session.close()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/", self._page)
        router.add_get("/state", self._state)
        router.add_get("/moments", self._moments)
        router.add_get("/boxes", self._boxes)
        router.add_get("/frame/{frame}", self._frame)
        router.add_get("/face/{track}", self._face)
        router.add_get("/export", self._export_state)
        router.add_post("/export", self._export)
        router.add_post("/box", self._box)
        router.add_post("/edit", self._edit)
        router.add_post("/undo", self._undo)
        router.add_post("/redo", self._redo)
        router.add_post("/save", self._save)

    async def _page(self, request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        html = (HERE / "review.html").read_text(encoding="utf-8")
        style = (HERE / "review.css").read_text(encoding="utf-8")
        script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
        html = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script).replace("NONCE", nonce)
        headers = {
            "Content-Security-Policy": f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline';"
            " img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none';"
            " form-action 'none'",
            "Referrer-Policy": "no-referrer",  # the address holds the token
            "Cross-Origin-Opener-Policy": "same-origin",
        }
        return web.Response(text=html, content_type="text/html", headers=headers)

    async def _state(self, request: web.Request) -> web.Response:
        session = self.session
        document = session.document
        clip = session.clip
        tracks = [row for track in sorted(document.spans) if (row := session.summary(track)) is not None]
        body = {
            "name": clip.video.name,
            "frames": document.frames,
            "width": clip.size[0],
            "height": clip.size[1],
            "rate": clip.rate,
            "seconds": _seconds(clip.seconds, clip.rate),
            "scale": session.config.cover.scale,
            "shape": session.config.cover.shape,
            "cuts": document.cuts,
            "tracks": tracks,
            "user": session.user,
            "output": str(clip.video.with_name(f"{clip.video.stem}.covered{clip.video.suffix}")),
            **self._common(),
        }
        return _json(body)

    def _common(self) -> dict[str, Any]:
        session = self.session
        document = session.document
        return {
            "version": session.version,
            "masks": session.masks(),
            "audio": document.audio,
            "undo": len(document.done),
            "redo": len(document.undone),
            "saved": session.saved,
            "progress": self.progress,
            "next_mask": document.next_mask(),
            "next_track": document.next_track(),
        }

    def _delta(self, step: Step | None) -> web.Response:
        """What an edit changed, for the page."""
        touched = sorted(step.touched) if step is not None else []
        rows = [(track, self.session.summary(track)) for track in touched]
        deleted = [track for track, row in rows if row is None]
        first, last = (step.first, step.last) if step is not None and step.last >= 0 else (0, -1)
        return _json(
            {"tracks": [r for _, r in rows if r], "gone": deleted, "first": first, "last": last, **self._common()}
        )

    async def _moments(self, request: web.Request) -> web.Response:
        found = self.session.estimate()
        return _json(
            {
                "moments": self.session.moment_rows(),
                "estimate": found.describe() if found else "",
                "progress": self.progress,
                "version": self.session.version,
                "saved": self.session.saved,
            }
        )

    async def _boxes(self, request: web.Request) -> web.Response:
        start = int(request.query["start"])
        end = min(int(request.query["end"]), start + CHUNK)
        return _json({"frames": self.session.boxes(start, end), "version": self.session.version})

    async def _frame(self, request: web.Request) -> web.Response:
        index = int(request.match_info["frame"])
        width = max(1, int(request.query.get("width", "960")))
        faces: list[Face] | None = None
        masks: tuple[Polygon, ...] = ()
        if request.query.get("covers") == "1":
            faces = self.session.document.covered(index)
            masks = self.session.document.polygons_at(index)
        pool, reader = self._readers(request)
        data = await self._loop.run_in_executor(pool, partial(self._picture, reader, index, width, faces, masks))
        return web.Response(body=data, content_type="image/jpeg")

    def _readers(self, request: web.Request) -> tuple[ThreadPoolExecutor, FrameReader]:
        """Who waits for a picture does not wait for what is only made in advance (`later`)."""
        if request.query.get("later") == "1":
            return self._spare_pool, self.session.spare_reader
        return self._pool, self.session.reader

    def _picture(
        self, reader: FrameReader, index: int, width: int, faces: list[Face] | None, masks: tuple[Polygon, ...]
    ) -> bytes:
        frame = reader.get(index)
        if faces or masks:
            frame = covered(frame, faces or [], masks, self._anonymizer)
        return jpeg(frame, width)

    async def _face(self, request: web.Request) -> web.Response:
        row = self.session.summary(int(request.match_info["track"]))
        if row is None:
            raise web.HTTPNotFound(text="there is no such track\n")
        key = (row["id"], row["best"], tuple(row["box"]))
        if key not in self._faces:
            pool, reader = self._readers(request)
            self._faces[key] = await self._loop.run_in_executor(pool, partial(self._cut, reader, row["best"], key[2]))
        return web.Response(body=self._faces[key], content_type="image/jpeg")

    def _cut(self, reader: FrameReader, index: int, box: XYXY) -> bytes:
        return face_jpeg(reader.get(index), box)

    async def _box(self, request: web.Request) -> web.Response:
        """Draw or move a box."""
        wanted = _read(await request.json(), SetBox)
        work = partial(self.session.followed, wanted.frame, wanted.xyxy, wanted.track, wanted.follow, wanted.by)
        edit = await self._loop.run_in_executor(self._pool, work)
        return self._edited(self.session.edit(edit))

    async def _edit(self, request: web.Request) -> web.Response:
        value = await request.json()
        if not isinstance(value, dict):
            raise BadInput("an edit is one JSON object", "review")
        by = str(value.get("by") or self.session.user)
        edit: AnyEdit = _read({**value, "at": now(), "by": by}, AnyEdit)
        return self._edited(self.session.edit(edit))

    async def _undo(self, request: web.Request) -> web.Response:
        return self._edited(self.session.undo())

    async def _redo(self, request: web.Request) -> web.Response:
        return self._edited(self.session.redo())

    def _edited(self, step: Step | None) -> web.Response:
        if self._saving is None or self._saving.done():
            self._saving = self._loop.create_task(self._save_soon())
        return self._delta(step)

    async def _save_soon(self) -> None:
        """The draft is written by itself, a moment after an edit: several at once are one."""
        await asyncio.sleep(0.3)
        session = self.session
        with contextlib.suppress(UserError):  # `save` says it
            while not session.saved:  # what is done while it writes is written too
                write = partial(session.write, session.draft(), session.version)
                await self._loop.run_in_executor(self._pool, write)

    async def _save(self, request: web.Request) -> web.Response:
        self.session.save()
        return _json({"saved": True, "draft": str(self.session.draft_file)})

    async def _export(self, request: web.Request) -> web.Response:
        if self.export is not None and not self.export.done:
            raise BadInput("an export is under way", "review")
        wanted = _read(await request.json(), ExportRequest)
        self.session.save()
        self.export = Export(self.session, wanted)
        self.export.start()
        return self._export_json()

    async def _export_state(self, request: web.Request) -> web.Response:
        return self._export_json()

    def _export_json(self) -> web.Response:
        return _json(self.export.state() if self.export is not None else {})


def _json(value: Any) -> web.Response:
    return web.Response(text=json.dumps(value, ensure_ascii=False), content_type="application/json")


def _read(value: Any, kind: Any) -> Any:
    try:
        return checked(value, kind)
    except Wrong as e:
        raise BadInput(str(e), "review") from None


def _seconds(times: list[float | None], rate: float) -> list[float]:
    """The time of every frame; those without one are counted from the rate. Empty where all are even."""
    first = next((t for t in times if t is not None), 0.0) or 0.0
    made = [round(n / rate if t is None else t - first, 3) for n, t in enumerate(times)]
    return [] if all(abs(t - n / rate) < 0.5 / rate for n, t in enumerate(made)) else made
