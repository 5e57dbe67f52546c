# SPDX-License-Identifier: Apache-2.0
"""A report as tables of at most 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TOP_OPS = 12
WIDTH = 100

_MEMORY_ROWS = (
    ("arena (activations, gradients)", "arena_bytes", None),
    ("trained weights and residuals", "trainable_bytes", None),
    ("static data (.data + .bss)", "static_bytes", None),
    ("stack, high-water mark", "stack_bytes", None),
    ("SRAM, everything", "sram_bytes", "sram_limit_bytes"),
    ("flash", "flash_bytes", "flash_limit_bytes"),
)


def console(*, stderr: bool = False) -> Console:
    """A console that never makes a table wider than 100 columns."""
    made = Console(stderr=stderr, highlight=False)
    if made.width > WIDTH or not made.is_terminal:
        made.width = WIDTH
    return made


def print_report(report: Mapping[str, Any], out: Console, top: int = TOP_OPS) -> None:
    """Everything that the report knows; sections without a value are left out."""
    emulator = report["emulator"]
    parts = [report["model"]["name"], f"{report['board']} ({report['cpu']})"]
    parts += [report["compiler"]] if report["compiler"] else []
    if emulator["name"]:
        parts.append(f"{emulator['name']} {emulator['version'] or ''}".rstrip())
    out.print(escape(", ".join(str(part) for part in parts)), style="bold", soft_wrap=True)
    if report["training"].get("loss_function"):
        out.print(escape(_objective_text(report["training"])), soft_wrap=True)
    if report["training"]["steps"] or report["training"]["accuracy_before"] is not None:
        out.print(training_table(report))
    out.print(memory_table(report))
    if report.get("plan"):
        out.print(peak_table(report))
        if report["plan"]["streams"]:
            out.print(streams_table(report))
    if report["instructions"]["train_step"] is not None:
        out.print(instructions_table(report, top))


def training_table(report: Mapping[str, Any]) -> Table:
    """Accuracy or error on the test part before and after, loss at the start and the end."""
    training = report["training"]
    metric = training.get("metric") or {
        "name": "accuracy",
        "before": training["accuracy_before"],
        "after": training["accuracy_after"],
    }
    name = metric["name"] or "accuracy"
    show = _percent if name.endswith("accuracy") else _number
    table = _table("Training")
    for column in ("steps", "learning rate", "loss", f"{name} before", f"{name} after"):
        table.add_column(column, justify="right")
    table.add_row(
        f"{training['steps']:,}",
        "-" if training["learning_rate"] is None else f"{training['learning_rate']:g}",
        _loss_text(training["loss"]),
        show(metric["before"]),
        show(metric["after"]),
    )
    saturated = sum((training["saturations"] or {}).values())
    if saturated:
        table.caption = f"{saturated:,} gradient values were saturated"
    return table


def memory_table(report: Mapping[str, Any]) -> Table:
    """What the firmware takes of SRAM and flash."""
    memory = report["memory"]
    table = _table("Memory")
    table.add_column("what")
    for column in ("bytes", "limit", "used"):
        table.add_column(column, justify="right")
    optimizer = report["training"]["optimizer"]
    gathers = optimizer.get("momentum", 0) > 0 or optimizer.get("batch", 1) > 1
    for title, key, limit_key in _MEMORY_ROWS:
        if key == "trainable_bytes" and gathers:
            title = "trained weights, residuals, velocities"
        used, limit = memory[key], memory[limit_key] if limit_key else None
        share = f"{100 * used / limit:.1f} %" if used is not None and limit else ""
        table.add_row(title, _count(used), "" if limit is None else _count(limit), share)
    return table


def peak_table(report: Mapping[str, Any], top: int = 6) -> Table:
    """What is alive where the arena is fullest."""
    plan, arena = report["plan"], report["memory"]["arena_bytes"]
    table = _table(f"Peak of the arena, at {plan['peak_op']}")
    table.add_column("alive")
    table.add_column("bytes", justify="right")
    for entry in plan["peak"][:top]:
        table.add_row(escape(entry["tensor"]), _count(entry["bytes"]))
    rest = plan["peak"][top:]
    if rest:
        table.add_row(f"{len(rest)} more", _count(sum(entry["bytes"] for entry in rest)))
    bound, proven = plan["arena_lower_bound_bytes"], plan["arena_proven_bytes"]
    if arena == bound:
        verdict = "no placement is smaller"
    elif arena == proven:
        verdict = f"{arena - bound:,} more, but all placements were tried and none is smaller"
    else:
        verdict = (
            f"{arena - bound:,} more; none below {proven:,} is possible, and the search for one "
            f"below {arena:,} was given up"
        )
    table.caption = f"{bound:,} bytes alive, arena {arena:,}: {verdict}"
    return table


def streams_table(report: Mapping[str, Any]) -> Table:
    """Chains that run in bands of rows, and what each is worth."""
    table = _table("Streamed chains")
    table.add_column("layers")
    for column in ("rows a band", "peak with", "without", "extra instructions, predicted"):
        table.add_column(column, justify="right")
    for entry in report["plan"]["streams"]:
        table.add_row(
            escape(entry["chain"]),
            str(entry["band_rows"]),
            _count(entry["peak_bytes"]),
            _count(entry["peak_without_bytes"]),
            _count(entry["extra_instructions"]),
        )
    return table


def instructions_table(report: Mapping[str, Any], top: int = TOP_OPS) -> Table:
    """Totals, and the ops of a training step that take most."""
    section = report["instructions"]
    step = section["train_step"]
    table = _table("Instructions")
    table.add_column("op", overflow="ellipsis", no_wrap=True, max_width=28)
    table.add_column("kernel", overflow="ellipsis", no_wrap=True, max_width=27)
    for column, width in (("MACs", 10), ("instructions", 13), ("share", 6)):
        table.add_column(column, justify="right", no_wrap=True, min_width=width)
    table.add_row("[bold]one inference[/]", "", "", _count(section["inference"]), "")
    table.add_row("[bold]one training step[/]", "", "", _count(step), "")
    ops = sorted(section["by_op"], key=lambda op: -(op["instructions"] or 0))
    for op in ops[:top]:
        share = f"{100 * op['instructions'] / step:.1f} %" if step else ""
        name, kernel = escape(str(op["op"])), escape(str(op["kernel"]).removeprefix("tte_"))
        table.add_row(name, kernel, _count(op["macs"]), _count(op["instructions"]), share)
    rest = ops[top:]
    if rest:
        macs = sum(op["macs"] or 0 for op in rest)
        count = sum(op["instructions"] for op in rest)
        share = f"{100 * count / step:.1f} %" if step else ""
        table.add_row(f"{len(rest)} more", "", _count(macs), _count(count), share)
    return table


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of texts; a column whose name starts with '#' holds numbers."""
    table = _table(title)
    for column in columns:
        table.add_column(column.lstrip("#"), justify="right" if column[0] == "#" else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", caption_justify="left")


def _loss_text(loss: list[float]) -> str:
    if not loss:
        return "-"
    span = max(1, min(50, len(loss) // 4))
    return f"{_number(sum(loss[:span]) / span)} → {_number(sum(loss[-span:]) / span)}"


def _objective_text(training: Mapping[str, Any]) -> str:
    """`loss mse; SGD, momentum 0.9, batch 8`: what is not plain is said."""
    optimizer = training["optimizer"]
    parts = ["SGD"]
    for key, plain, text in _OPTIMIZER:
        if optimizer.get(key, plain) != plain:
            parts.append(f"{text} {optimizer[key]}")
    return f"loss {training['loss_function']}; {', '.join(parts)}"


_OPTIMIZER = (
    ("momentum", 0.0, "momentum"),
    ("batch", 1, "batch"),
    ("weight_decay", 0.0, "weight decay"),
    ("schedule", "constant", "learning rate"),
)


def _number(value: float | None) -> str:
    """Four digits, zeros at the end too."""
    return "-" if value is None else f"{value:#.4g}".rstrip(".")


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
