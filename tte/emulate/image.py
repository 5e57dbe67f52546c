# SPDX-License-Identifier: Apache-2.0
"""What an emulator needs of an ELF file: its load segments and its symbols."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from tte.errors import TteError


@dataclass(frozen=True, slots=True)
class FirmwareImage:
    """`segments`: (load address, content). `functions`: (start, end, name), sorted."""

    segments: tuple[tuple[int, bytes], ...]
    symbols: dict[str, int]
    functions: tuple[tuple[int, int, str], ...]
    stack_bytes: int

    def locate(self, address: int) -> str:
        """The function that holds an address: "tte_add_int8+0x12", or "" where there is none."""
        address &= ~1
        index = bisect_right(self.functions, address, key=lambda function: function[0]) - 1
        if index < 0:
            return ""
        start, end, name = self.functions[index]
        return f"{name}+{address - start:#x}" if address < end else ""


def read_image(elf_path: Path) -> FirmwareImage:
    """Reads an Arm ELF file."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        with elf_path.open("rb") as stream:
            elf = ELFFile(stream)
            segments = tuple(
                (segment["p_paddr"], segment.data())
                for segment in elf.iter_segments("PT_LOAD")
                if segment["p_filesz"]
            )
            table = elf.get_section_by_name(".symtab")
            entries = list(table.iter_symbols()) if isinstance(table, SymbolTableSection) else []
    except (OSError, ELFError) as error:
        raise TteError(
            "the firmware cannot be read", where=str(elf_path), why=str(error)
        ) from error
    symbols = {entry.name: entry["st_value"] for entry in entries if entry.name}
    functions = sorted(
        (entry["st_value"] & ~1, (entry["st_value"] & ~1) + entry["st_size"], entry.name)
        for entry in entries
        if entry["st_info"]["type"] == "STT_FUNC"
    )
    stack_bytes = symbols.get("tte_stack_top", 0) - symbols.get("tte_stack_bottom", 0)
    return FirmwareImage(segments, symbols, tuple(functions), stack_bytes)
