"""A live run's figures, for the page and as Prometheus wants them. Extra `web`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from facestream.pipeline.live.state import State
from facestream.pipeline.live.visitor import Visitors

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ImportError:  # the extra is not installed; preview.check_web() says so
    pass


@dataclass(frozen=True, slots=True)
class Figure:
    """A camera's figures. counts: name -> total so far; gauges: name -> value now. settings: Tuner.shown."""

    name: str
    state: State
    message: str
    counts: dict[str, int]
    gauges: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)


def metrics(figures: list[Figure], visitors: Visitors | None) -> bytes:
    """In Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Collector(figures, visitors))
    return generate_latest(registry)


class Collector:
    """Figures as Prometheus wants them."""

    def __init__(self, figures: list[Figure], visitors: Visitors | None) -> None:
        self._figures, self._visitors = figures, visitors

    def collect(self) -> Iterable[Any]:
        state = GaugeMetricFamily(
            "facestream_camera_state", "1 for the state that it is in", labels=["camera", "state"]
        )
        for figure in self._figures:
            for each in State:
                state.add_metric([figure.name, each], float(figure.state is each))
        yield state
        for name in sorted({name for figure in self._figures for name in figure.counts}):
            count = CounterMetricFamily(f"facestream_{name}", name.replace("_", " "), labels=["camera"])
            for figure in self._figures:
                count.add_metric([figure.name], figure.counts.get(name, 0))
            yield count
        for name in sorted({name for figure in self._figures for name in figure.gauges}):
            gauge = GaugeMetricFamily(f"facestream_{name}", name.replace("_", " "), labels=["camera"])
            for figure in self._figures:
                gauge.add_metric([figure.name], figure.gauges.get(name, 0.0))
            yield gauge
        if self._visitors is not None:
            yield GaugeMetricFamily("facestream_visitors", "browsers with a camera now", self._visitors.here)
            yield CounterMetricFamily("facestream_visitors_refused", "for want of room", self._visitors.refused)
