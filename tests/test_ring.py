"""The bounded queue between two threads, with real threads on both sides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction

import av
import pytest
from facestream.pipeline.ring import Cancelled, Policy, Ring
from facestream.pipeline.types import Frame, SidePacket
from hypothesis import given, settings
from hypothesis import strategies as st

PICTURE = av.VideoFrame(16, 16, "gray")


def frame(index: int) -> Frame:
    return Frame(index, index, Fraction(1, 30), PICTURE)


def in_thread(work: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, errors


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.001)


def join(thread: threading.Thread) -> None:
    thread.join(5)
    assert not thread.is_alive(), "the thread hangs"


pauses = st.lists(st.integers(0, 3), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 60), capacity=st.integers(1, 7), slow_put=pauses, slow_get=pauses)
def test_wait_loses_nothing_and_keeps_the_order(
    count: int, capacity: int, slow_put: list[int], slow_get: list[int]
) -> None:
    ring: Ring[int] = Ring(capacity, Policy.WAIT)
    fullest = 0

    def produce() -> None:
        for i in range(count):
            time.sleep(slow_put[i % len(slow_put)] / 20000)
            ring.put(i)
        ring.close()

    producer, errors = in_thread(produce)
    got = []
    for item in ring:
        got.append(item)
        fullest = max(fullest, ring.counts.inside)
        time.sleep(slow_get[item % len(slow_get)] / 20000)
    join(producer)
    assert not errors
    assert got == list(range(count))
    assert fullest <= capacity
    assert (ring.counts.put, ring.counts.got, ring.counts.dropped, ring.counts.inside) == (count, count, 0, 0)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), capacity=st.integers(1, 5), slow_put=pauses, slow_get=pauses)
def test_drop_oldest_gives_an_increasing_part_with_the_newest_last(
    count: int, capacity: int, slow_put: list[int], slow_get: list[int]
) -> None:
    ring: Ring[Frame] = Ring(capacity, "drop-oldest")

    def produce() -> None:
        for i in range(count):
            time.sleep(slow_put[i % len(slow_put)] / 20000)
            ring.put(frame(i))
        ring.close()

    producer, errors = in_thread(produce)
    got = []
    for item in ring:
        got.append(item.index)
        time.sleep(slow_get[item.index % len(slow_get)] / 20000)
    join(producer)
    assert not errors
    assert got == sorted(set(got))
    assert got[-1] == count - 1
    counts = ring.counts
    assert counts.put == count
    assert counts.got == len(got)
    assert counts.got + counts.dropped == counts.put


def test_drop_oldest_drops_when_full_and_never_waits() -> None:
    ring: Ring[Frame] = Ring(3, Policy.DROP_OLDEST)
    for i in range(10):
        ring.put(frame(i))  # no consumer: waiting here would hang the test
    ring.close()
    assert [item.index for item in ring] == [7, 8, 9]
    assert ring.counts.dropped == 7


def test_drop_oldest_spares_side_packets_and_keeps_their_place() -> None:
    ring: Ring[Frame | SidePacket] = Ring(2, Policy.DROP_OLDEST)
    packets = [SidePacket(av.Packet(b"x")) for _ in range(4)]
    for i, packet in enumerate(packets):
        ring.put(packet)
        ring.put(frame(i))
    ring.close()
    assert [item if isinstance(item, SidePacket) else item.index for item in ring] == [
        packets[0],
        packets[1],
        packets[2],
        2,
        packets[3],
        3,
    ]


def test_side_packets_wait_in_the_end_when_nobody_takes_them() -> None:
    ring: Ring[SidePacket] = Ring(1, Policy.DROP_OLDEST)
    packet = SidePacket(av.Packet(b"x"))

    def produce() -> None:
        for _ in range(Ring.PASSENGERS + 1):
            ring.put(packet)

    producer, errors = in_thread(produce)
    wait_until(lambda: ring.counts.put == Ring.PASSENGERS)
    producer.join(0.05)
    assert producer.is_alive()
    ring.get()
    join(producer)
    assert not errors


def test_put_waits_for_room() -> None:
    ring: Ring[int] = Ring(1)
    ring.put(0)
    producer, errors = in_thread(lambda: ring.put(1))
    producer.join(0.05)
    assert producer.is_alive()
    assert ring.get() == 0
    join(producer)
    assert not errors
    assert ring.get() == 1


def test_an_error_comes_after_the_items_before_it() -> None:
    ring: Ring[int] = Ring(5)
    ring.put(1)
    ring.put(2)
    ring.fail(RuntimeError("camera gone"))
    got = []
    with pytest.raises(RuntimeError, match="camera gone"):
        got.extend(item for item in ring)
    assert got == [1, 2]


def test_an_error_wakes_a_waiting_consumer() -> None:
    ring: Ring[int] = Ring(5)
    consumer, errors = in_thread(lambda: list(ring) and None)
    consumer.join(0.02)
    ring.fail(RuntimeError("camera gone"))
    join(consumer)
    assert [str(error) for error in errors] == ["camera gone"]


def test_cancel_wakes_a_waiting_producer() -> None:
    ring: Ring[int] = Ring(1)
    ring.put(0)
    producer, errors = in_thread(lambda: ring.put(1))
    producer.join(0.02)
    ring.cancel()
    join(producer)
    assert [type(error) for error in errors] == [Cancelled]
    with pytest.raises(Cancelled):
        ring.put(2)


def test_cancel_wakes_a_waiting_consumer_and_forgets_what_is_inside() -> None:
    ring: Ring[int] = Ring(1)
    consumer, errors = in_thread(lambda: [None for _ in ring] and None)
    consumer.join(0.02)
    ring.cancel()
    join(consumer)
    assert [type(error) for error in errors] == [Cancelled]
    full: Ring[int] = Ring(3)
    full.put(1)
    full.cancel()
    with pytest.raises(Cancelled):
        full.get()
    assert (full.counts.put, full.counts.dropped, full.counts.inside) == (1, 1, 0)


def test_waiting_costs_no_cpu() -> None:
    ring: Ring[int] = Ring(1)
    consumer, _ = in_thread(lambda: list(ring) and None)
    before = time.process_time()
    time.sleep(0.3)
    spent = time.process_time() - before
    ring.close()
    join(consumer)
    assert spent < 0.1


def test_misuse_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ring(0)
    with pytest.raises(ValueError, match="sometimes"):
        Ring(1, "sometimes")
    ring: Ring[int] = Ring(1)
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        ring.put(1)
