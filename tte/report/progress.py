# SPDX-License-Identifier: Apache-2.0
"""A progress bar with the loss and the time left, for what takes longer than two seconds."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

PATIENCE_S = 2.0
SMOOTHING = 0.05  # share of a new loss in the shown average


class ProgressBar:
    """Shows one phase after another; silent on anything but a terminal."""

    def __init__(self, console: Console, enabled: bool = True) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (enabled and console.is_terminal),
        )
        self._task: TaskID | None = None
        self._loss: float | None = None
        self._started = time.monotonic()
        self._visible = False

    def phase(self, title: str, total: int) -> None:
        """Begins a phase of `total` steps; the one before it disappears."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(title, total=total, note="")
        self._loss = None

    def advance(self, loss: float | None = None) -> None:
        """One step is done."""
        if loss is not None:
            old = loss if self._loss is None else self._loss
            self._loss = old + SMOOTHING * (loss - old)
        if self._task is not None:
            note = "" if self._loss is None else f"loss {self._loss:.3f}"
            self._bar.update(self._task, advance=1, note=note)
        if not self._visible and time.monotonic() - self._started > PATIENCE_S:
            self._visible = True
            self._bar.start()

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(text, markup=False)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
