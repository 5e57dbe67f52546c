# SPDX-License-Identifier: Apache-2.0
"""The parameter dataclasses are the structs of tte_types.h, field for field, byte for byte."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest

from tests.kernel_library import INCLUDE, build
from tte.ops import params

TWINS = params.Params.__subclasses__()
HEADER = (INCLUDE / "tte_types.h").read_text(encoding="utf-8")


def header_structs() -> dict[str, list[tuple[str, str]]]:
    """{"tte_factor": [("mantissa", "int32_t"), ...]} from the header's text."""
    text = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)
    structs = {}
    for body, struct in re.findall(r"typedef struct \{(.*?)\} (\w+);", text, flags=re.DOTALL):
        structs[struct] = [
            (name.strip(), c_type)
            for c_type, names in re.findall(r"(\w+) ([^;]+);", body)
            for name in names.split(",")
        ]
    return structs


def twin_fields(cls: type[params.Params]) -> list[tuple[str, str]]:
    return [
        (name, c_type if isinstance(c_type, str) else params.c_type_name(c_type))
        for name, c_type in params.c_fields(cls)
    ]


def test_every_struct_has_its_twin() -> None:
    assert header_structs() == {params.c_type_name(cls): twin_fields(cls) for cls in TWINS}


def test_layout_is_the_compilers(tmp_path: Path) -> None:
    lines, expected = [], []
    for cls in TWINS:
        c_name = params.c_type_name(cls)
        structure = params.ctypes_structure(cls)
        lines.append(f'printf("{c_name} %zu\\n", sizeof({c_name}));')
        expected.append(f"{c_name} {ctypes.sizeof(structure)}")
        for name, _ in params.c_fields(cls):
            place = f"offsetof({c_name}, {name}), sizeof((({c_name} *)0)->{name})"
            lines.append(f'printf("{c_name}.{name} %zu %zu\\n", {place});')
            member = getattr(structure, name)
            expected.append(f"{c_name}.{name} {member.offset} {member.size}")
    probe = tmp_path / "probe.c"
    probe.write_text(
        '#include <stdio.h>\n#include "tte_types.h"\nint main(void)\n{\n'
        + "\n".join(lines)
        + "\nreturn 0;\n}\n"
    )
    program = build([probe], ["-O0"], suffix="")
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == expected


def test_to_ctypes_keeps_every_value() -> None:
    window = params.Window(*range(1, 18))
    whole = params.Conv2dParams(window, params.Requant(-128, 127, -1, 2, 31))
    structure = params.to_ctypes(whole)
    assert [getattr(structure.window, name) for name, _ in params.c_fields(params.Window)] == list(
        range(1, 18)
    )
    assert structure.requant.input_zero_point == -128
    assert structure.requant.pre_shift == 31


@pytest.mark.parametrize(
    ("c_type", "low", "high"),
    [
        ("uint8_t", 0, 255),
        ("uint16_t", 0, 65535),
        ("uint32_t", 0, 2**32 - 1),
        ("int8_t", -128, 127),
        ("int32_t", -(2**31), 2**31 - 1),
    ],
)
def test_c_range(c_type: str, low: int, high: int) -> None:
    assert params.c_range(c_type) == (low, high)


@pytest.mark.parametrize("value", [-129, 128, 1.0, True, None])
def test_a_value_that_does_not_fit_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"Requant\.act_min must fit int8_t .*got"):
        params.Requant(0, 0, value, 0, 0)  # type: ignore[arg-type]


def test_a_wrong_struct_is_named() -> None:
    with pytest.raises(ValueError, match=r"Conv2dParams\.requant must be a Requant"):
        window = params.Window(*[1] * 15)
        params.Conv2dParams(window, window)  # type: ignore[arg-type]
