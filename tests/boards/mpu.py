# SPDX-License-Identifier: Apache-2.0
"""What an MPU allows, from its registers: written anew from the architecture manuals."""

from __future__ import annotations


def access(regions: dict[int, list[int]], is_v8: bool, address: int) -> str:
    """ "", or some of "r", "w", "x": what privileged code may do there, without a default map."""
    rights = ""
    for number in sorted(regions):
        base, attributes = regions[number]
        if not attributes & 1:
            continue
        if is_v8:
            if base & ~31 <= address <= (attributes | 31):
                assert not rights, "regions overlap"
                rights = ("r" if base & 4 else "rw") + ("" if base & 1 else "x")
            continue
        size = 2 << (attributes >> 1 & 31)
        assert base % size == 0 and size >= 32
        if base <= address < base + size:
            off = size >= 256 and attributes >> 8 >> (address - base) * 8 // size & 1
            if not off:
                access = {3: "rw", 6: "r"}[attributes >> 24 & 7]
                rights = access + ("" if attributes >> 28 & 1 else "x")
    return rights
