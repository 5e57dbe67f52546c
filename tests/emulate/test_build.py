# SPDX-License-Identifier: Apache-2.0
"""Projects are complete and deterministic; builds report sizes, diagnostics and lack of memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tests.emulate.fake_project import MakeProject, firmware_of, write_project
from tte.board import load_board
from tte.build import build_firmware, build_host, find_compiler
from tte.codegen.project import project_files
from tte.errors import DoesNotFit, TteError

BOARD = "mps2-an386"


def test_project_files_are_deterministic_text_without_paths() -> None:
    board = load_board(BOARD)
    first = project_files(board, 262144, 1 << 20, 4096, [])
    assert first == project_files(board, 262144, 1 << 20, 4096, [])
    assert list(first) == sorted(first)
    for name in ("src/main.c", "board/link.ld", "board/startup.c", "host/port.c", "Makefile"):
        assert name in first
    for name, text in first.items():
        assert text.isascii() and text.endswith("\n"), name
        assert str(Path(__file__).resolve().parents[2]) not in text
        assert max(map(len, text.splitlines())) <= 120, name


@pytest.mark.parametrize(("sram", "stack"), [(0, 4096), (1 << 30, 4096), (262144, 4097)])
def test_impossible_limits_are_refused(sram: int, stack: int) -> None:
    with pytest.raises(TteError):
        project_files(load_board(BOARD), sram, 1 << 20, stack, [])


def test_a_stack_larger_than_sram_does_not_fit() -> None:
    with pytest.raises(DoesNotFit):
        project_files(load_board(BOARD), 4096, 1 << 20, 4096, [])


@pytest.mark.parametrize("compiler", ["gcc", "zig", "clang"])
def test_sizes_are_those_of_the_elf(compiler: str, make_project: MakeProject) -> None:
    firmware = firmware_of(make_project(compiler=compiler), BOARD, compiler)
    with firmware.elf_path.open("rb") as stream:
        elf = ELFFile(stream)
        alloc = {s.name: s for s in elf.iter_sections() if s["sh_flags"] & 2 and s["sh_size"]}
        assert set(alloc) == {".text", ".rodata", ".stack", ".data", ".bss"}
        loaded = sum(segment["p_filesz"] for segment in elf.iter_segments("PT_LOAD"))
        assert alloc[".stack"]["sh_addr"] == 0x2000_0000
    assert firmware.flash_bytes == loaded
    assert firmware.stack_reserve_bytes == load_board(BOARD).stack_reserve_bytes
    assert firmware.static_bytes == alloc[".data"]["sh_size"] + alloc[".bss"]["sh_size"]
    assert firmware.compiler_name == compiler and firmware.compiler_version[0].isdigit()


def test_nothing_is_built_twice(tmp_path: Path) -> None:
    write_project(tmp_path, BOARD, 262144, 64)
    elf = firmware_of(tmp_path, BOARD, "gcc").elf_path
    objects = tmp_path / "build" / "objects"
    before = elf.stat().st_mtime_ns, sorted(path.name for path in objects.iterdir())
    firmware_of(tmp_path, BOARD, "gcc")
    assert before == (elf.stat().st_mtime_ns, sorted(path.name for path in objects.iterdir()))
    with (tmp_path / "src" / "model.c").open("a") as stream:
        stream.write("/* changed */\n")
    firmware_of(tmp_path, BOARD, "gcc")
    assert len(list(objects.iterdir())) == len(before[1]) + 1
    assert not list(tmp_path.glob("build/**/*.tmp"))


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_too_much_data_does_not_fit(compiler: str, tmp_path: Path) -> None:
    write_project(tmp_path, BOARD, 65536, 70000)
    with pytest.raises(DoesNotFit) as caught:
        firmware_of(tmp_path, BOARD, compiler)
    assert "SRAM" in caught.value.why and "the limit is 65536" in caught.value.why
    assert not (tmp_path / "build" / "firmware.elf").exists()


def test_diagnostics_reach_the_error(tmp_path: Path) -> None:
    write_project(tmp_path, BOARD, 262144, 64)
    with (tmp_path / "src" / "model.c").open("a") as stream:
        stream.write("int x = unknown_name;\n")
    with pytest.raises(TteError) as caught:
        build_host(tmp_path)
    assert "model.c" in caught.value.what and "unknown_name" in caught.value.why


def test_a_folder_without_a_project_says_so(tmp_path: Path) -> None:
    with pytest.raises(TteError) as caught:
        build_host(tmp_path)
    assert "model.c" in caught.value.why


def test_no_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TteError) as caught:
        find_compiler(load_board(BOARD))
    assert "apt install gcc-arm-none-eabi" in caught.value.hint
    assert "pip install ziglang" in caught.value.hint


def test_a_faster_kernel_replaces_the_portable_one_on_the_board_only(tmp_path: Path) -> None:
    write_project(tmp_path, BOARD, 262144, 64)
    kernels = tmp_path / "kernels"
    (kernels / "armv7em").mkdir()
    (kernels / "one.c").write_text('#include "tte_types.h"\nint one;\n')
    (kernels / "armv7em" / "one.c").write_text(
        "#ifndef __arm__\n#error board only\n#endif\nint one;\n"
    )
    firmware_of(tmp_path, BOARD, "gcc")
    build_host(tmp_path)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("compiler", ["gcc", "zig", "clang"])
def test_make_builds_the_same_sections(compiler: str, make_project: MakeProject) -> None:
    folder = make_project(compiler=compiler)
    board = load_board(BOARD)
    built = firmware_of(folder, BOARD, compiler)
    subprocess.run(
        ["make", f"COMPILER={compiler}", f"PYTHON={sys.executable}"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    assert _code(folder / "build" / "firmware.elf") == _code(built.elf_path)
    assert build_firmware(folder, board, find_compiler(board, compiler)) == built


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_an_elf_of_make_is_not_taken_for_another_compilers(tmp_path: Path) -> None:
    write_project(tmp_path, BOARD, 262144, 64)
    built = firmware_of(tmp_path, BOARD, "gcc")
    before = built.elf_path.read_bytes()
    subprocess.run(["make", "OPTIMISE=-Os"], cwd=tmp_path, check=True, capture_output=True)
    assert built.elf_path.read_bytes() != before
    assert firmware_of(tmp_path, BOARD, "gcc") == built
    assert built.elf_path.read_bytes() == before


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="gcc is not installed")
def test_cmake_builds_both(make_project: MakeProject) -> None:
    folder = make_project()
    for name, option, product in (("arm", "OFF", "firmware.elf"), ("host", "ON", "host")):
        build = ["cmake", "-S", ".", "-B", f"build/cmake-{name}", f"-DTTE_HOST={option}"]
        subprocess.run(build, cwd=folder, check=True, capture_output=True)
        subprocess.run(
            ["cmake", "--build", f"build/cmake-{name}"], cwd=folder, check=True, capture_output=True
        )
        assert (folder / "build" / f"cmake-{name}" / product).is_file()
    elf = firmware_of(folder, BOARD, "gcc").elf_path
    sizes = [len(content) for content in _code(folder / "build" / "cmake-arm" / "firmware.elf")]
    assert sizes == [len(content) for content in _code(elf)]


def _code(elf_path: Path) -> list[bytes]:
    with elf_path.open("rb") as stream:
        return [segment.data() for segment in ELFFile(stream).iter_segments("PT_LOAD")]
