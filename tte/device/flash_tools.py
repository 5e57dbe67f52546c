# SPDX-License-Identifier: Apache-2.0
"""The programs that bring a firmware onto a board: how each is called, how it lists its probes, and
what its output means. What they print was read from the programs themselves or from their users'
reports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tte.board import Board, Probe
from tte.errors import TteError

Command = tuple[str, ...]
# Vendors of probes that OpenOCD uses: ST-Link, J-Link, CMSIS-DAP of Arm and of Raspberry Pi.
_PROBE_VENDORS = {"0483", "1366", "0d28", "2e8a"}
_PROBE_WORDS = re.compile(r"st-?link|j-?link|cmsis-dap|daplink|picoprobe|debug probe", re.I)


@dataclass(frozen=True, slots=True)
class Tool:
    """`commands` names the files of the firmware without a folder: they run beside them. `lister`
    lists the probes; `read_list` finds their names in its output. `confirms` is found in the
    output of the last command when it has verified; "": its exit status says so."""

    name: str
    executable: str
    commands: Callable[[Board, Probe, str], list[Command]]
    install: str
    lister: Command = ()
    read_list: Callable[[str], list[str]] = lambda text: []
    confirms: str = ""


def _pyocd(board: Board, probe: Probe, name: str) -> list[Command]:
    # Without auto_unlock=false a protected chip would be erased whole, unasked.
    options: Command = ("--no-wait", "--no-config", "-O", "auto_unlock=false")
    options += ("-t", probe.pyocd_target)
    options += ("-u", name) if name else ()
    compare = f"compare {board.flash.origin:#x} firmware.bin"
    return [
        ("pyocd", "flash", *options, "--erase", "sector", "firmware.hex"),
        ("pyocd", "commander", *options, "-c", compare, "-c", "reset"),
    ]


def _openocd(board: Board, probe: Probe, name: str) -> list[Command]:
    files = [part for config in probe.openocd_config.split() for part in ("-f", config)]
    serial = ("-c", f"adapter serial {name}") if name else ()
    return [("openocd", *files, *serial, "-c", "program firmware.elf verify reset exit")]


def _st_flash(board: Board, probe: Probe, name: str) -> list[Command]:
    serial = ("--serial", name) if name else ()
    place = f"{board.flash.origin:#010x}"
    return [("st-flash", *serial, "--reset", "write", "firmware.bin", place)]


def _nrfjprog(board: Board, probe: Probe, name: str) -> list[Command]:
    serial = ("--snr", name) if name else ()
    options = ("--program", "firmware.hex", "--sectorerase", "--verify", "--reset")
    return [("nrfjprog", "--family", probe.nrf_family, *serial, *options)]


def _nrfutil(board: Board, probe: Probe, name: str) -> list[Command]:
    serial = ("--serial-number", name) if name else ()
    erase = "chip_erase_mode=ERASE_RANGES_TOUCHED_BY_FIRMWARE"
    options = f"{erase},verify=VERIFY_READ,reset=RESET_SYSTEM"
    file = ("--firmware", "firmware.hex")
    return [("nrfutil", "device", "program", *serial, *file, "--options", options)]


def _picotool(board: Board, probe: Probe, name: str) -> list[Command]:
    serial = ("--ser", name) if name else ()
    return [("picotool", "load", "--verify", "--execute", "firmware.uf2", *serial)]


def _pyocd_list(text: str) -> list[str]:
    try:
        return [str(board["unique_id"]) for board in json.loads(text)["boards"]]
    except (ValueError, KeyError, TypeError):
        return []


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "pyocd", "pyocd", _pyocd, "pip install pyocd",
            lister=("pyocd", "json", "--probes", "--no-config"), read_list=_pyocd_list,
            confirms=r"All \d+ bytes match",
        ),
        Tool(
            "openocd", "openocd", _openocd, "sudo apt install openocd",
            confirms=r"\*\* ?Verified OK",
        ),
        Tool(
            "st-flash", "st-flash", _st_flash, "sudo apt install stlink-tools",
            lister=("st-info", "--probe"),
            read_list=lambda text: re.findall(r"^\s*serial: *([0-9A-Za-z]+)", text, re.M),
            confirms=r"Flash written and verified",
        ),
        Tool(
            "nrfjprog", "nrfjprog", _nrfjprog,
            "the nRF Command Line Tools of nordicsemi.com",
            lister=("nrfjprog", "--ids"),
            read_list=lambda text: re.findall(r"^\s*(\d{6,12})\s*$", text, re.M),
        ),
        Tool(
            "nrfutil", "nrfutil", _nrfutil,
            "nrfutil of nordicsemi.com, then nrfutil install device",
            lister=("nrfutil", "device", "list"),
            read_list=lambda text: re.findall(r"^\s*0*(\d{6,12})\s*$", text, re.M),
        ),
        Tool(
            "picotool", "picotool", _picotool,
            "picotool of github.com/raspberrypi/picotool",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Symptom:
    """A pattern of a tool's output, and the message that it stands for."""

    pattern: str
    what: str
    hint: str


