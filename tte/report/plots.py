# SPDX-License-Identifier: Apache-2.0
"""Plots of a report as PNG files; matplotlib is optional."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tte.errors import TteError

TOP_OPS = 20


def write_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes loss.png, instructions.png and memory.png, as far as the report has the numbers."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TteError("plots need matplotlib", hint="pip install matplotlib") from error
    written = []
    loss = report["training"]["loss"]
    if loss:
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="training step", ylabel="loss")
        axes.plot(range(1, len(loss) + 1), loss, linewidth=0.5, alpha=0.4, label="each step")
        span = max(1, len(loss) // 50)
        averages = [sum(loss[i : i + span]) / len(loss[i : i + span]) for i in
                    range(0, len(loss), span)]  # fmt: skip
        centres = [min(i + span / 2, len(loss)) for i in range(0, len(loss), span)]
        axes.plot(centres, averages, label=f"mean of {span} steps")
        axes.legend()
        written.append(save(figure, folder / "loss.png"))
    ops = sorted(report["instructions"]["by_op"], key=lambda op: op["instructions"])[-TOP_OPS:]
    if ops:
        figure = Figure(figsize=(8, 1 + 0.25 * len(ops)), layout="constrained")
        axes = figure.add_subplot(xlabel="instructions in one training step")
        axes.barh(range(len(ops)), [op["instructions"] for op in ops])
        # Names come from the model file: '$' would start a formula.
        names = [str(op["op"])[:50].replace("$", r"\$") for op in ops]
        axes.set_yticks(range(len(ops)), names)
        written.append(save(figure, folder / "instructions.png"))
    live = (report.get("plan") or {}).get("live") or []
    if live:
        figure = Figure(figsize=(8, 3.5), layout="constrained")
        axes = figure.add_subplot(xlabel="op of a training step", ylabel="arena bytes alive")
        axes.bar(range(len(live)), [entry["bytes"] for entry in live], width=1.0)
        axes.axhline(report["memory"]["arena_bytes"], color="black", linewidth=0.8, label="arena")
        axes.legend()
        written.append(save(figure, folder / "memory.png"))
    return written


def save(figure: Any, path: Path) -> Path:
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise TteError("the plot cannot be written", where=str(path), why=str(error)) from error
    return path
