# SPDX-License-Identifier: Apache-2.0
"""What commands print: reports, tables, JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any


def show(report: dict[str, Any], json: Path | None, quiet: bool, top: int = 12) -> None:
    from tte.report.tables import console, print_report

    write_json(report, json)
    if not quiet and not to_stdout(json):
        print_report(report, console(), top)


def show_rows(
    title: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    facts: dict[str, Any],
    json: Path | None,
    quiet: bool,
) -> None:
    from tte.report.tables import console, plain_table

    write_json(facts, json)
    if not quiet and not to_stdout(json):
        console().print(plain_table(title, columns, rows))


def write_json(facts: dict[str, Any], json: Path | None) -> None:
    from tte.report.schema import to_json, write_json

    if to_stdout(json):
        sys.stdout.write(to_json(facts))
    elif json is not None:
        write_json(json, facts)


def to_stdout(json: Path | None) -> bool:
    return json is not None and str(json) == "-"


def name_of(choice: Enum | None) -> str | None:
    return None if choice is None else str(choice.value)


def times(shape: Any) -> str:
    return "×".join(map(str, shape))


def count(number: Any) -> str:
    return f"{number:,}"
