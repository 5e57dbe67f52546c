# SPDX-License-Identifier: Apache-2.0
"""Brings a project's firmware onto its board with whichever tool is there and fits.

The files are made from the ELF in a folder of their own, where the tool runs: nothing that lies in
the project can configure it. Every program gets a list of arguments; there is no shell.
"""

from __future__ import annotations

import os
import re
import shutil
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tte.artifacts import write_artifacts
from tte.board import Board, Probe
from tte.device.flash_tools import TOOLS, Command, Tool, explain, usb_probes
from tte.errors import TteError, UsageError

LIMIT_S = 600.0
_LIST_LIMIT_S = 60.0
# How long a board may take to start what it has got as UF2.
UF2_TAKEN_S = 15.0
_COPY_CHUNK_BYTES = 65536
UF2 = "uf2"

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be run, or copied. `commands` run in a folder with the firmware's files."""

    tool: str
    probe: str
    commands: tuple[Command, ...] = ()
    volume: Path | None = None

    def lines(self) -> list[list[str]]:
        if self.volume is not None:
            return [["cp", "firmware.uf2", str(self.volume)]]
        return [list(command) for command in self.commands]


def make_plan(board: Board, tool: str = "", probe: str = "", *, dry: bool = False) -> Plan:
    """Chooses the tool and the probe; an error where there is none or the choice is not clear.
    `dry`: asks no hardware, and takes the board's first tool where none is installed."""
    known = _probe_of(board)
    if tool and tool not in known.tools:
        raise UsageError(
            f"{board.name} is not flashed with {tool}", hint="its tools: " + ", ".join(known.tools)
        )
    names = (tool,) if tool else known.tools
    chosen = next((name for name in names if _is_there(name, known, probe)), "")
    if not chosen and not dry:
        raise _no_tool(board, names)
    chosen = chosen or names[0]
    is_volume = chosen == UF2 and os.path.isdir(probe)
    if probe and not is_volume and not re.fullmatch(r"(?!-)[A-Za-z0-9:_.-]+", probe):
        raise UsageError(
            f"{probe!r} is no name of a probe", hint="letters, digits and : _ . -, no - first"
        )
    if chosen == UF2:
        return Plan(UF2, probe, volume=_volume(board, known, probe, dry))
    found = TOOLS[chosen]
    if not dry:
        probe = _choose_probe(found, board, probe)
    return Plan(chosen, probe, tuple(found.commands(board, known, probe)))


def carry_out(plan: Plan, board: Board, elf_path: Path, show: Show) -> int:
    """Flashes and verifies; the bytes of the image. `show` gets the tool's output as it comes."""
    with tempfile.TemporaryDirectory(prefix="tte-") as name:
        folder = Path(name)
        shutil.copyfile(elf_path, folder / "firmware.elf")
        write_artifacts(folder / "firmware.elf", board.uf2_family)
        if plan.volume is not None:
            _copy(folder / "firmware.uf2", plan.volume, show)
        for command in plan.commands:
            output, status = _run(command, folder, show, LIMIT_S)
            confirms = TOOLS[plan.tool].confirms if command == plan.commands[-1] else ""
            if status != 0 or not re.search(confirms, output):
                raise explain(plan.tool, board, output, status)
        return (folder / "firmware.bin").stat().st_size


# ---- choosing -----------------------------------------------------------------------------


def _probe_of(board: Board) -> Probe:
    if board.probe is None:
        raise TteError(
            f"{board.name} cannot be flashed",
            why="it exists in emulators only",
            hint="tte emulate runs it; tte compile --board BOARD makes a project for a real one",
        )
    return board.probe


def _is_there(name: str, probe: Probe, chosen: str) -> bool:
    if name == UF2:
        return bool(_volumes(probe.uf2_volume)) or os.path.isdir(chosen)
    return shutil.which(TOOLS[name].executable) is not None


def _no_tool(board: Board, names: tuple[str, ...]) -> TteError:
    if UF2 in names:
        volume = board.probe.uf2_volume if board.probe else ""
        hint = f"hold BOOTSEL while you plug the board in; it then shows the volume {volume}"
        if names == (UF2,):
            return TteError(f"{board.name} shows no volume {volume}", hint=hint)
        names = tuple(name for name in names if name != UF2)
    else:
        hint = ""
    hints = [f"{name}: {TOOLS[name].install}" for name in names]
    return TteError(
        f"nothing that can flash {board.name} is there",
        why="looked for " + ", ".join(TOOLS[name].executable for name in names),
        hint="\n".join([hint, *hints] if hint else hints),
    )


def _choose_probe(tool: Tool, board: Board, wanted: str) -> str:
    """The probe's name, or "" where the tool may take the only one there is."""
    text = ""
    if tool.lister and shutil.which(tool.lister[0]):
        text, status = _run(tool.lister, None, lambda _: None, _LIST_LIMIT_S)
        if status != 0:
            raise explain(tool.name, board, text, status)
    names = tool.read_list(text) if tool.lister else usb_probes()
    if wanted:
        if names and not any(name.endswith(wanted) or name.startswith(wanted) for name in names):
            raise TteError(
                f"there is no probe {wanted}", where=tool.name, why="there are " + ", ".join(names)
            )
        return wanted
    if len(names) > 1:
        raise TteError(
            "several probes are connected",
            where=tool.name,
            why="\n".join(names),
            hint=f"name one: --probe {names[0]}",
        )
    if tool.lister and text and not names:
        raise TteError(
            "no probe was found",
            where=f"{tool.name}, {board.name}",
            why=f"{' '.join(tool.lister)} lists none",
            hint="plug the board in, by the socket of its probe",
        )
    _check_chip(tool, board, text)
    return ""


