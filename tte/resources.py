# SPDX-License-Identifier: Apache-2.0
"""Finds the C runtime and the boards: beside this file in a wheel, one folder up in a checkout."""

from __future__ import annotations

from pathlib import Path

from tte.errors import TteError


def runtime_dir() -> Path:
    """The folder that holds the runtime's `include/` and `src/`."""
    return _find("runtime_c")


def boards_dir() -> Path:
    """The folder that holds one folder per board."""
    return _find("boards")


def examples_dir() -> Path:
    """The folder of the examples: part of the source, not of a wheel."""
    folder = Path(__file__).resolve().parent.parent / "examples"
    if folder.is_dir() and (folder.parent / "pyproject.toml").is_file():
        return folder
    raise TteError(
        "the examples are not part of an installed tte",
        why="they come with its source",
        hint="run this from a source checkout, installed with: pip install -e .",
    )


def _find(name: str) -> Path:
    here = Path(__file__).resolve().parent
    for parent in (here, here.parent):
        if (parent / name).is_dir():
            return parent / name
    raise TteError(
        f"tte's own folder {name!r} is missing",
        where=str(here),
        why="the installation is incomplete",
        hint="install tte again from its source folder: pip install --force-reinstall .",
    )
