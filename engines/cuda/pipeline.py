"""GpuPipeline: upload, preprocessing, net, NMS and a small download, in two or three slots.

Each slot has its own stream and memory; while the GPU processes one, the next is filled. Everything after the upload
depends only on the shape of the net's input, which is padded to a batch of 1, 2, 4, 8 or 16, so that there are few
shapes. Each shape is captured into a CUDA graph when it comes for the second time, since TensorRT needs to run a shape
once before. The graphs that a slot used last are kept, the others destroyed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.engines.cuda.driver import Device
from facestream.engines.cuda.frame import (
    SOURCE,
    DeviceFrame,
    Normalisation,
    colour_table,
    packed_bytes,
    preprocess,
    source_row,
)
from facestream.engines.cuda.kernels import MAX_BOXES, nms, nms_workspace
from facestream.engines.errors import UserError
from facestream.engines.types import HostFrame

HEAD = 32  # faces of a frame that come down at once, 640 bytes; more are fetched when there are more
BATCHES = (1, 2, 4, 8, 16)
SHAPES = 12  # net inputs for which a slot keeps a graph: five batches of landscape and of portrait, and two to spare
ALIGNED = 256  # bytes

log = logging.getLogger(__name__)


class Shape(NamedTuple):
    """Shape of a net's input."""

    images: int
    width: int
    height: int


class Needs(NamedTuple):
    """What a net needs for a shape. boxes: an image that come out. scratch: bytes of device memory to work in."""

    boxes: int
    scratch: int


class Net(Protocol):
    """What runs between preprocessing and NMS. Each slot has a state of its own for each shape.

    nms_inside: it suppresses itself, and its outputs are counts and faces instead of xyxy and scores. max_batch: the
    most images that it takes at once.
    """

    nms_inside: bool
    max_batch: int

    def canvas(self, images: int, width: int, height: int) -> tuple[int, int]:
        """The smallest input (width, height) that it takes for so many images of at most this size."""
        ...

    def prepare(self, slot: int, shape: Shape, stream: Any) -> Needs:
        """Set a slot up for inputs of this shape."""
        ...

    def enqueue(self, slot: int, shape: Shape, images: int, first: int, second: int, scratch: int, stream: Any) -> None:
        """Put the net into the stream: half [N, 3, H, W] at `images` -> its two outputs at `first` and `second`."""
        ...

    def capturable(self, slot: int, shape: Shape, stream: Any) -> bool:
        """Whether what `enqueue` does can be part of a graph."""
        ...

    def forget(self, slot: int, shape: Shape) -> None:
        """Give back what `prepare` has made; the slot's stream has nothing of it left to do."""
        ...


@dataclass(slots=True)
class Prepared:
    """A shape in a slot. runs: how often it came. graph: of all that is done for it. eager: none can be captured."""

    needs: Needs
    runs: int = 0
    graph: Any = None
    eager: bool = False


@dataclass(slots=True)
class Slot:
    """device, host: one block of memory each, at `parts` of which things lie (offset, bytes)."""

    index: int
    stream: Any
    done: Any
    device: int = 0
    device_parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    host: Array | None = None
    host_parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    shapes: dict[Shape, Prepared] = field(default_factory=dict)  # the one that was used last is the last in it
    ticket: Ticket | None = None

    def at(self, part: str) -> int:
        """A part's address on the device."""
        return self.device + self.device_parts[part][0]

    def view(self, part: str) -> Array:
        """A part of the page-locked memory."""
        assert self.host is not None
        offset, size = self.host_parts[part]
        return self.host[offset : offset + size]


@dataclass(slots=True)
class Ticket:
    """Frames that are on their way; `found` is set once they are through: (xyxy [n, 4], scores [n]) for each, in
    pixels of the net's input, best first, suppressed."""

    frames: tuple[HostFrame, ...]
    shape: Shape
    found: list[tuple[F32, F32]] | None = None


