"""The loop on a GPU: upload, preprocess, net, NMS, a small download, all one CUDA graph, in two or three slots.

Each slot has a stream, memory of its own and a graph for the shapes that it saw last; while the GPU works on one, the
next is filled. A graph is captured the second time that shapes come, since TensorRT wants to run them once before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.engines.cuda.driver import Device
from facestream.engines.cuda.frame import DeviceFrame, Normalisation, colour_row, cover, packed_bytes, preprocess
from facestream.engines.cuda.kernels import MAX_BOXES, nms, nms_workspace
from facestream.engines.types import HostFrame

HEAD = 32  # faces of a picture that come down at once, 640 bytes; more are fetched when there are more


class Net(Protocol):
    """What runs between preprocessing and NMS.

    nms_inside: it suppresses itself, and its outputs are counts and faces instead of xyxy and scores.
    """

    nms_inside: bool

    def canvas(self, pictures: int, width: int, height: int) -> tuple[int, int]:
        """The smallest input (width, height) that it takes for so many pictures of at most this size."""
        ...

    def prepare(self, slot: int, pictures: int, width: int, height: int, stream: Any) -> int:
        """Set a slot up for inputs of these shapes; returns how many boxes a picture come out."""
        ...

    def enqueue(self, slot: int, images: int, first: int, second: int, stream: Any) -> None:
        """Put the net into the stream: half [N, 3, H, W] at `images` -> its two outputs at `first` and `second`."""
        ...

    def capturable(self, slot: int, stream: Any) -> bool:
        """Whether what `enqueue` does can be part of a graph."""
        ...


@dataclass(slots=True)
class Slot:
    index: int
    stream: Any
    done: Any
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> address, size on the device
    host: dict[str, Array] = field(default_factory=dict)
    key: tuple[Any, ...] = ()
    boxes: int = 0
    graph: Any = None
    runs: int = 0  # with this key
    ticket: Ticket | None = None


@dataclass(slots=True)
class Ticket:
    """Pictures that are on their way; `found` is set once they are through: (xyxy [n, 4], scores [n]) for each, in
    pixels of the net's input, best first, suppressed. keep: they stay on the GPU until they are covered there."""

    pictures: tuple[HostFrame, ...]
    found: list[tuple[F32, F32]] | None = None
    keep: bool = False
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class CoverStyle:
    """How faces are covered: ellipse or box, grown by `scale`; `cells` squares across a face, None for mid grey."""

    shape: str = "ellipse"
    scale: float = 1.4
    cells: int | None = 8


