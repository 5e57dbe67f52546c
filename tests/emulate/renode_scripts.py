# SPDX-License-Identifier: Apache-2.0
"""A strict reader of the scripts that are generated for Renode.

It takes the commands, platform entries and keywords below and nothing else: those that are known to
work in Renode 1.15 and 1.16. What it does not know is a ValueError.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

PATH = r"@/[A-Za-z0-9_./+-]+|\$ORIGIN/[A-Za-z0-9_./+-]+"
NAME = r"[A-Za-z][A-Za-z0-9_]*"
# command -> the pattern of a whole line; groups are its arguments.
COMMANDS = {
    "using": r"using sysbus",
    "create": rf'mach create "({NAME})"',
    "platform": rf"machine LoadPlatformDescription ({PATH})",
    "tag": r'sysbus Tag <(0x[0-9a-f]{8}), (0x[0-9a-f]{8})> "([A-Z_]+)" 0',
    "log": rf"logFile ({PATH}) true",
    "load": rf"sysbus LoadELF ({PATH})",
    "vectors": r"cpu VectorTableOffset (0x[0-9a-f]{8})",
    "hook": rf'cpu AddHook (0x[0-9a-f]{{8}}|`sysbus GetSymbolAddress "{NAME}"`) "([^"\\]+)"',
    "output": rf"(sysbus\.{NAME}) CreateFileBackend ({PATH}) true",
    "quantum": r'emulation SetGlobalQuantum "(0\.\d+)"',
    "immediately": r"emulation SetGlobalAdvanceImmediately true",
    "socket": rf'emulation CreateServerSocketTerminal (\d+) "({NAME})" false',
    "connect": rf"connector Connect (sysbus\.{NAME}) ({NAME})",
    "start": r"start",
    "quit": r"quit",
}
# What a test may ask; these print an answer.
QUERIES = {
    "symbol": rf'sysbus GetSymbolAddress "({NAME})"',
    "word": r"sysbus ReadDoubleWord (0x[0-9A-Fa-f]{1,8})",
    "reads": r"sysbus UnexpectedReads",
    "writes": r"sysbus UnexpectedWrites",
}
# What a script's Python may use: the same in IronPython 2.7 and 3.4.
_NODES = (
    ast.Module, ast.Import, ast.ImportFrom, ast.alias, ast.Assign, ast.AugAssign, ast.Expr,
    ast.Call, ast.Attribute, ast.Name, ast.Load, ast.Store, ast.Constant, ast.BinOp, ast.Add,
    ast.Mod, ast.Compare, ast.Lt, ast.Gt, ast.Eq, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp,
    ast.Not, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.ListComp, ast.comprehension,
    ast.Mult, ast.While, ast.If, ast.IfExp, ast.Break, ast.Continue,
)  # fmt: skip
_BLOCK_MODULES = {"sys", "System", "Antmicro.Renode.Time", "Antmicro.Renode.Core.EmulationManager"}
_HOOK_MODULES = {"sys"}


@dataclass(frozen=True)
class Command:
    name: str
    arguments: tuple[str, ...]


def read_script(text: str) -> list[Command]:
    """The commands of a .resc file."""
    commands: list[Command] = []
    lines = iter(text.splitlines())
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if line == "python":
            commands.append(Command("python", (_block(lines),)))
            continue
        commands.append(_command(line, COMMANDS))
    return commands


def read_query(line: str) -> Command:
    """A command that a test executes for its answer."""
    return _command(line, QUERIES)


def _command(line: str, known: dict[str, str]) -> Command:
    for name, pattern in known.items():
        found = re.fullmatch(pattern, line)
        if found is None:
            continue
        if name == "hook":
            check_python(found[2], _HOOK_MODULES)
        return Command(name, found.groups())
    raise ValueError(f"no command of Renode: {line!r}")


def _block(lines: Iterator[str]) -> str:
    if next(lines) != '"""':
        raise ValueError("no quotes open the block of Python")
    block = []
    for line in lines:
        if line == '"""':
            code = "\n".join(block) + "\n"
            check_python(code, _BLOCK_MODULES)
            return code
        block.append(line)
    raise ValueError("the block of Python has no end")


