# SPDX-License-Identifier: Apache-2.0
"""Finds a C compiler, builds a generated project and reads the section sizes back.

Objects are named by the hash of everything that went into them, so nothing is compiled twice;
every result is written beside its place and renamed, so an interrupt leaves no half of a file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tte.artifacts import write_artifacts
from tte.board import Board
from tte.codegen.project import COMPILE_FLAGS, LINK_FLAGS, OPTIMISE_FLAG
from tte.errors import DoesNotFit, TteError

COMPILERS = ("gcc", "zig", "clang")

_INSTALL = {
    "gcc": "sudo apt install gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "zig": "pip install ziglang",
    "clang": "sudo apt install clang gcc-arm-none-eabi libnewlib-arm-none-eabi",
}
_DIAGNOSTIC_LINES = 40


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler for one board: how to call it, and how to call what links."""

    name: str
    version: str
    compile_command: tuple[str, ...]
    link_command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Firmware:
    """A linked firmware and the sizes of its sections in bytes."""

    elf_path: Path
    compiler_name: str
    compiler_version: str
    text_bytes: int
    rodata_bytes: int
    data_bytes: int
    bss_bytes: int
    stack_reserve_bytes: int

    @property
    def flash_bytes(self) -> int:
        """What the firmware takes in flash: code, constants, initial values of .data."""
        return self.text_bytes + self.rodata_bytes + self.data_bytes

    @property
    def static_bytes(self) -> int:
        """What the firmware takes in SRAM besides its stack."""
        return self.data_bytes + self.bss_bytes


def find_compiler(board: Board, preferred: str | None = None) -> Compiler:
    """The preferred compiler, or else the first of gcc, zig, clang that is installed."""
    if preferred is not None and preferred not in COMPILERS:
        raise TteError(f"unknown compiler {preferred!r}", hint="one of " + ", ".join(COMPILERS))
    for name in (preferred,) if preferred else COMPILERS:
        compiler = _FINDERS[name](board)
        if compiler is not None:
            return compiler
    wanted = [preferred] if preferred else ["gcc", "zig"]
    what = f"the compiler {preferred} for Arm" if preferred else "a C compiler for Arm"
    raise TteError(
        f"{what} is not installed",
        why="looked for " + "; ".join(_LOOKED_FOR[name] for name in wanted),
        hint="\n".join(_INSTALL[name] for name in wanted),
    )


def build_firmware(
    project_dir: Path, board: Board, compiler: Compiler, for_renode: bool = False
) -> Firmware:
    """Builds build/firmware.elf, and .bin, .hex and .uf2 beside it; nothing that is up to date.
    `for_renode`: builds build/renode.elf, with the port of board/renode/, where Renode does not
    model the board."""
    bare = for_renode and board.is_bare_in_renode
    fast = sorted(project_dir.glob("kernels/armv7em/*.[cS]"))
    replaced = {path.name for path in fast}
    sources = [
        *sorted(project_dir.glob("src/*.c")),
        *fast,
        *(path for path in sorted(project_dir.glob("kernels/*.c")) if path.name not in replaced),
        *(
            [project_dir / "board" / "startup.c", *sorted(project_dir.glob("board/renode/*.c"))]
            if bare
            else sorted(project_dir.glob("board/*.c"))
        ),
    ]
    command = (*compiler.compile_command, *COMPILE_FLAGS, OPTIMISE_FLAG)
    command += ("-Isrc", "-Ikernels", "-Iboard")
    objects = _compile(project_dir, sources, command, compiler.version)
    elf = project_dir / "build" / ("renode.elf" if bare else "firmware.elf")
    link = (*compiler.link_command, OPTIMISE_FLAG, *LINK_FLAGS, "-T", "board/link.ld")
    key = _key(link, compiler.version, objects, [project_dir / "board" / "link.ld"])
    _unless_fresh(elf, key, lambda path: _link(project_dir, link, objects, path, board))
    if not bare:
        write_artifacts(elf, board.uf2_family)
    return read_firmware(elf, compiler)


def build_host(project_dir: Path) -> Path:
    """Builds build/host, the same program for this machine, from the portable kernels."""
    sources = [
        path for folder in ("src", "kernels", "host") for path in
        sorted((project_dir / folder).glob("*.c"))
    ]  # fmt: skip
    compiler, version = _host_compiler()
    command = (*compiler, *COMPILE_FLAGS, OPTIMISE_FLAG, "-Isrc", "-Ikernels")
    objects = _compile(project_dir, sources, command, version)
    program = project_dir / "build" / ("host.exe" if os.name == "nt" else "host")
    key = _key(compiler, version, objects, [])
    _unless_fresh(program, key, lambda path: _link(project_dir, compiler, objects, path, None))
    return program


