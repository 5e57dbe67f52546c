# SPDX-License-Identifier: Apache-2.0
"""tte flash: the commands, what the tools' outputs mean, UF2 volumes, and OpenOCD's own check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.device.flash_stubs import Stubs, pyocd_json, st_info
from tests.emulate.fake_project import fake_program, firmware_of, write_project
from tte import cli
from tte.board import Board, Probe, list_boards, load_board
from tte.device import flash
from tte.device.flash import carry_out, make_plan
from tte.device.flash_tools import SYMPTOMS, TOOLS, explain, usb_probes
from tte.errors import TteError, UsageError

BOARD = "stm32f4-discovery"
WRITTEN = "2026-01-01T00:00:00 INFO common.c: Flash written and verified! jolly good!"
OPENOCD = (
    "** Programming Started **\n** Programming Finished **\n** Verified OK **\n** Resetting **"
)
PROBED = [name for name in list_boards() if load_board(name).probe is not None]


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(flash, "usb_probes", list)
    return Stubs(folder)


@pytest.fixture(scope="session")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flash")
    board = load_board(BOARD)
    write_project(folder, BOARD, board.sram_bytes, 64)
    return firmware_of(folder, BOARD, "gcc").elf_path


def board_with(tools: tuple[str, ...] = (), **changes: str) -> Board:
    board = load_board(BOARD)
    assert board.probe is not None
    probe = replace(board.probe, **changes, **({"tools": tools} if tools else {}))
    return replace(board, probe=probe)


def silent(text: str) -> None:
    pass


def flash_it(board: Board, elf: Path, tool: str = "", probe: str = "") -> int:
    return carry_out(make_plan(board, tool, probe), board, elf, silent)


def test_the_first_tool_that_is_there_flashes(stubs: Stubs, elf: Path) -> None:
    stubs.add("st-flash", ([], WRITTEN, 0))
    stubs.add("st-info", (["--probe"], st_info("066AFF"), 0))
    size = flash_it(load_board(BOARD), elf)
    (_, _), (command, files) = stubs.calls()
    assert command == ["st-flash", "--reset", "write", "firmware.bin", "0x08000000"]
    assert files["firmware.bin"] == size and {"firmware.elf", "firmware.hex"} <= set(files)
    stubs.add("openocd", ([], OPENOCD, 0))
    flash_it(load_board(BOARD), elf, probe="066AFF")
    assert stubs.calls()[-1][0] == [
        "openocd", "-f", "board/stm32f4discovery.cfg", "-c", "adapter serial 066AFF",
        "-c", "program firmware.elf verify reset exit",
    ]  # fmt: skip


def test_pyocd_writes_and_then_compares(stubs: Stubs, elf: Path) -> None:
    stubs.add(
        "pyocd",
        (["json"], pyocd_json("A1"), 0),
        (["flash"], "[==================================================] 100%", 0),
        (["commander"], "Comparing 32768 bytes @ 0x08000000\nAll 32768 bytes match.", 0),
    )
    flash_it(load_board(BOARD), elf, "pyocd")
    written, compared = (command for command, _ in stubs.calls()[1:])
    assert written[1] == "flash" and written[-1] == "firmware.hex"
    assert "auto_unlock=false" in written and "--no-config" in written
    assert "compare 0x8000000 firmware.bin" in compared


def test_nordic_and_raspberry_tools(stubs: Stubs, elf: Path) -> None:
    board = board_with(("nrfjprog", "nrfutil", "picotool"), nrf_family="NRF52")
    board = replace(board, uf2_family=0xE48BFF56)
    stubs.add("nrfjprog", (["--ids"], "683012345\n", 0), ([], "Verified OK.", 0))
    flash_it(board, elf)
    assert stubs.calls()[-1][0][:5] == [
        "nrfjprog",
        "--family",
        "NRF52",
        "--program",
        "firmware.hex",
    ]
    stubs.add("nrfutil", (["list"], "683012345\nproduct J-Link\n", 0), (["program"], "ok", 0))
    flash_it(board, elf, "nrfutil", "683012345")
    assert "--serial-number" in stubs.calls()[-1][0]
    stubs.add("picotool", ([], "Verifying Flash: [====] 100%\n  OK", 0))
    flash_it(board, elf, "picotool")
    command, files = stubs.calls()[-1]
    assert command == ["picotool", "load", "--verify", "--execute", "firmware.uf2"]
    assert files["firmware.uf2"] % 512 == 0


def test_no_probe_and_several_probes(stubs: Stubs, elf: Path) -> None:
    stubs.add("st-flash", ([], WRITTEN, 0))
    stubs.add("st-info", ([], st_info(), 0))
    with pytest.raises(TteError) as caught:
        flash_it(load_board(BOARD), elf)
    assert caught.value.what == "no probe was found"
    stubs.add("st-info", ([], st_info("066AFF", "0671FF"), 0))
    with pytest.raises(TteError) as caught:
        flash_it(load_board(BOARD), elf)
    assert caught.value.why == "066AFF\n0671FF" and "--probe 066AFF" in caught.value.hint
    with pytest.raises(TteError) as caught:
        flash_it(load_board(BOARD), elf, probe="99")
    assert "no probe 99" in caught.value.what
    flash_it(load_board(BOARD), elf, probe="0671FF")
    assert stubs.calls()[-1][0][1:3] == ["--serial", "0671FF"]


def test_another_chip_is_not_written_to(stubs: Stubs, elf: Path) -> None:
    stubs.add("st-flash", ([], WRITTEN, 0))
    stubs.add("st-info", ([], st_info("066AFF", flash=131072, chip="STM32F1xx_MD"), 0))
    with pytest.raises(TteError) as caught:
        flash_it(load_board(BOARD), elf)
    assert "another one" in caught.value.what and "STM32F1xx_MD" in caught.value.why
    assert all(command[0] != "st-flash" for command, _ in stubs.calls())


# What the tools print, and what it means.
OUTPUTS = [
    ("pyocd", "No connected debug probes\n0001460 E No target device available", "no probe"),
    ("openocd", "Info : clock speed 2000 kHz\nError: open failed", "no probe"),
    ("openocd", "Error: unable to find a matching CMSIS-DAP device", "no probe"),
    ("openocd", "Error: No J-Link device found", "no probe"),
    ("st-flash", "2026-11-27T11:48:58 WARN usb.c: Couldn't find any ST-Link devices", "no probe"),
    ("nrfjprog", "ERROR: There is no debugger connected to the PC.", "no probe"),
    ("picotool", "No accessible RP2040/RP2350 devices in BOOTSEL mode were found.", "no probe"),
    ("picotool", "ERROR: Command requires a single RP2040 device to be targeted.",
     "several probes"),
    ("picotool", "No accessible RP2040 devices in BOOTSEL mode were found.\n\nbut:\n\nDevice at bus"
     " 20, address 9 appears to be a RP2040 device in BOOTSEL mode, but picotool was unable to"
     " connect", "may not open"),
    ("openocd", "Error: libusb_open() failed with LIBUSB_ERROR_ACCESS\nError: open failed",
     "may not open"),
    ("openocd", "Warn : UNEXPECTED idcode: 0x1ba01477\nError: expected 1 of 1: 0x2ba01477",
     "another one"),
    ("openocd", "Warn : Cannot identify target as a STM32 family.", "another one"),
    ("st-flash", "2020-12-27T11:16:13 WARN common.c: unknown chip id! 0x3748\n"
     "Failed to connect to target", "another one"),
    ("nrfjprog", "ERROR: The --family option given with the command (or the default from\n"
     "ERROR: nrfjprog.ini) does not match the device connected.", "another one"),
    ("nrfjprog", "ERROR: The operation attempted is unavailable due to readback protection in\n"
     "ERROR: your device. Please use --recover to unlock the device.", "protected"),
    ("openocd", "Error: nRF52 device has AP lock engaged (see UICR APPROTECT register).",
     "protected"),
    ("openocd", "Error: stm32x device protected\nError: failed erasing sectors 0", "protected"),
    ("pyocd", "0000811 W NRF52840 APPROTECT enabled: not automatically unlocking", "protected"),
    ("st-flash", "ERROR flashloader.c: Flash memory is write protected", "protected"),
    ("pyocd", "0000345 C Target type stm32f407vg not recognized. Use 'pyocd list --targets'",
     "does not know the chip"),
    ("openocd", "startup.tcl:28: Error: Can't find board/st_nucleo_l5.cfg", "no configuration"),
    ("openocd", "Error: init mode failed (unable to connect to the target)", "does not reach"),
    ("st-flash", "ERROR common.c: Verification of flash failed at offset: 0", "does not hold"),
    ("pyocd", "Mismatched byte at 0x08000010 (offset 0x10): 0xff (memory) != 0x2d (file)",
     "does not hold"),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "output", "what"), OUTPUTS)
def test_outputs_of_tools_become_one_message(
    tool: str, output: str, what: str, stubs: Stubs, elf: Path
) -> None:
    board = board_with(tuple(TOOLS), nrf_family="NRF52", uf2_volume="RPI-RP2")
    board = replace(board, uf2_family=1)
    listing = {"pyocd": pyocd_json("A1"), "nrfjprog": "683012345"}.get(tool, "")
    words = {"pyocd": ["json"], "nrfjprog": ["--ids"]}.get(tool, ["never"])
    stubs.add(tool, (words, listing, 0), ([], output, 1))
    with pytest.raises(TteError) as caught:
        flash_it(board, elf, tool)
    error = caught.value
    assert what in error.what and error.exit_status == 1 and error.hint
    assert error.why and error.why in output and "{" not in error.hint


def test_every_symptom_is_among_the_outputs() -> None:
    board = load_board(BOARD)
    found = {explain(tool, board, output, 1).what for tool, output, _ in OUTPUTS}
    assert found == {symptom.what for symptom in SYMPTOMS}


def test_silence_and_nonsense_are_no_success(
    stubs: Stubs, elf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs.add("openocd", ([], "** Programming Finished **", 0))
    with pytest.raises(TteError) as caught:
        flash_it(load_board(BOARD), elf, "openocd")
    assert "could not flash" in caught.value.what
    stubs.add("openocd", ([], "line\n" * 50 + "last", 3))
    with pytest.raises(TteError) as caught:
        flash_it(load_board(BOARD), elf, "openocd")
    assert caught.value.why.startswith("it ended with status 3") and "last" in caught.value.why
    path = stubs.folder / "openocd"
    path.write_text(path.read_text().replace("import json, os, sys", "import time, os, json, sys\n"
                                             "time.sleep(60)"))  # fmt: skip
    monkeypatch.setattr(flash, "LIMIT_S", 0.5)
    start = time.monotonic()
    with pytest.raises(TteError) as caught:
        flash_it(load_board(BOARD), elf, "openocd")
    assert "it took too long" in caught.value.why and time.monotonic() - start < 20


def test_nothing_installed_says_what_to_install(stubs: Stubs, elf: Path) -> None:
    with pytest.raises(TteError) as caught:
        make_plan(load_board(BOARD))
    assert "pip install pyocd" in caught.value.hint
    assert "apt install stlink-tools" in caught.value.hint
    with pytest.raises(TteError) as caught:
        make_plan(load_board("mps2-an386"))
    assert "emulators only" in caught.value.why


@pytest.mark.parametrize("name", ["a b", "x; reboot", "$(id)", "[exec id]", "-c", "x\n"])
def test_a_probe_is_a_plain_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is a folder of that name: only UF2 volumes are folders."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        make_plan(load_board(BOARD), "openocd", name, dry=True)
    Path(name).mkdir(parents=True)
    with pytest.raises(UsageError):
        make_plan(load_board(BOARD), "openocd", name, dry=True)


def test_a_tool_of_another_board_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(load_board(BOARD), "picotool")
    assert "st-flash" in caught.value.hint


# ---- UF2 ----------------------------------------------------------------------------------


def pico() -> Board:
    board = board_with(("uf2",), uf2_volume="RPI-RP2")
    return replace(board, uf2_family=0xE48BFF56)


def mount(folder: Path, board_id: str = "RPI-RP2") -> Path:
    folder.mkdir(parents=True)
    info = f"UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: {board_id}\n"
    (folder / "INFO_UF2.TXT").write_text(info)
    return folder


def test_a_uf2_volume_takes_the_file_and_goes(
    tmp_path: Path, elf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = mount(tmp_path / "media" / "user" / "RPI-RP2")
    monkeypatch.setattr(flash, "_volumes", lambda name: [volume])
    threading.Timer(0.5, (volume / "INFO_UF2.TXT").unlink).start()
    flash_it(pico(), elf)
    data = (volume / "firmware.uf2").read_bytes()
    assert data[:4] == b"UF2\n" and len(data) % 512 == 0


def test_what_a_uf2_board_does_wrong_is_one_message(
    tmp_path: Path, elf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "UF2_TAKEN_S", 0.2)
    monkeypatch.setattr(flash, "_volumes", lambda name: [])
    with pytest.raises(TteError) as caught:
        flash_it(pico(), elf)
    assert "BOOTSEL" in caught.value.hint
    one, other = mount(tmp_path / "1" / "RPI-RP2"), mount(tmp_path / "2" / "RPI-RP2")
    monkeypatch.setattr(flash, "_volumes", lambda name: [one, other])
    with pytest.raises(TteError) as caught:
        flash_it(pico(), elf)
    assert "several boards" in caught.value.what and str(other) in caught.value.why
    with pytest.raises(TteError) as caught:
        flash_it(pico(), elf, probe=str(other))
    assert "did not take" in caught.value.what
    wrong = mount(tmp_path / "3", "RP2350")
    with pytest.raises(TteError) as caught:
        flash_it(pico(), elf, probe=str(wrong))
    assert "another one" in caught.value.what and "RP2350" in caught.value.why
    (tmp_path / "4").mkdir()
    with pytest.raises(TteError) as caught:
        flash_it(pico(), elf, probe=str(tmp_path / "4"))
    assert "no volume" in caught.value.what


def test_volumes_are_found_where_systems_mount_them(tmp_path: Path) -> None:
    mount(tmp_path / "user" / "RPI-RP2")
    mount(tmp_path / "RPI-RP2")
    assert next(flash._below(tmp_path, "RPI-RP2")).parent == tmp_path
    assert sum((p / "INFO_UF2.TXT").is_file() for p in flash._below(tmp_path, "RPI-RP2")) == 2
    assert flash._volumes("") == []


def test_probes_on_the_usb(tmp_path: Path) -> None:
    for name, vendor, product, serial in (
        ("1-1", "0483", "STM32 STLink", "066AFF"),
        ("1-2", "0483", "STM32 Virtual ComPort", "3333"),
        ("1-3", "1366", "J-Link", "000683012345"),
        ("1-4", "046d", "Debug Probe Mouse", "7"),
    ):
        (tmp_path / name).mkdir()
        for file, text in (("idVendor", vendor), ("product", product), ("serial", serial)):
            (tmp_path / name / file).write_text(text + "\n")
    assert usb_probes(tmp_path) == ["066AFF", "000683012345"]


# ---- the command line ---------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tte", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def project(tmp_path: Path, elf: Path) -> Path:
    folder = tmp_path / "it's $HOME"
    shutil.copytree(elf.parents[1], folder)
    program = fake_program(BOARD, load_board(BOARD).sram_bytes) | {"compiler": "gcc"}
    (folder / "program.json").write_text(json.dumps(program))
    return folder


def test_a_dry_run_prints_what_a_shell_would_take(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "flash", project, "--dry-run", "--tool", "st-flash") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "st-flash --reset write firmware.bin 0x08000000"
    done = subprocess.run(["sh", "-c", lines[0] + " && ls"], capture_output=True, text=True)
    assert "firmware.elf" in done.stdout
    assert run(monkeypatch, "flash", project, "--dry-run", "--tool", "st-flash", "--json", "-") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["commands"][0][0] == "st-flash" and facts["verified"] is False


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="gcc is not installed")
def test_the_command_flashes_and_reports(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    Stubs(folder).add("openocd", ([], OPENOCD, 0))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(flash, "usb_probes", list)
    assert run(monkeypatch, "flash", project, "--tool", "openocd") == 0
    captured = capfd.readouterr()
    assert "runs the firmware" in captured.out and "Verified OK" in captured.err
    Stubs(folder).add("openocd", ([], "Error: open failed", 1))
    assert run(monkeypatch, "flash", project, "--tool", "openocd", "--quiet") == 1
    captured = capfd.readouterr()
    assert captured.err.startswith("error: no probe was found") and "Traceback" not in captured.err


def test_a_hostile_project_chooses_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = json.loads((project / "program.json").read_text())
    for board in ("../../etc", "$(id)", 7, None, ["mps2-an386"], {}):
        (project / "program.json").write_text(json.dumps(program | {"board": board}))
        assert run(monkeypatch, "flash", project, "--dry-run") == 1
        captured = capfd.readouterr()
        assert captured.out == "" and "internal error" not in captured.err


# ---- the real OpenOCD ---------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openocd") is None, reason="openocd is not installed")
@pytest.mark.parametrize("name", [n for n in PROBED if "openocd" in load_board(n).probe.tools])
def test_openocd_accepts_the_configuration(name: str) -> None:
    probe = load_board(name).probe
    assert isinstance(probe, Probe)
    (command,) = make_plan(load_board(name), "openocd", "0123", dry=True).commands
    assert command[-1] == "program firmware.elf verify reset exit"
    check = [*command[:-1], "noinit; shutdown"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("openocd") is None, reason="openocd is not installed")
def test_the_real_openocd_without_a_probe_is_understood(elf: Path) -> None:
    if usb_probes():
        pytest.skip("a probe is connected")
    with pytest.raises(TteError) as caught:
        flash_it(load_board(BOARD), elf, "openocd")
    assert caught.value.what == "no probe was found"


@pytest.mark.parametrize("name", PROBED)
def test_every_board_has_a_plan_for_each_of_its_tools(name: str) -> None:
    board = load_board(name)
    assert board.probe is not None
    for tool in board.probe.tools:
        plan = make_plan(board, tool, dry=True)
        for command in plan.commands:
            assert all(argument for argument in command), command
        assert plan.commands or plan.volume