def check_python(code: str, modules: set[str]) -> None:
    """An error where the code is no simple Python, or what Renode's monitor replaces in it."""
    if '"""' in code or any(c in code for c in "`$\\\t"):
        raise ValueError("the monitor would take a quote, `, $ or \\ of the code for its own")
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, _NODES):
            raise ValueError(f"{type(node).__name__} in a script's Python")
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        if not set(names) <= modules:
            raise ValueError(f"a script's Python imports {names}")


@dataclass
class Entry:
    """One entry of a platform; `kind` is empty where it changes an entry of another file."""

    name: str
    kind: str = ""
    address: int = 0
    properties: dict[str, str] = field(default_factory=dict)
    connections: list[str] = field(default_factory=list)


@dataclass
class Platform:
    using: list[str]
    entries: dict[str, Entry]


KINDS = {
    "Memory.MappedMemory": {"size"},
    "IRQControllers.NVIC": {"priorityMask", "systickFrequency"},
    "CPU.CortexM": {"cpuType", "PerformanceInMips", "nvic"},
    "UART.CMSDK_APB_UART": set(),
}
CPU_TYPES = {
    "cortex-m0", "cortex-m0+", "cortex-m3", "cortex-m4", "cortex-m4f", "cortex-m7", "cortex-m23",
    "cortex-m33", "cortex-m55",
}  # fmt: skip


def read_platform(text: str) -> Platform:
    """A .repl file."""
    platform = Platform([], {})
    entry: Entry | None = None
    for line in text.splitlines():
        if not line or line.startswith("//"):
            continue
        if found := re.fullmatch(r'using "(platforms/[a-z0-9_/-]+\.repl)"', line):
            platform.using.append(found[1])
        elif line.startswith("    ") and entry is not None:
            _property(entry, line.strip())
        else:
            entry = _entry(line)
            if entry.name in platform.entries:
                raise ValueError(f"{entry.name} comes twice")
            platform.entries[entry.name] = entry
    for entry in platform.entries.values():
        _check_entry(entry)
    return platform


def _entry(line: str) -> Entry:
    found = re.fullmatch(rf"({NAME}):(?: ([A-Za-z_.]+) @ sysbus(?: (0x[0-9a-f]{{8}}))?)?", line)
    if found is None:
        raise ValueError(f"no entry of a platform: {line!r}")
    return Entry(found[1], found[2] or "", int(found[3] or "0", 16))


def _property(entry: Entry, text: str) -> None:
    if found := re.fullmatch(rf"({NAME}): (\"[a-z0-9+-]+\"|0x[0-9a-f]+|\d+|{NAME})", text):
        entry.properties[found[1]] = found[2].strip('"')
    elif re.fullmatch(r"IRQ -> cpu@0", text):
        entry.connections.append(text)
    else:
        raise ValueError(f"no property: {text!r}")


def _check_entry(entry: Entry) -> None:
    if entry.kind and entry.kind not in KINDS:
        raise ValueError(f"{entry.name} is a {entry.kind}")
    allowed = KINDS[entry.kind] if entry.kind else {"size"}
    if not set(entry.properties) <= allowed:
        raise ValueError(f"{entry.name} has the properties {sorted(entry.properties)}")
    if entry.kind == "Memory.MappedMemory" or not entry.kind:
        size = int(entry.properties["size"], 16)
        if size <= 0 or size % 4096 or entry.address % 4096:
            raise ValueError(f"{entry.name} is not made of whole pages")
    if entry.kind == "CPU.CortexM" and entry.properties["cpuType"] not in CPU_TYPES:
        raise ValueError(f"Renode has no {entry.properties['cpuType']}")
