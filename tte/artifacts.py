# SPDX-License-Identifier: Apache-2.0
"""Firmware as the tools of boards take it: plain binary, Intel HEX and UF2, made from the ELF."""

from __future__ import annotations

import struct
from pathlib import Path

_HEX_BYTES = 16
_UF2_BYTES = 256
_UF2_BLOCK = struct.Struct("<8I476sI")
_UF2_START, _UF2_SECOND, _UF2_END = 0x0A32_4655, 0x9E5D_5157, 0x0AB1_6F30
_UF2_HAS_FAMILY = 0x2000


def flash_image(elf_path: Path) -> tuple[int, bytes]:
    """(address, content) of all that the ELF loads, as one piece; gaps are erased flash."""
    from elftools.elf.elffile import ELFFile

    with elf_path.open("rb") as stream:
        segments = [
            (int(segment["p_paddr"]), segment.data())
            for segment in ELFFile(stream).iter_segments("PT_LOAD")
            if segment["p_filesz"]
        ]
    origin = min(address for address, _ in segments)
    image = bytearray(b"\xff" * (max(a + len(content) for a, content in segments) - origin))
    for address, content in segments:
        image[address - origin : address - origin + len(content)] = content
    return origin, bytes(image)


def write_artifacts(elf_path: Path, uf2_family: int | None) -> None:
    """Writes firmware.bin, firmware.hex and, where wanted, firmware.uf2 beside the ELF."""
    origin, image = flash_image(elf_path)
    made = {".bin": image, ".hex": intel_hex(origin, image)}
    if uf2_family is not None:
        made[".uf2"] = uf2(origin, image, uf2_family)
    for suffix, content in made.items():
        elf_path.with_suffix(suffix).write_bytes(content)


def intel_hex(origin: int, image: bytes) -> bytes:
    """Records of 16 bytes, and one of type 4 (the upper half of the address) every 64 KiB."""
    lines = []
    upper = -1
    for start in range(0, len(image), _HEX_BYTES):
        address = origin + start
        if address >> 16 != upper:
            upper = address >> 16
            lines.append(_record(4, 0, upper.to_bytes(2, "big")))
        lines.append(_record(0, address & 0xFFFF, image[start : start + _HEX_BYTES]))
    lines.append(_record(1, 0, b""))
    return "".join(lines).encode()


def _record(kind: int, address: int, data: bytes) -> str:
    record = bytes((len(data), address >> 8, address & 0xFF, kind)) + data
    return f":{record.hex().upper()}{-sum(record) & 0xFF:02X}\n"


def uf2(origin: int, image: bytes, family: int) -> bytes:
    """Blocks of 512 bytes with 256 of content each (github.com/microsoft/uf2)."""
    count = -(-len(image) // _UF2_BYTES)
    padded = image.ljust(count * _UF2_BYTES, b"\xff")
    return b"".join(
        _UF2_BLOCK.pack(
            *(_UF2_START, _UF2_SECOND, _UF2_HAS_FAMILY),
            *(origin + index * _UF2_BYTES, _UF2_BYTES, index, count, family),
            padded[index * _UF2_BYTES : (index + 1) * _UF2_BYTES],
            _UF2_END,
        )
        for index in range(count)
    )
