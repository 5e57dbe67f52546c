# SPDX-License-Identifier: Apache-2.0
"""Values as C text. Nothing from a model file reaches C but through these functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

COLUMNS = 96
C_KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while main".split()
)


def identifier(name: str) -> str:
    """A valid C identifier that resembles `name`."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name.replace("'", ""))[:80]
    text = re.sub(r"__+", "_", text).strip("_")
    if not text or text[0].isdigit() or text in C_KEYWORDS:
        text = f"t_{text}"
    return text


def comment(text: str) -> str:
    """`text` made harmless inside a C comment: printable ASCII without `*` and backslash."""
    return re.sub(r"[^A-Za-z0-9 .,:;()\[\]<>=+_/'-]", "_", text)[:160]


class Names:
    """Gives every tensor one unique identifier."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        if name not in self._known:
            base = identifier(name)
            found, count = base, 2
            while found in self._taken:
                found, count = f"{base}_{count}", count + 1
            self._taken.add(found)
            self._known[name] = found
        return self._known[name]


def rows(values: Sequence[str]) -> list[str]:
    """Comma-separated values in lines of at most 96 columns, indented by four."""
    lines: list[str] = []
    line = "   "
    for value in values:
        if len(line) + len(value) + 2 > COLUMNS:
            lines.append(line)
            line = "   "
        line += f" {value},"
    lines.append(line)
    return lines


def numbers(data: np.ndarray[Any, Any] | Sequence[int]) -> list[str]:
    """Integers as C initialiser lines."""
    return rows([_number(int(value)) for value in np.asarray(data).reshape(-1)])


def text(data: np.ndarray[Any, Any]) -> list[str]:
    """int8 as one string literal, which a compiler reads several times as fast as numbers."""
    return ['    "' + "".join(map(_OCTAL.__getitem__, data.tobytes())) + '"']


_OCTAL = [f"\\{value:03o}" for value in range(256)]


def _number(value: int) -> str:
    return "INT32_MIN" if value == -(2**31) else str(value)


def factors(values: Iterable[tuple[int, int]]) -> list[str]:
    """tte_factor initialiser lines."""
    return rows([f"{{{mantissa}, {exponent}}}" for mantissa, exponent in values])


def struct(params: Any) -> str:
    """A params dataclass as a designated initialiser."""
    parts = []
    for field in fields(params):
        value = getattr(params, field.name)
        text = struct(value) if hasattr(value, "__dataclass_fields__") else str(int(value))
        parts.append(f".{field.name} = {text}")
    return "{" + ", ".join(parts) + "}"
