"""A bounded queue between two threads. When full it waits (files) or drops the oldest frame (live: drop when late)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame

T = TypeVar("T")


class Policy(StrEnum):
    """What happens when the queue is full."""

    WAIT = "wait"  # the producer waits: no frame is lost (files)
    DROP_OLDEST = "drop-oldest"  # the oldest frame is dropped, so that the newest is never late (live)


class Cancelled(Exception):
    """The other thread has ended, or the work was stopped."""


@dataclass(frozen=True, slots=True)
class RingCounts:
    """Items put, got and dropped so far, and currently inside: put == got + dropped + inside."""

    put: int
    got: int
    dropped: int
    inside: int


def is_frame(item: object) -> bool:
    """Whether drop-oldest may drop an item: a frame at any stage, never a packet or a message."""
    return isinstance(item, Frame | TrackedFrame | CoveredFrame)


class Ring(Generic[T]):
    """Bounded first-in first-out queue between one producer and one consumer thread.

    With `wait` it holds up to `capacity` items. With `drop-oldest` it holds up to `capacity` droppable items; of the
    others, which may not be dropped, it holds up to PASSENGERS for each of those before put() waits after all, so that
    a consumer that hangs cannot fill the memory with audio packets.
    """

    PASSENGERS = 64

    def __init__(
        self, capacity: int, policy: Policy | str = Policy.WAIT, droppable: Callable[[T], bool] = is_frame
    ) -> None:
        if capacity < 1:
            raise ValueError("a ring holds at least one item")
        self.capacity = capacity
        self.policy = Policy(policy)
        self._droppable = droppable
        self._items: deque[T] = deque()
        self._frames_inside = 0  # droppable ones
        self._put = self._got = self._dropped = 0
        self._error: BaseException | None = None
        self._closed = self._cancelled = False
        lock = threading.Lock()
        self._room = threading.Condition(lock)
        self._ready = threading.Condition(lock)

    def put(self, item: T) -> None:
        """Add an item; waits or drops according to the policy.

        Raises Cancelled if the consumer has ended, ValueError after close() or fail().
        """
        with self._room:
            if self.policy is Policy.DROP_OLDEST and self._droppable(item) and not self._cancelled:
                self._make_room()
            while not self._cancelled and self._full(item):
                self._room.wait()
            if self._cancelled:
                raise Cancelled
            if self._closed:
                raise ValueError("put() into a closed ring")
            self._items.append(item)
            self._frames_inside += self._droppable(item)
            self._put += 1
            self._ready.notify()

    def get(self) -> T:
        """Take the oldest item, waiting for one.

        Raises EOFError at the end of the stream, the producer's own exception after fail(), Cancelled after cancel().
        """
        with self._ready:
            while not (self._items or self._closed or self._cancelled):
                self._ready.wait()
            if self._cancelled:
                raise Cancelled
            if not self._items:
                if self._error is not None:
                    raise self._error
                raise EOFError
            item = self._items.popleft()
            self._frames_inside -= self._droppable(item)
            self._got += 1
            self._room.notify()
            return item

    def __iter__(self) -> Iterator[T]:
        """Items until the end of the stream; raises what get() raises, except the end itself."""
        while True:
            try:
                item = self.get()
            except EOFError:
                if self._error is not None:  # the producer's own EOFError is an error like any other
                    raise
                return
            yield item
            del item

    def close(self) -> None:
        """The producer has put its last item: the consumer gets what is inside, then the end."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def fail(self, error: BaseException) -> None:
        """The producer broke: the consumer gets what is inside, then the error."""
        with self._ready:
            self._error = error
            self._closed = True
            self._ready.notify_all()

    def cancel(self) -> None:
        """Stop both sides at once, from any thread; what is inside is forgotten."""
        with self._ready:
            self._cancelled = True
            self._dropped += len(self._items)
            self._items.clear()  # frames are large: free them now, not when the last thread lets go
            self._frames_inside = 0
            self._ready.notify_all()
            self._room.notify_all()

    @property
    def counts(self) -> RingCounts:
        with self._room:
            return RingCounts(self._put, self._got, self._dropped, len(self._items))

    def _full(self, item: T) -> bool:
        if self.policy is Policy.WAIT:
            return len(self._items) >= self.capacity
        if self._droppable(item):
            return False
        return len(self._items) - self._frames_inside >= self.capacity * self.PASSENGERS

    def _make_room(self) -> None:
        if self._frames_inside < self.capacity:
            return
        for at, item in enumerate(self._items):
            if self._droppable(item):
                del self._items[at]
                self._frames_inside -= 1
                self._dropped += 1
                return
