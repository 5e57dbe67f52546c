# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: the order in which the compiler works."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module imports only from earlier rows, or from its own package.
LAYERS = (
    ("errors",),
    ("resources", "files"),
    ("ir", "board", "data", "artifacts"),
    ("training",),
    ("program",),
    ("ops",),
    ("frontend", "passes", "reference", "export"),
    ("pipeline",),
    ("codegen",),
    ("build",),
    ("report",),
    ("device",),
    ("emulate", "search"),
    ("cli",),
    ("__main__",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

# Third-party packages and the parts that may import them.
RESERVED = {
    "distributed": {"search"},
    "onnx": {"frontend", "export"},
    "tflite": {"frontend"},
    "flatbuffers": {"frontend"},
    "ai_edge_litert": set(),
    "jinja2": {"codegen"},
    "unicorn": {"emulate"},
    "elftools": {"artifacts", "build", "emulate"},
    "typer": {"cli"},
    "rich": {"report"},
    "matplotlib": {"report"},
    "PIL": {"data"},
    "torch": set(),
    "onnxruntime": set(),
    "sklearn": set(),
    "scipy": {"search"},
}


def modules() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module of the package."""
    found = []
    for folder, package in (("tte", "tte"), ("codegen", "tte.codegen")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            found.append((".".join((package, *(p for p in inner if p != "__init__"))), path))
    return found


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import, wherever it stands in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


MODULES = modules()


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports(module: str, path: Path) -> None:
    part = [*module.split("."), ""][1]
    assert not part or part in RANK, f"{part} has no place in LAYERS"
    for line, name in imported(path):
        place = f"{path.relative_to(ROOT)}:{line} imports {name}"
        names = name.split(".")
        if names[0] in RESERVED:
            assert part in RESERVED[names[0]], place
        assert names[0] != "codegen", f"{place}: it is tte.codegen"
        if names[0] != "tte" or names[1] not in RANK:
            continue
        assert names[1] == part or RANK[names[1]] < RANK.get(part, -1), place
        if part == "passes" and names[1] == "passes":
            assert module == "tte.passes", f"{place}: passes never import one another"
