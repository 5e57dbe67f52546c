# SPDX-License-Identifier: Apache-2.0
"""The report of a run, `tte-report/1`: every key is always there, null where nothing is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tte.errors import TteError
from tte.files import write_whole

SCHEMA = "tte-report/1"
REPORT_NAME = "report.json"


def memory_section(
    program: Mapping[str, Any],
    *,
    static_bytes: int | None = None,
    flash_bytes: int | None = None,
    stack_bytes: int | None = None,
) -> dict[str, int | None]:
    """`sram_bytes` is everything: static data and the measured stack; null until both are known.

    A stack of 0 bytes means that it was not measured.
    """
    planned = program["memory"]
    stack = stack_bytes or None
    known = static_bytes is not None and stack is not None
    return {
        "arena_bytes": planned["arena_bytes"],
        "trainable_bytes": planned["trainable_bytes"],
        "static_bytes": static_bytes,
        "stack_bytes": stack,
        "sram_bytes": (static_bytes or 0) + (stack or 0) if known else None,
        "flash_bytes": flash_bytes,
        "sram_limit_bytes": planned["sram_limit_bytes"],
        "flash_limit_bytes": planned["flash_limit_bytes"],
    }


def instructions_section(
    inference: int | None = None,
    train_step: int | None = None,
    by_op: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Executed instructions, never cycles. `by_op` is the training step, op by op."""
    return {"inference": inference, "train_step": train_step, "by_op": [dict(op) for op in by_op]}


def training_section(
    *,
    steps: int = 0,
    learning_rate: float | None = None,
    loss: Sequence[float] = (),
    accuracy_before: float | None = None,
    accuracy_after: float | None = None,
    metric: Mapping[str, Any] | None = None,
    saturations: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """`loss` holds one value per step; accuracies are fractions of the whole test part, null where
    there are no classes. `metric`: what fits the loss, its name and values before and after."""
    return {
        "steps": steps,
        "learning_rate": learning_rate,
        "loss": list(loss),
        "accuracy_before": accuracy_before,
        "accuracy_after": accuracy_after,
        "metric": dict(metric or {"name": None, "before": None, "after": None}),
        "saturations": None if saturations is None else dict(saturations),
    }


def build_report(
    program: Mapping[str, Any],
    *,
    memory: Mapping[str, int | None],
    compiler: str | None = None,
    emulator: str | None = None,
    emulator_version: str | None = None,
    instructions: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    state_sha256: str | None = None,
) -> dict[str, Any]:
    """The report of a program (its program.json) and of what was measured."""
    return {
        "schema": SCHEMA,
        "model": {"name": program["model"]["name"], "sha256": program["model"]["sha256"]},
        "board": program["board"],
        "cpu": program["cpu"],
        "compiler": compiler,
        "emulator": {"name": emulator, "version": emulator_version},
        "memory": dict(memory),
        "plan": dict(program.get("plan") or {}),
        "instructions": dict(instructions or instructions_section()),
        "training": {**(training or training_section()), **_objective(program)},
        "state_sha256": state_sha256,
    }


def _objective(program: Mapping[str, Any]) -> dict[str, Any]:
    """What training minimises, and how, from program.json."""
    return {
        "loss_function": (program.get("loss") or {}).get("name"),
        "optimizer": dict(program.get("optimizer") or {}),
    }


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Writes `path` whole or not at all."""
    write_whole(path, to_json(report).encode(), "the report")


def to_json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def read_report(project_dir: Path) -> dict[str, Any]:
    """The last report of a project."""
    path = project_dir / REPORT_NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TteError(
            "there is no report yet",
            where=str(path),
            hint=f"tte emulate {project_dir} --data DATA writes one",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise TteError("the report cannot be read", where=str(path), why=str(error)) from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise TteError(
            "the file is no report that this version reads",
            where=str(path),
            why=f"its schema is not {SCHEMA}",
            hint="run tte emulate again",
        )
    return report
