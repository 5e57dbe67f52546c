# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Renode: reads the generated scripts and runs their firmware with unicorn.

It takes Renode's command line, holds scripts and platforms to the strict grammar, executes their
Python as it stands, and behaves as Renode does where that matters: what is not mapped reads as 0
and is logged, a wild jump aborts the core and hangs, an existing file is not overwritten.
FAKE_RENODE has words that make it misbehave: version-X, crash, hang, nonsense, error, busfault.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import time
import types
from pathlib import Path
from typing import Any

import unicorn
from unicorn import arm_const as arm

from tests.emulate.renode_scripts import (
    PATH,
    Command,
    Platform,
    read_platform,
    read_query,
    read_script,
)
from tte.emulate.image import read_image
from tte.emulate.unicorn_backend import _thumb_instructions

FLAGS = ["--console", "--disable-xwt", "--plain", "--hide-log", "--config"]
CPUS = {
    "cortex-m0+": arm.UC_CPU_ARM_CORTEX_M0,
    "cortex-m3": arm.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4f": arm.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": arm.UC_CPU_ARM_CORTEX_M33,
}
WIDTHS = {1: "Byte", 2: "Word", 4: "DoubleWord", 8: "QuadWord"}
SYSTEM, AIRCR, CFSR, BFAR = 0xE0000000, 0xE000ED0C, 0xE000ED28, 0xE000ED38
BUS_FAULT = 5
MISBEHAVIOUR = set(os.environ.get("FAKE_RENODE", "").split())


class Uart:
    """The UART of the Cortex-M System Design Kit, as Renode models it: a queue without end."""

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.control = 0
        self.stream: Any = None

    def WriteChar(self, byte: int) -> None:
        assert 0 <= byte <= 255
        self.queue.append(byte)

    def read(self, uc: Any, offset: int, size: int, data: Any) -> int:
        if offset == 0:
            assert self.control & 2, "the receiver is off"
            return self.queue.pop(0) if self.queue else 0
        return {4: 2 if self.queue else 0, 8: self.control}.get(offset, 0)

    def write(self, uc: Any, offset: int, size: int, value: int, data: Any) -> None:
        if offset == 8:
            self.control = value
        elif offset == 0 and self.control & 1 and self.stream is not None:
            self.stream.write(bytes([value & 255]))
            self.stream.flush()


