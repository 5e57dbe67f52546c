# SPDX-License-Identifier: Apache-2.0
"""What `tte search` found, as tables and a plot."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tte.report.plots import save
from tte.report.tables import plain_table


def print_search(facts: Mapping[str, Any], output: Path, out: Console) -> None:
    """Contributions by layer, the front, and what was chosen."""
    out.print(plain_table(f"Contributions, {facts['unit']}", *_layers(facts)))
    out.print(plain_table("Bytes against gain", *_points(facts["front"], "gain")))
    if facts["finalists"]:
        out.print(plain_table("Finalists, held-out samples", *_points(facts["finalists"], "score")))
    best = facts["best"]
    text = f"{output}: {best['sram_bytes']:,} bytes, {best['instructions']:,} instructions a step"
    out.print(text, highlight=False, markup=False, soft_wrap=True)
    if facts["gap"] is not None:
        out.print(f"proven: no candidate's gain is more than {100 * facts['gap']:.2f} % higher")
    if facts["rank_correlation"] is not None:
        out.print(f"rank correlation with the Fisher proxy: {facts['rank_correlation']:.2f}")


def _layers(facts: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    ratios = [f"#{ratio:g}" for ratio in facts["ratios"]]
    columns = ("layer", "#biases from here", *ratios, "#bytes", "trained")
    rows: list[tuple[str, ...]] = []
    for layer in facts["layers"]:
        parts = ["bias"] if layer["bias"] else []
        parts += [f"weights × {layer['weight']:g}"] if layer["weight"] else []
        gains = [f"{gain:.4f}" for gain in layer["gain"]]
        size = f"{layer['bytes'][-1]:,}"
        rows.append((layer["layer"], f"{layer['bias_gain']:.4f}", *gains, size, ", ".join(parts)))
    return columns, rows


def _points(
    points: Sequence[Mapping[str, Any]], worth: str
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows: list[tuple[str, ...]] = []
    for index, point in enumerate(points):
        entries = point["update"]["layers"].values()
        weights = sum(1 for entry in entries if entry.get("weight") or entry.get("channels"))
        rows.append(
            (
                str(index),
                f"{point['sram_bytes']:,}",
                f"{point['instructions']:,}",
                f"{point[worth]:.4f}",
                f"{len(point['update']['layers'])}",
                f"{weights}",
            )
        )
    return ("point", "#SRAM", "#instructions", f"#{worth}", "#layers", "#with weights"), rows


def write_search_plot(facts: Mapping[str, Any], path: Path) -> Path | None:
    """Contribution by layer, and the front; None without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    layers = facts["layers"]
    figure = Figure(figsize=(10, 7), layout="constrained")
    top, bottom = figure.subplots(2, 1)
    for index, ratio in enumerate(facts["ratios"]):
        gains = [layer["gain"][index] for layer in layers]
        top.bar(range(len(layers)), gains, width=0.85 - 0.2 * index, label=f"{ratio:g}")
    names = [layer["layer"][:30].replace("$", r"\$") for layer in layers]
    top.set_xticks(range(len(layers)), names, rotation=90, fontsize=6)
    top.set_ylabel(f"gain of weights, {facts['unit']}")
    top.legend(title="share of channels")
    front = facts["front"]
    sizes, gains = ([point[key] for point in front] for key in ("sram_bytes", "gain"))
    bottom.plot(sizes, gains, marker="o")
    bottom.set_xlabel("bytes of SRAM")
    bottom.set_ylabel(f"gain, {facts['unit']}")
    return save(figure, path)
