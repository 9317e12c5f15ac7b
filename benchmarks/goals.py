"""The goals for a job's cost, and how the results of several clips compare with them: a table and a chart."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facestream.benchmarks.job_bench import Bench
from PIL import Image, ImageDraw, ImageFont

LIMIT = 2.0  # times the CPU time of decoding and encoding alone, at most
MEMORY = 300.0  # MB of peak memory at FULL_HD, less than
DEFAULT = 8.0  # times our CPU time that deface takes with its defaults, at least
SMALL = 2.5  # the same at 640x360 with our encoder options
FULL_HD = 1080  # the memory goal applies to frames of at least this many lines
MEETS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, "<": operator.lt, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Goal:
    """name: heading of the column. sign, bound: the comparison that meets the goal. figure: the value of a result; None
    if it was not measured or has no goal."""

    name: str
    sign: str
    bound: float
    figure: Callable[[dict[str, Any]], float | None]

    def cell(self, result: dict[str, Any]) -> str:
        value = self.figure(result)
        return "-" if value is None else f"{value:.4g} {'yes' if MEETS[self.sign](value, self.bound) else 'no'}"


def _times(which: Callable[[list[str]], list[str]]) -> Callable[[dict[str, Any]], float | None]:
    """The CPU time of the baseline that `which` selects by name, divided by ours."""

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
    """A line per clip: CPU time, and each figure with a goal and whether it meets it."""
    heads = [f"{goal.name} {goal.sign} {goal.bound:g}" for goal in GOALS]
    rows = [["clip", "frames", "CPU s a frame", *heads]]
    for name, result in results.items():
        row = result.as_dict()
        rows.append([name, str(row["frames"]), f"{row['cpu_s_per_frame']:.4f}", *(goal.cell(row) for goal in GOALS)])
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0]) + "".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


WIDTH = 1000  # pixels of the chart
ROW_HEIGHT = 30  # pixels of a bar's line
NAME_WIDTH = 260  # pixels for a bar's name
FIGURE_WIDTH = 70  # pixels for a bar's value
OURS = "#2b7a78"
LIMIT_COLOUR = "#9aa5b1"
BASELINE = "#c8553d"
INK = "#222222"


def chart(results: dict[str, Bench], out: Path) -> None:
    """Write a bar chart of the CPU time per frame: of each clip the job, its lower limit and the baselines."""
    rows = {name: result.as_dict() for name, result in results.items()}
    bars = {name: _bars(row) for name, row in rows.items()}
    lines = sum(2 + len(of_clip) for of_clip in bars.values())
    image = Image.new("RGB", (WIDTH, ROW_HEIGHT * lines), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(15)
    bold = ImageFont.load_default(18)
    y = 0
    for name, of_clip in bars.items():
        frames = rows[name]["frames"]
        memory = rows[name]["peak_rss_mb"]
        head = f"{name}, {frames} frames: CPU milliseconds per frame; peak memory {memory:.0f} MB"
        draw.text((10, y + ROW_HEIGHT // 2), head, INK, bold, "lm")
        longest = max(of_clip.values())
        for index, (bar, ms) in enumerate(of_clip.items(), 1):
            middle = y + index * ROW_HEIGHT + ROW_HEIGHT // 2
            colour = BASELINE if bar.startswith("deface") else OURS
            end = NAME_WIDTH + round((WIDTH - NAME_WIDTH - FIGURE_WIDTH) * ms / longest)
            draw.text((NAME_WIDTH - 10, middle), bar, INK, font, "rm")
            draw.rectangle((NAME_WIDTH, middle - 9, end, middle + 9), LIMIT_COLOUR if index == 1 else colour)
            draw.text((end + 8, middle), f"{ms:.0f}", INK, font, "lm")
        y += (2 + len(of_clip)) * ROW_HEIGHT
    image.save(out)


def _bars(result: dict[str, Any]) -> dict[str, float]:
    """Each bar's name and length, in milliseconds."""
    rows = {"facestream": result}
    if "same_frames" in result:
        rows[f"facestream, {result['baseline_frames']} frames"] = result["same_frames"]
    rows |= result["peers"]
    ours = {name: 1000 * row["cpu_s_per_frame"] for name, row in rows.items()}
    return {"decode and encode alone": 1000 * result["limit_cpu_s_per_frame"], **ours}
