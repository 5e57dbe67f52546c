# SPDX-License-Identifier: Apache-2.0
"""Errors meant for the user: what happened, where, why, and the way out.

Anything that is the input's or the machine's fault is raised as a `TteError`; the command line
prints it and exits with `exit_status`. Every other exception is a defect of tte itself.
"""

from __future__ import annotations


class TteError(Exception):
    """One clear message. `what` is one sentence; `where` names a file, node or address."""

    exit_status = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what, where, why, hint)
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        fields = {"what": self.what, "where": self.where, "why": self.why, "hint": self.hint}
        return (_rebuild, (type(self), fields))

    def render(self) -> str:
        """The message, one field a line; continuation lines are indented under their field."""
        lines = [self.what]
        for label, text in (("where", self.where), ("why", self.why), ("hint", self.hint)):
            if text:
                lines.append(f"  {label + ':':<7}" + text.replace("\n", "\n" + " " * 9))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class UsageError(TteError):
    """The command line itself is wrong."""

    exit_status = 2


class DoesNotFit(TteError):
    """The program needs more memory than the board or the given budget has."""

    exit_status = 3


class FirmwareFault(TteError):
    """The firmware faulted: a bad access, a stack overflow, an unexpected stop."""

    exit_status = 4


def _rebuild(kind: type[TteError], fields: dict[str, str]) -> TteError:
    return kind(**fields)