def build_library(project_dir: Path) -> Path:
    """Builds the network and its kernels alone, to be called in a process of this machine; a new
    file each time, since a library is loaded once by its name."""
    project_dir = project_dir.resolve()
    sources = [project_dir / "src" / name for name in ("model.c", "data.c")]
    sources += sorted((project_dir / "kernels").glob("*.c"))
    compiler, version = _library_compiler()
    command = (*compiler, "-std=c99", OPTIMISE_FLAG, "-fPIC", "-Isrc", "-Ikernels")
    objects = _compile(project_dir, sources, command, version)
    with tempfile.NamedTemporaryFile(
        dir=project_dir / "build", prefix="network-", suffix=".so", delete=False
    ) as file:
        library = Path(file.name)
    _link(project_dir, (*compiler, "-shared"), objects, library, None)
    for own in objects[:2]:  # the kernels' are for the next network
        own.unlink()
    return library


def current_firmware(project_dir: Path) -> Firmware | None:
    """The build/firmware.elf that is there, unless a source is newer; it names no compiler."""
    from elftools.common.exceptions import ELFError

    elf = project_dir / "build" / "firmware.elf"
    sources = (path for folder in ("src", "kernels", "board") for path in
               (project_dir / folder).rglob("*") if path.is_file())  # fmt: skip
    try:
        built = elf.stat().st_mtime
        return None if any(path.stat().st_mtime > built for path in sources) else read_firmware(elf)
    except (OSError, ELFError):
        return None


def read_firmware(elf_path: Path, compiler: Compiler | None = None) -> Firmware:
    """Reads the section sizes of an ELF file."""
    from elftools.elf.elffile import ELFFile

    with elf_path.open("rb") as stream:
        sizes = {section.name: int(section["sh_size"]) for section in
                 ELFFile(stream).iter_sections()}  # fmt: skip
    return Firmware(
        elf_path=elf_path,
        compiler_name=compiler.name if compiler else "",
        compiler_version=compiler.version if compiler else "",
        text_bytes=sizes.get(".text", 0),
        rodata_bytes=sizes.get(".rodata", 0),
        data_bytes=sizes.get(".data", 0),
        bss_bytes=sizes.get(".bss", 0),
        stack_reserve_bytes=sizes.get(".stack", 0),
    )


# ---- finding ------------------------------------------------------------------------------


def _find_gcc(board: Board) -> Compiler | None:
    program = shutil.which("arm-none-eabi-gcc")
    if program is None or not _accepts((program, *board.gcc_flags), "#include <string.h>\n"):
        return None
    command = (program, *board.gcc_flags)
    return Compiler("gcc", _output((program, "-dumpfullversion")), command, command)


def _find_zig(board: Board) -> Compiler | None:
    zig = _zig()
    if zig is None:
        return None
    link = (*zig, "cc", *board.zig_flags)
    return Compiler("zig", _output((*zig, "version")), (*link, "-Iboard/libc"), link)


def _find_clang(board: Board) -> Compiler | None:
    program, linker = shutil.which("clang"), _find_gcc(board)
    if program is None or linker is None:
        return None
    found = re.search(r"version (\S+)", _output((program, "--version")))
    version = found.group(1) if found else "unknown"
    command = (program, *board.clang_flags, "-Iboard/libc")
    return Compiler("clang", version, command, linker.link_command)


_FINDERS: dict[str, Callable[[Board], Compiler | None]] = {
    "gcc": _find_gcc,
    "zig": _find_zig,
    "clang": _find_clang,
}
_LOOKED_FOR = {
    "gcc": "arm-none-eabi-gcc on the PATH, with the headers of newlib",
    "zig": "the Python package ziglang and zig on the PATH",
    "clang": "clang on the PATH, and arm-none-eabi-gcc with newlib to link",
}


def _zig() -> tuple[str, ...] | None:
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang")
    program = shutil.which("zig")
    return None if program is None else (program,)


def _host_compiler() -> tuple[tuple[str, ...], str]:
    """The compiler of this machine, tuned to its processor where it knows how."""
    zig = _zig()
    programs = [(path,) for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
    for command in [*programs, *([(*zig, "cc")] if zig else [])]:
        for tuned in ((*command, "-march=native"), command):
            if _accepts(tuned, "#include <stdio.h>\nint main(void);\n"):
                return tuned, _output((*command, "--version"))
    raise TteError(
        "there is no C compiler for this machine",
        why="looked for cc, gcc, clang and zig",
        hint="sudo apt install gcc\npip install ziglang",
    )


@functools.cache
def _library_compiler() -> tuple[tuple[str, ...], str]:
    """The compiler of this machine, for a library that is used here and now: tuned, but without
    vectors of 512 bits, for which the kernels' rows are too short."""
    compiler, version = _host_compiler()
    narrow = (*compiler, "-mno-avx512f")
    return narrow if _accepts(narrow, "int one;\n") else compiler, version


def _accepts(command: Sequence[str], source: str) -> bool:
    arguments = [*command, "-x", "c", "-", "-fsyntax-only"]
    return subprocess.run(arguments, input=source.encode(), capture_output=True).returncode == 0


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip()


# ---- building -----------------------------------------------------------------------------


def _key(command: Sequence[str], version: str, *files: Sequence[Path]) -> str:
    """A hash of a command line and of the files it reads, by content."""
    digest = hashlib.sha256("\0".join([*command, version]).encode())
    for path in (path for group in files for path in group):
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:24]