class Machine:
    """Cpu, bus and clock in one."""

    def __init__(self, platform: Platform) -> None:
        cpu = platform.entries["cpu"].properties
        self.instructions_per_ms = 1000 * int(cpu.get("PerformanceInMips", "100"))
        self.uc: Any = unicorn.Uc(
            unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
        )
        self.uc.ctl_set_cpu_model(CPUS[cpu["cpuType"]])
        self.uarts = {}
        for entry in platform.entries.values():
            if entry.kind == "Memory.MappedMemory":
                self.uc.mem_map(entry.address, int(entry.properties["size"], 16))
            elif entry.kind.startswith("UART."):
                uart = self.uarts[f"sysbus.{entry.name}"] = Uart()
                self.uc.mmio_map(entry.address, 4096, uart.read, None, uart.write, None)
        self.tags: list[tuple[int, int, str]] = []
        self.uc.mem_map(SYSTEM, 0x100000)
        self.log: Any = None
        self.vectors = 0
        self.UnexpectedReads = self.UnexpectedWrites = 0
        self.ExecutedInstructions = self.end = 0
        self.resets = False
        self.bad: int | None = None  # the address of a bus fault to come
        self.lengths: dict[tuple[int, int], int] = {}
        self.uc.hook_add(unicorn.UC_HOOK_BLOCK, self.on_block)
        unmapped = unicorn.UC_HOOK_MEM_READ_UNMAPPED | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED
        self.uc.hook_add(unmapped, self.on_unmapped)
        self.uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, self.on_reset, begin=AIRCR, end=AIRCR)

    def load(self, path: str) -> None:
        for address, content in read_image(Path(path)).segments:
            self.uc.mem_write(address, content)

    def add_hook(self, address: int, code: str) -> None:
        compiled = compile(code, "hook", "exec")

        def hook(uc: Any, at: int, size: int, data: Any) -> None:
            exec(compiled, {"cpu": self, "self": self})

        self.uc.hook_add(unicorn.UC_HOOK_CODE, hook, begin=address, end=address)

    def reset(self) -> None:
        stack, start = struct.unpack("<2I", self.uc.mem_read(self.vectors, 8))
        self.uc.reg_write(arm.UC_ARM_REG_SP, stack)
        self.uc.reg_write(arm.UC_ARM_REG_PC, start | 1)

    def run(self, ms: int) -> None:
        """As many instructions as the time has, up to the end of a basic block."""
        self.end += ms * self.instructions_per_ms
        while self.ExecutedInstructions < self.end:
            pc = self.uc.reg_read(arm.UC_ARM_REG_PC)
            try:
                self.uc.emu_start(pc | 1, 0xFFFFFFFE)
            except unicorn.UcError:
                self.abort()
            if self.resets:
                self.resets = False
                self.reset()
            elif self.bad is not None:
                self.take_bus_fault(self.bad)
                self.bad = None

    def write_log(self, level: str, text: str) -> None:
        if self.log is None:
            return
        self.log.write(f"12:00:00.0000 [{level}] {text}\n")
        self.log.flush()

    def abort(self) -> None:
        pc = self.uc.reg_read(arm.UC_ARM_REG_PC)
        where = "Trying to execute code outside RAM or ROM at"
        self.write_log("ERROR", f"cpu: CPU abort [PC=0x{pc:X}]: {where} 0x{pc:08X}.")
        time.sleep(3600)

    def on_block(self, uc: Any, address: int, size: int, data: Any) -> None:
        if self.ExecutedInstructions >= self.end:
            uc.emu_stop()  # before this block, which comes again
            return
        key = address, size
        if key not in self.lengths:
            self.lengths[key] = _thumb_instructions(bytes(uc.mem_read(address, size)))
        self.ExecutedInstructions += self.lengths[key]

    def on_reset(self, uc: Any, kind: int, at: int, size: int, value: int, data: Any) -> None:
        if value == 0x05FA0004:
            self.resets = True
            uc.emu_stop()

    def on_unmapped(self, uc: Any, kind: int, at: int, size: int, value: int, data: Any) -> bool:
        if "busfault" in MISBEHAVIOUR:
            self.bad = at
            uc.mem_map(at & ~4095, 4096)
            uc.emu_stop()
            return True
        pc = uc.reg_read(arm.UC_ARM_REG_PC)
        tag = "".join(f" (tag: '{n}')" for first, last, n in self.tags if first <= at <= last)
        if kind == unicorn.UC_MEM_WRITE_UNMAPPED:
            self.UnexpectedWrites += 1
            what = f"Write{WIDTHS[size]} to non existing peripheral at 0x{at:X}, value 0x{value:X}."
        else:
            self.UnexpectedReads += 1
            what = f"Read{WIDTHS[size]} from non existing peripheral at 0x{at:X}, returning 0x0."
        self.write_log("WARNING", f"sysbus: [cpu: 0x{pc:X}]{tag} {what}")
        uc.mem_map(at & ~4095, 4096)
        return True

    def take_bus_fault(self, address: int) -> None:
        """As Armv7-M does: the frame on the stack, then the handler."""
        uc = self.uc
        names = ("R0", "R1", "R2", "R3", "R12", "LR", "PC", "XPSR")
        frame = [uc.reg_read(getattr(arm, f"UC_ARM_REG_{name}")) for name in names]
        stack = uc.reg_read(arm.UC_ARM_REG_SP) - 32
        uc.mem_write(stack, struct.pack("<8I", *frame))
        uc.mem_write(CFSR, struct.pack("<I", 0x8200))
        uc.mem_write(BFAR, struct.pack("<I", address))
        uc.reg_write(arm.UC_ARM_REG_SP, stack)
        uc.reg_write(arm.UC_ARM_REG_LR, 0xFFFFFFF9)
        uc.reg_write(arm.UC_ARM_REG_IPSR, BUS_FAULT)
        (handler,) = struct.unpack("<I", uc.mem_read(self.vectors + 4 * BUS_FAULT, 4))
        uc.reg_write(arm.UC_ARM_REG_PC, handler | 1)


def shim(name: str, **members: Any) -> types.ModuleType:
    module = sys.modules[name] = types.ModuleType(name)
    for member, value in members.items():
        setattr(module, member, value)
    return module


