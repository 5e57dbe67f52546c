# SPDX-License-Identifier: Apache-2.0
"""tte doctor: what is installed."""

from __future__ import annotations

import sys

from tte.cli.options import Json, Quiet
from tte.cli.output import show_rows
from tte.errors import TteError


def doctor_command(json: Json = None, quiet: Quiet = False) -> None:
    """Say what is installed, what is missing and how to get it."""
    from tte.board import list_boards, load_board
    from tte.build import COMPILERS, find_compiler
    from tte.emulate.renode import find_renode

    checks: list[dict[str, str]] = []

    def check(name: str, found: str, needed: str, remedy: str) -> None:
        state = "ok" if found else needed
        detail = found or " or ".join(remedy.splitlines())
        checks.append({"what": name, "state": state, "detail": detail})

    check("Python", sys.version.split()[0], "missing", "")
    for package, needed, remedy in _PACKAGES:
        check(package, package_version(package), needed, remedy)
    board = load_board(list_boards()[0])
    compilers = 0
    for name in COMPILERS:
        try:
            version, remedy = find_compiler(board, name).version or "found", ""
            compilers += 1
        except TteError as error:
            version, remedy = "", error.hint
        check(f"compiler {name}", version, "optional", remedy)
    qemu = _first_line("qemu-system-arm", "--version")
    check("qemu-system-arm", qemu, "optional", "sudo apt install qemu-system-arm")
    try:
        renode, remedy = find_renode()[1], ""
    except TteError as error:
        renode, remedy = "", error.hint.splitlines()[0] if error.hint else error.what
    check("Renode", renode, "optional", remedy)
    host = next(
        (line for cc in ("cc", "gcc", "clang") if (line := _first_line(cc, "--version"))), ""
    )
    check("host compiler", host, "optional", "sudo apt install gcc")
    rows = [(c["what"], c["state"], c["detail"]) for c in checks]
    show_rows("Installation", ("what", "state", "detail"), rows, {"checks": checks}, json, quiet)
    missing = [c["what"] for c in checks if c["state"] == "missing"]
    if missing or not compilers:
        raise TteError(
            "something that tte needs is missing",
            why=", ".join(missing) or "there is no compiler for Arm",
            hint="sudo apt install gcc-arm-none-eabi libnewlib-arm-none-eabi\n"
            "or: pip install ziglang",
        )


_PACKAGES = (
    ("numpy", "missing", "pip install numpy"),
    ("onnx", "missing", "pip install onnx"),
    ("jinja2", "missing", "pip install jinja2"),
    ("unicorn", "missing", "pip install unicorn"),
    ("pyelftools", "missing", "pip install pyelftools"),
    ("pillow", "optional", "pip install pillow (image folders)"),
    ("matplotlib", "optional", "pip install matplotlib (plots)"),
    ("scikit-learn", "optional", "pip install scikit-learn (demo)"),
    ("pyserial", "optional", "pip install pyserial (boards: tte train, tte weights)"),
)


def package_version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _first_line(*command: str) -> str:
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip() if done.returncode == 0 else ""
