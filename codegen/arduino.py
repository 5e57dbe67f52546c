# SPDX-License-Identifier: Apache-2.0
"""The network of a project as an Arduino library: its kernels, src/ and an example.

The library holds the network alone: a sketch has its own serial line and its own memory. Everything
lies in src/, which is the one folder that headers are looked for in, and every .c below it is
compiled: so a portable kernel that a faster one includes is called .inc there.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from tte import __version__
from tte.codegen.project import network_kernels, render

NETWORK = ("model.c", "model.h", "data.c", "data.h")


def arduino_library(project_dir: Path, program: dict[str, Any]) -> dict[str, str]:
    """All files: relative path -> text."""
    names = [
        path.relative_to(project_dir).as_posix()
        for path in sorted(project_dir.glob("kernels/**/*.[chS]"))
    ]
    compiled = {*network_kernels(names)}
    library = {}
    for name in [*names, *(f"src/{name}" for name in NETWORK)]:
        text = (project_dir / name).read_text(encoding="utf-8")
        place = str(PurePosixPath("src", *PurePosixPath(name).parts[1:]))
        if name.startswith("kernels/") and name.endswith(".c") and name not in compiled:
            place = place.removesuffix(".c") + ".inc"
        library[place] = re.sub(r'(#include "\.\./\w+)\.c"', r'\1.inc"', text)
    name = re.sub(r"\W+", "_", str(program["model"]["name"])).strip("_") or "model"
    values: dict[str, object] = {
        "name": f"tte_{name}",
        "version": __version__,
        "board": program["board"],
        "cpu": program["cpu"],
        "has_label": program["target"]["kind"] == "label",
    }
    library[f"src/tte_{name}.h"] = render("arduino/library.h.j2", values)
    library["library.properties"] = render("arduino/library.properties.j2", values)
    library["examples/Train/Train.ino"] = render("arduino/Train.ino.j2", values)
    return dict(sorted(library.items()))