def _check_chip(tool: Tool, board: Board, listed: str) -> None:
    """st-flash writes to any chip; the size of its flash tells whether it is the board's."""
    found = re.search(r"^\s*flash: *(\d+)", listed, re.MULTILINE)
    if tool.name == "st-flash" and found and int(found[1]) not in (0, board.flash.largest_bytes):
        chip = re.search(r"^\s*(?:dev-type|descr): *(\S.*)", listed, re.MULTILINE)
        raise TteError(
            "the chip is another one than the board's",
            where=f"{tool.name}, {board.name}",
            why=f"{chip[1].strip() if chip else 'it'} has {found[1]} bytes of flash,"
            f" the board's has {board.flash.largest_bytes}",
            hint="check that this is the board that the project was compiled for",
        )


# ---- UF2 ----------------------------------------------------------------------------------


def _volumes(name: str) -> list[Path]:
    """Mounted volumes of that name, wherever systems mount them."""
    if not name:
        return []
    places = [Path("/Volumes"), Path("/media"), Path("/run/media"), Path("/mnt")]
    found = [path for place in places for path in _below(place, name)]
    if sys.platform == "win32":
        found += [Path(f"{letter}:/") for letter in string.ascii_uppercase[3:]]
    return [path for path in found if (path / "INFO_UF2.TXT").is_file()]


def _below(place: Path, name: str) -> Iterator[Path]:
    yield place / name
    try:
        yield from (folder / name for folder in sorted(place.iterdir()))
    except OSError:
        return


def _volume(board: Board, probe: Probe, chosen: str, dry: bool) -> Path:
    volumes = [Path(chosen)] if os.path.isdir(chosen) else _volumes(probe.uf2_volume)
    if len(volumes) > 1:
        raise TteError(
            "several boards wait for a UF2 file",
            why="\n".join(map(str, volumes)),
            hint=f"name one: --probe {volumes[0]}",
        )
    if not volumes:
        if dry:
            return Path(probe.uf2_volume)
        raise _no_tool(board, (UF2,))
    try:
        info = (volumes[0] / "INFO_UF2.TXT").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError as error:
        raise TteError(
            "this is no volume that takes UF2 files",
            where=str(volumes[0]),
            why="it has no INFO_UF2.TXT",
        ) from error
    found = re.search(r"^Board-ID: *(\S+)", info, re.MULTILINE)
    if found and probe.uf2_volume and found[1] != probe.uf2_volume:
        raise TteError(
            "the chip is another one than the board's",
            where=str(volumes[0]),
            why=f"it calls itself {found[1]}, {board.name} is {probe.uf2_volume}",
        )
    return volumes[0]


def _copy(file: Path, volume: Path, show: Show) -> None:
    """The board takes each block as it comes, if it is for this chip, and starts when all are
    there: then the volume goes away, maybe before the last write has returned."""
    data = file.read_bytes()
    written = 0
    try:
        with (volume / file.name).open("wb", buffering=0) as stream:
            for start in range(0, len(data), _COPY_CHUNK_BYTES):
                written += stream.write(data[start : start + _COPY_CHUNK_BYTES])
                show(f"\r{100 * written // len(data)} % of {len(data)} bytes")
            os.fsync(stream.fileno())
    except OSError as error:
        if written < len(data) or volume.exists():
            raise TteError(
                "the firmware cannot be copied",
                where=str(volume),
                why=error.strerror or str(error),
                hint="unplug the board, hold BOOTSEL, plug it in and try again",
            ) from error
    show("\n")
    deadline = time.monotonic() + UF2_TAKEN_S
    while (volume / "INFO_UF2.TXT").exists():
        if time.monotonic() > deadline:
            raise TteError(
                "the board did not take the firmware",
                where=str(volume),
                why="it still waits for a file: blocks for another chip, or none at all, arrived",
                hint="unplug the board, hold BOOTSEL, plug it in and try again",
            )
        time.sleep(0.05)


# ---- running ------------------------------------------------------------------------------


def _run(
    command: Command, folder: Path | None, show: Show, limit_s: float
) -> tuple[str, int | None]:
    """(output, exit status) of a program; None: it took too long and was ended."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise TteError(f"{command[0]} cannot be run", why=error.strerror or str(error)) from error
    assert process.stdout is not None
    parts: list[str] = []
    reader = threading.Thread(target=_read, args=(process.stdout, parts, show), daemon=True)
    reader.start()
    deadline = time.monotonic() + limit_s
    try:
        while reader.is_alive() and time.monotonic() < deadline:
            reader.join(0.05)
        late = reader.is_alive()
        return "".join(parts), None if late else process.wait()
    finally:
        process.kill()
        process.wait()


def _read(stream: IO[bytes], parts: list[str], show: Show) -> None:
    while data := os.read(stream.fileno(), 4096):
        text = data.decode("utf-8", errors="replace")
        parts.append(text)
        show(text)