@dataclass(slots=True)
class Counters:
    """Counts of submitted batches, and of those replayed as a graph."""

    batches: int = 0
    replays: int = 0


class GpuPipeline:
    """Not safe for use by several threads at once: one feeds it and takes from it. It may be another than made it."""

    def __init__(
        self, device: Device, net: Net, normalisation: Normalisation, threshold: float, iou: float, slots: int = 3
    ) -> None:
        self.device = device
        self.net = net
        self.threshold = threshold
        self.iou = iou
        self.counters = Counters()
        self.slots = [Slot(i, device.stream(), device.event()) for i in range(slots)]
        self._busy: deque[Slot] = deque()
        self._logged: set[Shape] = set()
        colours = colour_table()
        norm = normalisation.row()
        rows = np.concatenate([colours.ravel(), norm])
        self._tables = device.alloc(rows.nbytes)
        self._norm = self._tables + colours.nbytes
        first = self.slots[0]
        device.upload(self._tables, rows, first.stream)
        device.record(first.done, first.stream)
        device.wait(first.done)

    def shape_of(self, frames: Sequence[HostFrame]) -> Shape:
        """The net's input for a batch: padded to one of BATCHES, and large enough for each. EngineMismatch where the
        net takes none such."""
        count = min((n for n in BATCHES if n >= len(frames)), default=len(frames))
        count = max(len(frames), min(count, self.net.max_batch))
        width, height = (max(f.fitted[k] for f in frames) for k in (0, 1))
        return Shape(count, *self.net.canvas(count, width, height))

    def submit(self, frames: Sequence[HostFrame]) -> Ticket:
        """Start on a batch, whose frames are copied before this returns; waits for the oldest one when no slot is
        free."""
        self.device.enter()
        ticket = Ticket(tuple(frames), self.shape_of(frames))
        while all(slot.ticket is not None for slot in self.slots):
            self._finish(self._busy[0])
        free = [slot for slot in self.slots if slot.ticket is None]
        slot = next((s for s in free if ticket.shape in s.shapes and s.shapes[ticket.shape].graph), free[0])
        try:
            self._start(slot, ticket)
        except BaseException:
            # The stream may still read what the next batch would be written over.
            with suppress(UserError):
                self.device.record(slot.done, slot.stream)
                self.device.wait(slot.done)
            raise
        slot.ticket = ticket
        self._busy.append(slot)
        return ticket

    def result(self, ticket: Ticket) -> list[tuple[F32, F32]]:
        """Wait for a batch, and for those before it."""
        self.device.enter()
        while ticket.found is None:
            self._finish(self._busy[0])
        return ticket.found

    def warm_up(self, frames: Sequence[HostFrame]) -> None:
        """Go through every shape that batches of up to so many such frames lead to, in every slot, until each is
        captured: compiling and capturing take far longer than a batch does."""
        sizes = sorted({min(n, len(frames)) for n in BATCHES}, reverse=True)  # memory that grows costs graphs
        for batch in (frames[:n] for n in sizes):
            for _ in range(2):
                for ticket in [self.submit(batch) for _ in self.slots]:
                    self.result(ticket)

    def close(self) -> None:
        """Wait for what is on its way and give back all that was made; the pipeline is of no use after that."""
        self.device.enter()
        while self._busy:
            self._finish(self._busy[0])
        for slot in self.slots:
            self._forget_all(slot)
            if slot.device:
                self.device.free(slot.device)
            if slot.host is not None:
                self.device.free_pinned(slot.host)
            self.device.free_event(slot.done)
            self.device.free_stream(slot.stream)
        self.slots = []
        self.device.free(self._tables)

    def _start(self, slot: Slot, ticket: Ticket) -> None:
        prepared = self._prepare(slot, ticket)
        self._fill(slot, ticket)
        used = sum(_room(frame) for frame in ticket.frames)
        self.device.upload(slot.at("frames"), slot.view("frames")[:used], slot.stream)
        if prepared.graph is None and prepared.runs and not prepared.eager:
            self._capture(slot, ticket.shape, prepared)
        self.counters.batches += 1
        if prepared.graph is not None:
            self.device.replay(prepared.graph, slot.stream)
            self.counters.replays += 1
        else:
            self._work(slot, ticket.shape, prepared.needs)
        prepared.runs += 1
        self.device.record(slot.done, slot.stream)

    def _capture(self, slot: Slot, shape: Shape, prepared: Prepared) -> None:
        """Where it does not work, this shape is run step by step from then on."""
        if not self.net.capturable(slot.index, shape, slot.stream):
            return
        try:
            prepared.graph = self.device.capture(slot.stream, lambda: self._work(slot, shape, prepared.needs))
        except (UserError, RuntimeError) as e:
            prepared.eager = True
            if shape not in self._logged:
                self._logged.add(shape)
                size = f"{shape.images}x{shape.width}x{shape.height}"
                reason = (str(e).splitlines() or [type(e).__name__])[0]
                log.warning("no CUDA graph for inputs of %s (%s): it runs step by step, more slowly", size, reason)

    def _prepare(self, slot: Slot, ticket: Ticket) -> Prepared:
        """The slot's state for the batch's shape, and memory for all of it."""
        shape = ticket.shape
        prepared = slot.shapes.pop(shape, None)
        if prepared is None:
            prepared = Prepared(self.net.prepare(slot.index, shape, slot.stream))
        slot.shapes[shape] = prepared
        boxes = prepared.needs.boxes
        if boxes > MAX_BOXES:
            raise ValueError(f"{boxes} boxes a frame, at most {MAX_BOXES} fit")
        while len(slot.shapes) > SHAPES:
            self._forget(slot, next(iter(slot.shapes)))
        n = shape.images
        upload = sum(_room(frame) for frame in ticket.frames)
        sizes = {
            "table": n * SOURCE.itemsize,
            "input": 6 * n * shape.width * shape.height,
            "counts": 4 * n,
            "faces": 20 * n * boxes,
            "scratch": prepared.needs.scratch,
            "frames": upload,
        }
        if not self.net.nms_inside:
            sizes |= {"xyxy": 16 * n * boxes, "scores": 4 * n * boxes, "workspace": nms_workspace(n)}
        self._grow(slot, sizes, {"table": sizes["table"], "counts": 4 * n, "faces": sizes["faces"], "frames": upload})
        return prepared

    def _grow(self, slot: Slot, device: Mapping[str, int], host: Mapping[str, int]) -> None:
        """Make room. Graphs know addresses: where memory moves, they are gone."""
        larger = _grown(slot.device_parts, device)
        if larger is not None:
            self._drop_graphs(slot)
            if slot.device:
                self.device.free(slot.device)
            slot.device = 0
            slot.device_parts = {}
            slot.device = self.device.alloc(larger.pop("")[1])
            slot.device_parts = larger
        larger = _grown(slot.host_parts, host)
        if larger is not None:
            self._drop_graphs(slot)
            if slot.host is not None:
                self.device.free_pinned(slot.host)
            slot.host = None
            slot.host_parts = {}
            slot.host = self.device.pinned(larger.pop("")[1])
            slot.host_parts = larger

    def _drop_graphs(self, slot: Slot) -> None:
        for prepared in slot.shapes.values():
            if prepared.graph is not None:
                self.device.free_graph(prepared.graph)
                prepared.graph = None

    def _forget(self, slot: Slot, shape: Shape) -> None:
        prepared = slot.shapes.pop(shape)
        if prepared.graph is not None:
            self.device.free_graph(prepared.graph)
        self.net.forget(slot.index, shape)

    def _forget_all(self, slot: Slot) -> None:
        for shape in list(slot.shapes):
            self._forget(slot, shape)

    def _fill(self, slot: Slot, ticket: Ticket) -> None:
        frames = slot.view("frames")
        table = slot.view("table")[: ticket.shape.images * SOURCE.itemsize].view(SOURCE)
        table[:] = np.zeros((), SOURCE)
        at = 0
        for i, frame in enumerate(ticket.frames):
            start = at
            for plane in frame.planes:
                np.copyto(frames[start : start + plane.size].reshape(plane.shape), plane)
                start += plane.size
            address = slot.at("frames") + at
            stored = DeviceFrame.packed(frame.layout, *frame.stored, address, frame.rotation, frame.full_range)
            table[i] = source_row(stored, frame.fitted)
            at += _room(frame)

    def _work(self, slot: Slot, shape: Shape, needs: Needs) -> None:
        """All that follows the frames' upload, put into the slot's stream; it depends on the shape alone."""
        device = self.device
        stream = slot.stream
        n = shape.images
        boxes = needs.boxes
        launch = device.launcher(stream)
        device.upload(slot.at("table"), slot.view("table")[: n * SOURCE.itemsize], stream)
        canvas = shape.width, shape.height
        preprocess(launch, n, slot.at("table"), self._tables, self._norm, slot.at("input"), canvas)
        counts = slot.at("counts")
        faces = slot.at("faces")
        scratch = slot.at("scratch")
        if self.net.nms_inside:
            self.net.enqueue(slot.index, shape, slot.at("input"), counts, faces, scratch, stream)
        else:
            xyxy = slot.at("xyxy")
            scores = slot.at("scores")
            self.net.enqueue(slot.index, shape, slot.at("input"), xyxy, scores, scratch, stream)
            workspace = slot.at("workspace")
            nms(launch, n, boxes, self.threshold, self.iou, xyxy, scores, workspace, counts, faces)
        device.download(slot.view("counts")[: 4 * n], counts, stream)
        for i in range(n):
            head = slot.view("faces")[i * boxes * 20 :][: min(HEAD, boxes) * 20]
            device.download(head, faces + i * boxes * 20, stream)

    def _finish(self, slot: Slot) -> None:
        """Wait for the oldest batch, take its faces out of the slot and free it."""
        ticket = slot.ticket
        assert ticket is not None
        assert self._busy[0] is slot
        self.device.wait(slot.done)
        boxes = slot.shapes[ticket.shape].needs.boxes
        counts = slot.view("counts")[: 4 * len(ticket.frames)].view(np.int32).tolist()
        rows = [slot.view("faces")[i * boxes * 20 :][: 20 * count] for i, count in enumerate(counts)]
        rare = [i for i, count in enumerate(counts) if count > HEAD]
        for i in rare:
            self.device.download(rows[i][20 * HEAD :], slot.at("faces") + (i * boxes + HEAD) * 20, slot.stream)
        if rare:
            self.device.record(slot.done, slot.stream)
            self.device.wait(slot.done)
        faces = [row.view(np.float32).reshape(-1, 5) for row in rows]
        accepted = [f[f[:, 4] >= self.threshold] for f in faces]
        ticket.found = [(np.array(f[:, :4]), np.array(f[:, 4])) for f in accepted]
        self._busy.popleft()
        slot.ticket = None


def _grown(parts: Mapping[str, tuple[int, int]], needed: Mapping[str, int]) -> dict[str, tuple[int, int]] | None:
    """Offset and bytes of each part, once all that was and all that is needed fits, and of the whole under ""; None
    where it fits already."""
    if all(name in parts and size <= parts[name][1] for name, size in needed.items()):
        return None
    made = {}
    at = 0
    for name in {**parts, **needed}:
        size = max(needed.get(name, 0), parts.get(name, (0, 0))[1])
        made[name] = at, size
        at += -(-size // ALIGNED) * ALIGNED
    return made | {"": (0, max(at, ALIGNED))}


def _room(frame: HostFrame) -> int:
    """Bytes of a frame in the upload, rounded up so that the next one is aligned."""
    return -(-packed_bytes(frame.layout, *frame.stored) // ALIGNED) * ALIGNED