def _compile(
    project_dir: Path, sources: Sequence[Path], command: tuple[str, ...], version: str
) -> list[Path]:
    if not (project_dir / "src" / "model.c").is_file():
        raise TteError(
            "this folder is no firmware project",
            where=str(project_dir),
            why="src/model.c is missing",
            hint="tte compile MODEL ... -o DIR writes one",
        )
    folder = project_dir / "build" / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    kernel_headers, others = (
        sorted(path for name in names for path in (project_dir / name).rglob("*.h"))
        for names in (["kernels"], ["src", "board"])
    )

    def compile_one(source: Path) -> Path:
        name = source.relative_to(project_dir).as_posix()
        own = [] if name.startswith("kernels/") else others  # kernels know no network
        key = _key((*command, name), version, [source], kernel_headers, own)
        compiled = folder / f"{source.stem}-{key}.o"
        if not compiled.is_file():
            partial = compiled.with_suffix(f".{os.getpid()}.tmp")
            try:
                _run(project_dir, (*command, "-c", name, "-o", _inside(project_dir, partial)), name)
                partial.replace(compiled)
            finally:
                partial.unlink(missing_ok=True)
        return compiled

    workers = max(2, min(4, os.cpu_count() or 1))
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(compile_one, sources))
    finally:
        pool.shutdown(cancel_futures=True)


def _link(
    project_dir: Path,
    command: tuple[str, ...],
    objects: Sequence[Path],
    output: Path,
    board: Board | None,
) -> None:
    names = [_inside(project_dir, path) for path in objects]
    arguments = (*command, *names, "-o", _inside(project_dir, output))
    try:
        _run(project_dir, arguments, output.name.split(".")[0])
    except TteError as error:
        if board is not None and re.search(r"overflowed by|does not fit", error.why):
            raise _does_not_fit(error.why, project_dir, board) from None
        raise


def _does_not_fit(diagnostics: str, project_dir: Path, board: Board) -> DoesNotFit:
    script = (project_dir / "board" / "link.ld").read_text(encoding="utf-8")
    lines = []
    for region, option in (("FLASH", "--flash"), ("SRAM", "--sram"), ("FAST", "--sram")):
        limit = re.search(rf"{region} \(\w+\) : .*LENGTH = (\d+)", script)
        over = re.findall(rf"region [`']{region}'[^\n]*overflowed by (\d+)", diagnostics)
        if limit and over:
            limit_bytes, over_bytes = int(limit.group(1)), max(map(int, over))
            lines.append(
                f"{region}: {limit_bytes + over_bytes} bytes needed, the limit is {limit_bytes}"
                f" ({over_bytes} too many); {option} sets it"
            )
    return DoesNotFit(
        f"the firmware does not fit the memory of {board.name}",
        where=str(project_dir),
        why="\n".join(lines) or diagnostics,
        hint="train fewer layers or channels (--update), or give it more memory",
    )


def _unless_fresh(product: Path, key: str, make: Callable[[Path], None]) -> None:
    """Calls `make` for a temporary path and renames it, unless `product` was made with `key`
    and nobody (the Makefile, say) has written it since."""
    stamp = product.with_suffix(".key")
    made_before = product.is_file() and stamp.is_file()
    if made_before and stamp.read_text(encoding="ascii") == _stamp(key, product):
        return
    partial = product.with_suffix(f".{os.getpid()}.tmp")
    try:
        make(partial)
        stamp.unlink(missing_ok=True)
        partial.replace(product)
        stamp.write_text(_stamp(key, product), encoding="ascii")
    finally:
        partial.unlink(missing_ok=True)


def _stamp(key: str, product: Path) -> str:
    return f"{key} {hashlib.sha256(product.read_bytes()).hexdigest()}\n"


def _run(project_dir: Path, command: Sequence[str], subject: str) -> None:
    """Runs in the project folder, so that no path of this machine gets into a product."""
    done = subprocess.run(
        command, cwd=project_dir, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        if len(lines) > _DIAGNOSTIC_LINES:
            lines = [*lines[:_DIAGNOSTIC_LINES], f"... and {len(lines) - _DIAGNOSTIC_LINES} lines"]
        raise TteError(
            f"{subject} cannot be built",
            where=str(project_dir),
            why="\n".join(lines) or f"{command[0]} ended with status {done.returncode}",
        )


def _inside(project_dir: Path, path: Path) -> str:
    return path.relative_to(project_dir).as_posix()
