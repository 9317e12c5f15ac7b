"""Pictures of a training run."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def training_curve(log: Path, out: Path) -> None:
    """Draw the losses of a log.jsonl against the step, smoothed over ten entries, as a PNG."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [r["step"] for r in rows]
    fig, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for key in ("loss", "classes", "boxes"):
        values = [r[key] for r in rows]
        smooth = [sum(values[max(0, i - 9) : i + 1]) / len(values[max(0, i - 9) : i + 1]) for i in range(len(values))]
        (line,) = axes.plot(steps, smooth, label=key)
        axes.plot(steps, values, color=line.get_color(), alpha=0.2, linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=f"{log.parent.name}: training loss")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    fig.savefig(out, dpi=120)
    plt.close(fig)