def install_dotnet(machine: Machine) -> None:
    """As much of .NET and of Renode's classes as a script's Python may use."""

    class TimeInterval:
        def __init__(self, ms: int) -> None:
            self.ms = ms

        FromMilliseconds = staticmethod(lambda ms: TimeInterval(ms))

    class FileInfo:
        def __init__(self, path: str) -> None:
            self.Length = os.stat(path).st_size

    def move(source: str, target: str) -> None:
        assert not os.path.exists(target)
        os.rename(source, target)

    file = types.SimpleNamespace(
        Exists=os.path.isfile,
        ReadAllText=lambda path: Path(path).read_text(),
        WriteAllText=lambda path, text: Path(path).write_text(text),
        Delete=os.unlink,
        Move=move,
    )
    thread = types.SimpleNamespace(Sleep=lambda ms: time.sleep(ms / 1000))
    objects = {"sysbus": machine, "sysbus.cpu": machine, **machine.uarts}
    emulation = types.SimpleNamespace(
        TryGetMachineByName=lambda name: (name == "tte", objects),
        RunFor=lambda interval: machine.run(interval.ms),
    )
    instance = types.SimpleNamespace(CurrentEmulation=emulation)
    manager = shim("Antmicro.Renode.Core.EmulationManager", Instance=instance)
    shim("Antmicro").Renode = shim(  # type: ignore[attr-defined]
        "Antmicro.Renode",
        Time=shim("Antmicro.Renode.Time", TimeInterval=TimeInterval),
        Core=shim("Antmicro.Renode.Core", EmulationManager=manager),
    )
    shim(
        "System",
        IO=types.SimpleNamespace(File=file, FileInfo=FileInfo),
        Threading=types.SimpleNamespace(Thread=thread),
    )


class Monitor:
    """Carries out scripts, and answers a test's questions."""

    def __init__(self) -> None:
        self.machine: Any = None
        self.symbols: dict[str, int] = {}

    def script(self, path: Path) -> None:
        for command in read_script(path.read_text()):
            self.run(command, path.parent)

    def run(self, command: Command, origin: Path) -> None:
        machine, arguments = self.machine, command.arguments
        paths = [
            argument.replace("$ORIGIN", str(origin)).removeprefix("@")
            for argument in arguments
            if re.fullmatch(PATH, argument)
        ]
        if command.name == "platform":
            self.machine = Machine(read_platform(Path(paths[0]).read_text()))
            install_dotnet(self.machine)
        elif command.name == "tag":
            machine.tags.append((int(arguments[0], 16), int(arguments[1], 16), arguments[2]))
        elif command.name == "log":
            machine.log = open(paths[0], "x")  # noqa: SIM115
        elif command.name == "load":
            self.symbols = read_image(Path(paths[0])).symbols
            machine.load(paths[0])
        elif command.name == "vectors":
            machine.vectors = int(arguments[0], 16)
            machine.reset()
        elif command.name == "hook":
            place = re.fullmatch(r'`sysbus GetSymbolAddress "(.*)"`', arguments[0])
            address = self.symbols[place[1]] & ~1 if place else int(arguments[0], 16)
            machine.add_hook(address, arguments[1])
        elif command.name == "output":
            machine.uarts[arguments[0]].stream = new_file(paths[0])
        elif command.name == "python":
            self.python(arguments[0])
        else:
            assert command.name in ("using", "create", "quantum", "immediately", "quit"), command

    def python(self, code: str) -> None:
        if "crash" in MISBEHAVIOUR:
            print("Fatal error: out of luck")
            sys.stdout.flush()
            os._exit(1)
        if "hang" in MISBEHAVIOUR:
            time.sleep(3600)
        if "nonsense" in MISBEHAVIOUR:
            code = code.replace('"%s bytes=', '"%s octets=')
        exec(compile(code, "script", "exec"), {})

    def query(self, line: str) -> str:
        command = read_query(line)
        argument = command.arguments[0] if command.arguments else ""
        if command.name == "symbol":
            value = self.symbols[argument] & ~1
        elif command.name == "word":
            (value,) = struct.unpack("<I", self.machine.uc.mem_read(int(argument, 16), 4))
        elif command.name == "reads":
            value = self.machine.UnexpectedReads
        else:
            value = self.machine.UnexpectedWrites
        return f"0x{value:08X}\r\n"


def new_file(path: str) -> Any:
    assert not os.path.exists(path), f"{path} is there, Renode would rename it"
    return open(path, "wb")


def main() -> None:
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        wrong = [word[8:] for word in MISBEHAVIOUR if word.startswith("version-")]
        print(f"Renode, version {wrong[0] if wrong else '1.16.1.0'} (fake)")
        return
    assert arguments[:5] == FLAGS and arguments[6] == "-e", arguments
    assert Path(arguments[5]).is_absolute() and "HOME" not in arguments[5]
    include = arguments[7]
    assert include.startswith("include @/")
    if "error" in MISBEHAVIOUR:
        print("There was an error executing command 'include'\nError E05: Cannot find a platform")
        return
    Monitor().script(Path(include[9:]))


if __name__ == "__main__":
    main()
