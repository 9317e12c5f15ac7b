"""A live run's figures, for the page and as Prometheus wants them. Extra `web`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from facestream.pipeline.connection import State
from facestream.pipeline.live.webcam_session import WebcamSessions

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ImportError:  # the extra is not installed; preview.check_web() says so
    pass


@dataclass(frozen=True, slots=True)
class CameraMetrics:
    """A camera's figures. counts: name -> total so far; gauges: name -> value now. settings: Tuner.shown."""

    name: str
    state: State
    message: str
    counts: dict[str, int]
    gauges: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)


def metrics(camera_metrics: list[CameraMetrics], sessions: WebcamSessions | None) -> bytes:
    """In Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Collector(camera_metrics, sessions))
    return generate_latest(registry)


class Collector:
    """Figures as Prometheus wants them."""

    def __init__(self, camera_metrics: list[CameraMetrics], sessions: WebcamSessions | None) -> None:
        self._camera_metrics, self._sessions = camera_metrics, sessions

    def collect(self) -> Iterable[Any]:
        state = GaugeMetricFamily(
            "facestream_camera_state", "1 for the state that it is in", labels=["camera", "state"]
        )
        for camera_metrics in self._camera_metrics:
            for each in State:
                state.add_metric([camera_metrics.name, each], float(camera_metrics.state is each))
        yield state
        for name in sorted({name for camera_metrics in self._camera_metrics for name in camera_metrics.counts}):
            count = CounterMetricFamily(f"facestream_{name}", name.replace("_", " "), labels=["camera"])
            for camera_metrics in self._camera_metrics:
                count.add_metric([camera_metrics.name], camera_metrics.counts.get(name, 0))
            yield count
        for name in sorted({name for camera_metrics in self._camera_metrics for name in camera_metrics.gauges}):
            gauge = GaugeMetricFamily(f"facestream_{name}", name.replace("_", " "), labels=["camera"])
            for camera_metrics in self._camera_metrics:
                gauge.add_metric([camera_metrics.name], camera_metrics.gauges.get(name, 0.0))
            yield gauge
        if self._sessions is not None:
            yield GaugeMetricFamily("facestream_webcam_sessions", "browsers with a camera now", self._sessions.active)
            yield CounterMetricFamily("facestream_webcam_sessions_refused", "for want of room", self._sessions.refused)