# The first that is found counts: what explains most comes first.
SYMPTOMS = (
    Symptom(
        r"LIBUSB_ERROR_ACCESS|[Aa]ccess denied|[Pp]ermission denied|insufficient permissions"
        r"|was unable to connect",
        "the probe is there, but this user may not open it",
        "install the tool's udev rules, or run the command as an administrator",
    ),
    Symptom(
        r"Target type '?(\S+?)'? not recognized",
        "pyOCD does not know the chip yet",
        "pyocd pack install {0}",
    ),
    Symptom(
        r"Can't find ((?:board|target|interface)/\S+)",
        "this OpenOCD has no configuration for the board",
        "OpenOCD 0.12 has it, or use another tool with --tool",
    ),
    Symptom(
        r"requires a single RP2\w+ device|[Mm]ultiple (?:debuggers|devices|probes)"
        r"|more than one (?:device|probe|debugger)",
        "several probes are connected",
        "name one with --probe",
    ),
    Symptom(
        r"No connected debug probes|[Nn]o available debug probes|Couldn't find any ST-Link"
        r"|There is no debugger connected|unable to find a matching CMSIS-DAP"
        r"|No J-Link device found|No accessible RP2\S* devices? in BOOTSEL|[Nn]o devices? found"
        r"|Probe \S+ not found|Error: open failed",
        "no probe was found",
        "plug the board in{1}",
    ),
    Symptom(
        r"APPROTECT enabled|AP lock engaged|readback protection|ap-protection is enabled"
        r"|[Dd]evice (?:is )?protected|memory is write protected|[Dd]evice [Ss]ecurity [Bb]it"
        r"|[Rr]ead[- ]?out protect|failed unlock",
        "the chip's flash is protected",
        "unlock it with its maker's tool; that erases all of it:\n"
        "nrfjprog --recover, or STM32CubeProgrammer: option bytes, RDP level 0",
    ),
    Symptom(
        r"UNEXPECTED|expected \d+ of \d+|unknown chip id|Could not find chip id"
        r"|does not match the device connected|Cannot identify target as"
        r"|family id\S* (?:is )?(?:not|cannot)",
        "the chip is another one than the board's",
        "check that this is the board that the project was compiled for",
    ),
    Symptom(
        r"No ACK|init mode failed|unable to connect to the target|Failed to connect to target"
        r"|Error connecting DP|examination failed|Unable to connect to a debugger",
        "the probe does not reach the chip",
        "check the board's power and the cable to the probe; hold reset while it connects",
    ),
    Symptom(
        r"Mismatched byte|Verification of flash failed|contents differ|checksum mismatch"
        r"|[Vv]erify failed|[Vv]erification failed",
        "the flash does not hold what was written",
        "try again; where it fails again, the flash is worn or protected",
    ),
)


def explain(tool: str, board: Board, output: str, status: int | None) -> TteError:
    """The message for the output of a tool that failed, which ended with `status` (None: not)."""
    where = f"{tool}, {board.name}"
    hold = ", with BOOTSEL held" if board.probe and board.probe.uf2_volume else ""
    for symptom in SYMPTOMS:
        found = re.search(symptom.pattern, output)
        if found:
            line = _line_of(output, found.start())
            name = found[1] if found.re.groups else ""
            return TteError(
                symptom.what, where=where, why=line, hint=symptom.hint.format(name, hold)
            )
    lines = [line for line in output.replace("\r", "\n").splitlines() if line.strip()]
    why = "it took too long" if status is None else f"it ended with status {status}"
    return TteError(
        f"{tool} could not flash the board", where=where, why="\n".join([why, *lines[-6:]])
    )


def _line_of(text: str, position: int) -> str:
    start = max(text.rfind("\n", 0, position), text.rfind("\r", 0, position)) + 1
    return re.split(r"[\r\n]", text[start : start + 300], maxsplit=1)[0].strip()


def usb_probes(devices: Path = Path("/sys/bus/usb/devices")) -> list[str]:
    """The serial numbers of probes on the USB, where Linux tells; for tools that list none."""
    found = []
    for folder in sorted(devices.glob("*")):
        vendor, product, serial = (
            _attribute(folder / name) for name in ("idVendor", "product", "serial")
        )
        if vendor in _PROBE_VENDORS and serial and _PROBE_WORDS.search(product):
            found.append(serial)
    return found


def _attribute(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
