"""A camera that must not be affected when another one fails, and text that must never be written."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from facestream.pipeline.connection import State

from tests.servers import Watched


@pytest.fixture(autouse=True)
def neighbour(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A healthy camera beside each test: it loses and misses nothing, however the test's own camera fares.

    And nothing that is written, logged or raised on any thread while the test runs may hold its password.
    """
    raised: list[str] = []
    hook, threading.excepthook = threading.excepthook, lambda given: raised.append(repr(given))
    try:
        with Watched("lavfi:testsrc2=size=64x48:rate=20", "neighbour", stall_s=3.0) as healthy:
            healthy.wait(State.LIVE)
            yield
            healthy.wait_frames(2)
    finally:
        threading.excepthook = hook
    status = healthy.camera.status
    assert (status.losses, status.stalls, status.hangs, status.connects) == (0, 0, 0, 1)
    assert [index for index, _, _ in healthy.frames] == list(range(len(healthy.frames)))
    assert not raised
    written = capfd.readouterr()
    assert "secret" not in written.out + written.err + caplog.text
