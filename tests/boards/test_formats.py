# SPDX-License-Identifier: Apache-2.0
"""Projects as the tools of others take them. CMake is run for real; of PlatformIO, Zephyr and
Arduino, which need downloads of their own, the structure is checked, with their rules in small."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from typer.testing import CliRunner

from tests.boards.conftest import Build, Built
from tte.board import list_boards, load_board
from tte.cli import app
from tte.codegen.project import COMPILE_FLAGS, LINK_FLAGS

needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


@pytest.fixture(scope="module")
def built(build: Build) -> Built:
    return build("stm32f4-discovery")


def names(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob(pattern)}


def program_sources(built: Built) -> set[str]:
    """What make compiles, seen from the folders."""
    fast = names(built.folder, "kernels/armv7em/*.c")
    portable = names(built.folder, "kernels/*.c")
    portable -= {name.replace("armv7em/", "") for name in fast}
    sources = names(built.folder, "src/*.c") | names(built.folder, "board/*.c")
    return sources | fast | portable | names(built.folder, "kernels/armv7em/*.S")


@needs_cmake
@pytest.mark.skipif(shutil.which("ninja") is None, reason="ninja is not installed")
def test_cmake_takes_the_toolchain_file(built: Built, tmp_path: Path) -> None:
    subprocess.run(
        [
            *("cmake", "-G", "Ninja", "-S", str(built.folder), "-B", str(tmp_path)),
            f"-DCMAKE_TOOLCHAIN_FILE={built.folder / 'arm-none-eabi.cmake'}",
        ],
        check=True,
        capture_output=True,
    )
    subprocess.run(["cmake", "--build", str(tmp_path)], check=True, capture_output=True)
    sizes = []
    for path in (tmp_path / "firmware.elf", built.firmware.elf_path):
        with path.open("rb") as stream:
            sections = ELFFile(stream).iter_sections()
            sizes.append([(s.name, s["sh_size"]) for s in sections if s["sh_flags"] & 2])
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("name", "platform", "board"),
    [
        ("stm32f4-discovery", "ststm32", "disco_f407vg"),
        ("raspberry-pi-pico", "raspberrypi", "pico"),
    ],
)
def test_platformio_builds_what_make_builds(
    name: str, platform: str, board: str, build: Build
) -> None:
    built = build(name)
    config = configparser.ConfigParser(interpolation=None)
    config.read(built.folder / "platformio.ini")
    environment = config[f"env:{name}"]
    assert config["platformio"]["src_dir"] == "."
    assert (environment["platform"], environment["board"]) == (platform, board)
    assert (built.folder / environment["board_build.ldscript"]).is_file()
    filters = environment["build_src_filter"].split()
    assert filters[0] == "-<*>"
    assert {entry.removeprefix("+<").removesuffix(">") for entry in filters[1:]} == (
        program_sources(built)
    )
    flags = set(environment["build_flags"].split())
    assert {*built.board.gcc_flags, *COMPILE_FLAGS, *LINK_FLAGS} < flags


def test_platformio_is_for_real_boards() -> None:
    for name in list_boards():
        board = load_board(name)
        assert (board.platformio is None) == (board.uart is None)


@needs_cmake
def test_zephyr_module_has_the_network_and_its_kernels(built: Built, tmp_path: Path) -> None:
    """Its CMake file is run with Zephyr's functions in their place."""
    module = (built.folder / "zephyr" / "module.yml").read_text()
    assert re.search(r"^build:\n  cmake: (\S+)\n  kconfig: (\S+)$", module, re.MULTILINE)
    assert "config TTE_MODEL\n\tbool " in (built.folder / "zephyr" / "Kconfig").read_text()
    script = tmp_path / "script.cmake"
    script.write_text(
        "function(zephyr_library_named)\nendfunction()\n"
        "function(zephyr_include_directories)\nendfunction()\n"
        "function(zephyr_library_compile_options)\nendfunction()\n"
        'function(zephyr_library_sources)\n  foreach(source ${ARGV})\n    message("${source}")\n'
        "  endforeach()\nendfunction()\nset(CONFIG_TTE_MODEL y)\n"
        f"include({built.folder}/zephyr/CMakeLists.txt)\n"
    )
    done = subprocess.run(["cmake", "-P", str(script)], check=True, capture_output=True, text=True)
    sources = {Path(line).resolve().relative_to(built.folder) for line in done.stderr.split()}
    network = {name for name in program_sources(built) if name.startswith("kernels/")}
    network |= {"src/model.c", "src/data.c"}
    assert {source.as_posix() for source in sources} == network


SKETCH = """
#include <stddef.h>
#include <stdint.h>
struct Line { void begin(long); size_t readBytes(char *, size_t); void println(long); };
extern Line Serial;
"""


def test_the_arduino_library_compiles_as_arduino_compiles_it(built: Built, tmp_path: Path) -> None:
    """One include folder, src/, and everything below it; the sketch is C++."""
    gcc = shutil.which("arm-none-eabi-gcc")
    if gcc is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    library = tmp_path / "library"
    done = CliRunner().invoke(app, ["export", str(built.folder), "-o", str(library)])
    assert done.exit_code == 0, done.output
    properties = dict(
        line.split("=", 1) for line in (library / "library.properties").read_text().splitlines()
    )
    assert {"name", "version", "author", "maintainer", "sentence", "paragraph"} < set(properties)
    assert (library / "src" / properties["includes"]).is_file()
    sources = sorted([*library.glob("src/**/*.c"), *library.glob("src/**/*.S")])
    assert len({path.name for path in sources}) == len(sources) > 5
    flags = [*built.board.gcc_flags, "-O1", "-Wall", "-Werror", f"-I{library / 'src'}"]
    done_c = subprocess.run(
        [gcc, *flags, "-c", *map(str, sources)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done_c.returncode == 0, done_c.stderr
    objects = sorted(map(str, tmp_path.glob("*.o")))
    partial = [gcc, *built.board.gcc_flags, "-nostdlib", "-r", *objects, "-o", "library.elf"]
    subprocess.run(partial, cwd=tmp_path, check=True)
    with (tmp_path / "library.elf").open("rb") as stream:
        symbols = list(ELFFile(stream).get_section_by_name(".symtab").iter_symbols())
    missing = {s.name for s in symbols if s.name and s["st_shndx"] == "SHN_UNDEF"}
    assert not {name for name in missing if name.startswith("tte_")}
    sketch = tmp_path / "Train.cpp"
    sketch.write_text(SKETCH + (library / "examples" / "Train" / "Train.ino").read_text())
    subprocess.run([gcc, *flags, "-x", "c++", "-c", str(sketch)], cwd=tmp_path, check=True)


def test_export_overwrites_nothing(built: Built, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(built.folder), "-o", str(tmp_path)])
    assert done.exit_code == 1 and "a folder that does not exist yet" in done.output
