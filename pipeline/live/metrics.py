"""Metrics of a live run: for the preview page, and as Prometheus metrics. Extra `web`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from facestream.pipeline.connection import State
from facestream.pipeline.live.webcam_session import WebcamSessions

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
except ImportError:  # the extra is not installed; preview.check_web() says so
    pass


@dataclass(frozen=True, slots=True)
class CameraMetrics:
    """A camera's metrics. counts: name -> total so far; gauges: name -> value now. settings: Tuner.values.

    problems: current problems. latencies_s: histogram buckets, (upper bound in seconds, cumulative count of frames).
    latency_sum_s: sum of the latencies.
    """

    name: str
    state: State
    message: str
    counts: dict[str, int]
    gauges: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    latencies_s: tuple[tuple[float, int], ...] = ()
    latency_sum_s: float = 0.0


def metrics(camera_metrics: list[CameraMetrics], sessions: WebcamSessions | None) -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Collector(camera_metrics, sessions))
    return generate_latest(registry)


class Collector:
    """A Prometheus collector over the cameras' metrics."""

    def __init__(self, camera_metrics: list[CameraMetrics], sessions: WebcamSessions | None) -> None:
        self._camera_metrics = camera_metrics
        self._sessions = sessions

    def collect(self) -> Iterable[Any]:
        state = GaugeMetricFamily(
            "facestream_camera_state", "1 for the state that it is in", labels=["camera", "state"]
        )
        for camera_metrics in self._camera_metrics:
            for each in State:
                state.add_metric([camera_metrics.name, each], float(camera_metrics.state is each))
        yield state
        healthy = GaugeMetricFamily("facestream_camera_healthy", "1 while nothing is wrong with it", labels=["camera"])
        latency = HistogramMetricFamily(
            "facestream_latency_seconds", "from a picture's arrival until it may leave", labels=["camera"]
        )
        for camera in self._camera_metrics:
            healthy.add_metric([camera.name], float(not camera.problems))
            if camera.latencies_s:
                buckets = [("+Inf" if bound == math.inf else f"{bound:g}", n) for bound, n in camera.latencies_s]
                latency.add_metric([camera.name], buckets, camera.latency_sum_s)
        yield healthy
        yield latency
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