class GpuPipeline:
    """Not safe for use by several threads at once: one feeds it and takes from it. It may be another than made it."""

    def __init__(
        self, device: Device, net: Net, normalisation: Normalisation, threshold: float, iou: float, slots: int = 3
    ) -> None:
        self.device, self.net, self.threshold, self.iou = device, net, threshold, iou
        self.slots = [Slot(i, device.stream(), device.event()) for i in range(slots)]
        self._busy: deque[Slot] = deque()
        self._thread = threading.get_ident()
        rows = np.concatenate([normalisation.row(), colour_row(False), colour_row(True)])
        base = device.alloc(rows.nbytes)
        self._norm, self._colours = base, (base + 28, base + 52)
        first = self.slots[0]
        device.upload(base, rows, first.stream)
        device.record(first.done, first.stream)
        device.wait(first.done)

    def submit(self, pictures: Sequence[HostFrame], keep: bool = False) -> Ticket:
        """Start on a batch; waits for the oldest one when no slot is free. keep: `cover` is called for it too, and its
        slot is taken until then. RuntimeError when all slots are kept so."""
        self._enter()
        ticket = Ticket(tuple(pictures), keep=keep)
        while self._busy and all(slot.ticket is not None for slot in self.slots):
            self._finish(self._busy[0])
        wide, high = (max(p.fitted[k] for p in pictures) for k in (0, 1))
        canvas = self.net.canvas(len(pictures), wide, high)
        key = (canvas, *(p.key for p in pictures))
        free = [slot for slot in self.slots if slot.ticket is None]
        if not free:
            raise RuntimeError("every slot holds pictures that wait to be covered")
        slot = next((s for s in free if s.key == key), free[0])
        if slot.key != key:
            self._shape(slot, ticket, canvas)
            slot.key, slot.graph, slot.runs = key, None, 0
        self._fill(slot, ticket)
        if slot.graph is None and slot.runs and self.net.capturable(slot.index, slot.stream):
            slot.graph = self.device.capture(slot.stream, lambda: self._work(slot, ticket, canvas))
        if slot.graph is not None:
            self.device.replay(slot.graph, slot.stream)
        else:
            self._work(slot, ticket, canvas)
        slot.runs += 1
        self.device.record(slot.done, slot.stream)
        slot.ticket, ticket.slot = ticket, slot
        self._busy.append(slot)
        return ticket

    def result(self, ticket: Ticket) -> list[tuple[F32, F32]]:
        """Wait for a batch, and for those before it."""
        self._enter()
        while ticket.found is None:
            self._finish(self._busy[0])
        return ticket.found

    def cover(self, ticket: Ticket, faces: Sequence[F32], style: CoverStyle) -> list[tuple[Array, ...]]:
        """Cover faces in a batch that was kept, where it lies on the GPU, and bring the pictures back: the planes of
        each. faces: boxes xyxy [n, 4] of each picture, in its stored pixels. ValueError for pictures not in NV12."""
        self.result(ticket)
        slot = ticket.slot
        if slot is None or any(p.layout != "nv12" for p in ticket.pictures):
            raise ValueError("only NV12 pictures that were kept can be covered on the GPU")
        launch, base = self.device.launcher(slot.stream), slot.memory["upload"][0]
        starts = np.cumsum([0, *(_room(p) for p in ticket.pictures)]).tolist()
        for picture, boxes, at in zip(ticket.pictures, faces, starts, strict=False):
            stored = DeviceFrame.packed(picture.layout, *picture.stored, base + at)
            for box in boxes.tolist():
                cover(launch, stored, tuple(box), style.scale, style.shape, style.cells)
        back = slot.host["upload"][: starts[-1]]  # what came from there is on the GPU
        self.device.download(back, base, slot.stream)
        self.device.record(slot.done, slot.stream)
        self.device.wait(slot.done)
        slot.ticket = ticket.slot = None
        return [_planes(back[at : at + _room(p)].copy(), p) for p, at in zip(ticket.pictures, starts, strict=False)]

    def _enter(self) -> None:
        if self._thread != threading.get_ident():
            self.device.enter()
            self._thread = threading.get_ident()

    def close(self) -> None:
        """Wait for what is on its way and give the device's memory back; the loop is of no use after that."""
        self._enter()
        while self._busy:
            self._finish(self._busy[0])
        for slot in self.slots:
            for address, _ in slot.memory.values():
                self.device.free(address)
            slot.memory, slot.graph, slot.key = {}, None, ()
        self.device.free(self._norm)

    def _shape(self, slot: Slot, ticket: Ticket, canvas: tuple[int, int]) -> None:
        n = len(ticket.pictures)
        slot.boxes = self.net.prepare(slot.index, n, *canvas, slot.stream)
        if slot.boxes > MAX_BOXES:
            raise ValueError(f"{slot.boxes} boxes a picture, at most {MAX_BOXES} fit")
        upload = sum(_room(p) for p in ticket.pictures)
        pixels = n * canvas[0] * canvas[1]
        sizes = {"upload": upload, "input": 6 * pixels, "counts": 4 * n, "faces": 20 * n * slot.boxes}
        if not self.net.nms_inside:
            sizes |= {"xyxy": 16 * n * slot.boxes, "scores": 4 * n * slot.boxes, "workspace": nms_workspace(n)}
        for name, size in sizes.items():
            address, had = slot.memory.get(name, (0, 0))
            if had < size:
                if had:
                    self.device.free(address)
                slot.memory[name] = self.device.alloc(size), size
        for name, size in (("upload", upload), ("counts", 4 * n), ("heads", n * HEAD * 20)):
            if name not in slot.host or len(slot.host[name]) < size:
                slot.host[name] = self.device.pinned(size)

    def _fill(self, slot: Slot, ticket: Ticket) -> None:
        at = 0
        for picture in ticket.pictures:
            start = at
            for plane in picture.planes:
                np.copyto(slot.host["upload"][start : start + plane.size].reshape(plane.shape), plane)
                start += plane.size
            at += _room(picture)

    def _work(self, slot: Slot, ticket: Ticket, canvas: tuple[int, int]) -> None:
        """All of a batch, put into the slot's stream; nothing here depends on the pictures' content."""
        device, stream, n = self.device, slot.stream, len(ticket.pictures)
        launch = device.launcher(stream)
        memory = {name: address for name, (address, _) in slot.memory.items()}
        used = sum(_room(p) for p in ticket.pictures)
        device.upload(memory["upload"], slot.host["upload"][:used], stream)
        at = memory["upload"]
        for i, picture in enumerate(ticket.pictures):
            stored = DeviceFrame.packed(picture.layout, *picture.stored, at, picture.rotation, picture.full_range)
            output = memory["input"] + i * 3 * canvas[0] * canvas[1] * 2
            colour = self._colours[int(picture.full_range)]
            preprocess(launch, stored, picture.fitted, self._norm, colour, output, canvas)
            at += _room(picture)
        counts, faces = memory["counts"], memory["faces"]
        if self.net.nms_inside:
            self.net.enqueue(slot.index, memory["input"], counts, faces, stream)
        else:
            xyxy, scores = memory["xyxy"], memory["scores"]
            self.net.enqueue(slot.index, memory["input"], xyxy, scores, stream)
            workspace = memory["workspace"]
            nms(launch, n, slot.boxes, self.threshold, self.iou, xyxy, scores, workspace, counts, faces)
        device.download(slot.host["counts"][: 4 * n], counts, stream)
        for i in range(n):
            head = slot.host["heads"][i * HEAD * 20 :][: min(HEAD, slot.boxes) * 20]
            device.download(head, faces + i * slot.boxes * 20, stream)

    def _finish(self, slot: Slot) -> None:
        """Wait for the oldest batch, take its faces out of the slot and free it."""
        ticket = slot.ticket
        assert ticket is not None
        assert self._busy[0] is slot
        self.device.wait(slot.done)
        n = len(ticket.pictures)
        counts = slot.host["counts"][: 4 * n].view(np.int32).tolist()
        rows = [slot.host["heads"][i * HEAD * 20 :][: min(c, HEAD) * 20].copy() for i, c in enumerate(counts)]
        rare = [i for i, count in enumerate(counts) if count > HEAD]
        for i in rare:
            rows[i] = self.device.pinned(20 * counts[i])
            self.device.download(rows[i], slot.memory["faces"][0] + i * slot.boxes * 20, slot.stream)
        if rare:
            self.device.record(slot.done, slot.stream)
            self.device.wait(slot.done)
        faces = [row.view(np.float32).reshape(-1, 5) for row in rows]
        sure = [f[f[:, 4] >= self.threshold] for f in faces]
        ticket.found = [(np.array(f[:, :4]), np.array(f[:, 4])) for f in sure]
        self._busy.popleft()
        if not ticket.keep:
            slot.ticket = ticket.slot = None


def _room(picture: HostFrame) -> int:
    """Bytes of a picture in the upload, rounded up so that the next one is aligned."""
    return -(-packed_bytes(picture.layout, *picture.stored) // 256) * 256


def _planes(data: Array, picture: HostFrame) -> tuple[Array, ...]:
    """A picture's planes, as they were packed for the upload."""
    found, at = [], 0
    for plane in picture.planes:
        found.append(data[at : at + plane.size].reshape(plane.shape))
        at += plane.size
    return tuple(found)
