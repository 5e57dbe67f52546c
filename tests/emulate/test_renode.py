# SPDX-License-Identifier: Apache-2.0
"""Renode's back end against a stand-in that runs its scripts; its bare core's port in QEMU."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from tests.emulate.fake_project import MakeProject, OpenFake, fake_program, firmware_of
from tests.emulate.renode_scripts import (
    Command,
    check_python,
    read_platform,
    read_script,
)
from tests.emulate.test_session import (
    HANG,
    JUMP_TO_SRAM,
    READ_LAST_WORD,
    READ_PAST,
    SAMPLE,
    WRITE_PAST,
    conversation,
    misbehaving,
)
from tte.board import Board, enforced_limits, list_boards, load_board
from tte.build import build_firmware, find_compiler
from tte.codegen.renode import outside, platform_text, run_script
from tte.data import InputTransform
from tte.device.recording import record_training
from tte.device.run import read_program
from tte.emulate import Session, open_session
from tte.emulate import renode as backend
from tte.errors import FirmwareFault, TteError

ROOT = Path(__file__).resolve().parents[2]
BARE = ["mps2-an386", "raspberry-pi-pico"]
Misbehave = Callable[[str], None]


# Time ends with a basic block of so many instructions at most; unicorn does not always cut the loop
# that waits for bytes at the same place.
BLOCK = 100


@pytest.fixture
def misbehave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Misbehave:
    """Puts the stand-in in Renode's place; misbehave(words) tells it what to do wrong."""
    fake = tmp_path / "renode"
    fake.write_text(
        f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m tests.emulate.fake_renode"
        ' "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("RENODE", str(fake))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    backend._version.cache_clear()

    def words(text: str) -> None:
        monkeypatch.setenv("FAKE_RENODE", text)

    words("")
    return words


@pytest.mark.parametrize("board", BARE)
def test_answers_and_state_are_those_of_the_host(
    board: str, open_fake: OpenFake, misbehave: Misbehave
) -> None:
    with open_fake("host", board) as session:
        expected = conversation(session)
    with open_fake("renode", board) as session:
        assert conversation(session) == expected
        assert session.emulator_name == "renode" and session.emulator_version == "1.16.1.0"
        assert 64 < session.stack_bytes() < 2048


def test_counts_are_exact_and_repeatable(open_fake: OpenFake, misbehave: Misbehave) -> None:
    def counts(emulator: str) -> list[int]:
        with open_fake(emulator) as session:
            session.set_learning_rate(0.5)
            found = []
            for command in (
                lambda: session.infer(SAMPLE),
                lambda: session.train(SAMPLE, 2),
                lambda: session.infer(SAMPLE),
            ):
                assert session.count_ops(command) is None
                command()
                found.append(session.instructions())
            if emulator == "renode":
                in_all.append(session._transport.instructions_in_all)  # type: ignore[attr-defined]
            return found

    in_all: list[int] = []
    first = counts("renode")
    assert first == counts("renode") and first[0] == first[2]
    assert abs(in_all[0] - in_all[1]) < BLOCK
    # The two ports read their counters in different ways, at a constant cost.
    other = counts("qemu")
    assert other[0] - first[0] == other[1] - first[1] > 0
    assert first[1] > first[0] > 24


def test_a_restart_finds_its_checkpoint(open_fake: OpenFake, misbehave: Misbehave) -> None:
    with open_fake("renode") as session:
        session.set_learning_rate(0.5)
        for step in range(3):
            session.train(SAMPLE, step)
        state = session.state()
        assert session.save() == 1
        session.train(SAMPLE, 0)
        session.restart()
        assert session.hello().steps == 3
        assert session.state() == state


@pytest.mark.parametrize(("limit", "what"), [(262144, READ_PAST), (131072, WRITE_PAST)])
def test_an_access_past_the_limit_is_named(
    limit: int, what: int, open_fake: OpenFake, misbehave: Misbehave
) -> None:
    with open_fake("renode", sram_limit_bytes=limit) as session:
        assert session.infer(misbehaving(READ_LAST_WORD))[0] == 0
        with pytest.raises(FirmwareFault) as caught:
            session.infer(misbehaving(what))
    assert caught.value.exit_status == 4
    verb = "read" if what == READ_PAST else "write"
    assert caught.value.why.startswith(f"{verb} of 4 bytes at {0x2000_0000 + limit:#010x}")
    assert f"the first byte past the SRAM limit of {limit} bytes" in caught.value.why
    assert "in misbehave+0x" in caught.value.where


def test_a_fault_of_the_core_is_reported_by_the_firmware(
    open_fake: OpenFake, misbehave: Misbehave
) -> None:
    misbehave("busfault")
    with open_fake("renode") as session, pytest.raises(FirmwareFault) as caught:
        session.infer(misbehaving(READ_PAST))
    assert "the first byte past the SRAM limit" in caught.value.why
    assert "bus fault: an access where there is no memory" in caught.value.why
    assert "op 1, misbehave (tte_misbehave_int8)" in caught.value.where


def test_an_abort_of_the_core_ends_the_run_at_once(
    open_fake: OpenFake, misbehave: Misbehave
) -> None:
    with open_fake("renode") as session:
        start = time.monotonic()
        with pytest.raises(FirmwareFault) as caught:
            session.infer(misbehaving(JUMP_TO_SRAM))
        assert time.monotonic() - start < 20
    assert "Renode gave up: Trying to execute code outside RAM or ROM" in caught.value.why
    assert "pc 0x" in caught.value.where


def test_both_clocks_have_a_limit(
    open_fake: OpenFake, misbehave: Misbehave, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_fake("renode", command_limit_s=4.0) as session:
        session.infer(SAMPLE)
        with pytest.raises(FirmwareFault) as caught:
            session.infer(misbehaving(HANG))
    assert "did not answer within 4 s" in caught.value.what
    with open_fake("renode") as session:
        monkeypatch.setattr(backend, "VIRTUAL_LIMIT_MS", 200)
        with pytest.raises(FirmwareFault) as caught:
            session.infer(misbehaving(HANG))
    assert "within 0.2 s of its own time" in caught.value.what


@pytest.mark.parametrize(
    ("word", "what", "why"),
    [
        ("crash", "could not be started", "out of luck"),
        ("error", "could not be started", "Cannot find a platform"),
        ("nonsense", "something else", "octets="),
        ("version-1.14.0", "Renode 1.14.0 is too old", "1.15 or later"),
    ],
)
def test_what_renode_does_wrong_is_one_message(
    word: str, what: str, why: str, open_fake: OpenFake, misbehave: Misbehave, tmp_path: Path
) -> None:
    misbehave(word)
    with pytest.raises(TteError) as caught:
        open_fake("renode")
    assert what in caught.value.what and why in caught.value.why
    assert caught.value.exit_status == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tte-")] == []


def test_without_a_request_it_runs_only_as_long_as_it_may(
    open_fake: OpenFake, misbehave: Misbehave
) -> None:
    with open_fake("renode") as session:
        transport = session._transport
        before = transport.instructions_in_all  # type: ignore[attr-defined]
        assert transport.receive(0.003) == b""
        ran = transport.instructions_in_all - before  # type: ignore[attr-defined]
        assert abs(ran - 3 * 25_000) < BLOCK


def test_a_renode_that_hangs_is_killed(
    open_fake: OpenFake, misbehave: Misbehave, monkeypatch: pytest.MonkeyPatch
) -> None:
    misbehave("hang")
    monkeypatch.setattr(backend, "_START_S", 1.0)
    with pytest.raises(FirmwareFault) as caught:
        open_fake("renode", command_limit_s=0.5)
    assert "did not answer" in caught.value.what


def test_nothing_is_left_behind(open_fake: OpenFake, misbehave: Misbehave, tmp_path: Path) -> None:
    with open_fake("renode") as session:
        session.infer(SAMPLE)
        process = session._transport._process  # type: ignore[attr-defined]
        assert any(path.name.startswith("tte-") for path in tmp_path.iterdir())
    assert process.poll() is not None
    assert not any(path.name.startswith("tte-") for path in tmp_path.iterdir())


def test_no_renode_says_how_to_get_one(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RENODE", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TteError) as caught:
        open_session("renode", make_project(), fake_program("mps2-an386", 262144))
    assert "portable package" in caught.value.hint and "unicorn" in caught.value.hint
    monkeypatch.setenv("RENODE", "/nowhere/renode")
    with pytest.raises(TteError) as caught:
        backend.find_renode()
    assert caught.value.where == "/nowhere/renode"


def script_in(board: Board, folder: str) -> str:
    flash = board.flash.size_bytes
    limits = enforced_limits(board, 131072, flash, 3072, 1000)
    return run_script(board, limits, flash, PurePosixPath(folder), 0, 0x101)


def test_a_path_that_renode_cannot_read_is_refused() -> None:
    board = load_board("mps2-an386")
    for folder in ("/tmp/a b", "/tmp/ä", "/tmp/$x", '/tmp/"x'):
        with pytest.raises(TteError) as caught:
            script_in(board, folder)
        assert "TMPDIR" in caught.value.hint


# ---- the scripts themselves ---------------------------------------------------------------


def renode_boards() -> list[str]:
    return [name for name in list_boards() if "renode" in load_board(name).emulators]


@pytest.mark.parametrize("name", renode_boards())
@pytest.mark.parametrize("sram", [262144, 131072, 100000])
def test_platforms_have_the_sizes_of_the_limits(name: str, sram: int) -> None:
    board = load_board(name)
    sram = min(sram, board.largest_sram_bytes)
    limits = enforced_limits(board, sram, board.flash.size_bytes, 3072, 1000)
    platform = read_platform(platform_text(board, limits, board.flash.size_bytes))
    assert platform.using == ([board.renode_platform] if board.renode_platform else [])
    spans = []
    for entry in platform.entries.values():
        if "size" in entry.properties:
            origin = entry.address if entry.kind else board.renode_memory[entry.name][0]
            spans.append((origin, origin + int(entry.properties["size"], 16)))
    end = board.sram.origin + limits.sram_bytes
    assert any(first <= end and 0 <= last - end < 4096 for first, last in spans)
    tags = list(outside(board, limits, board.flash.size_bytes))
    for first, last, _ in ((f, l, n) for n, f, l in tags):
        assert first < last and all(last < begin or first >= finish for begin, finish in spans)
    assert any(0 <= first - end < 4096 for name, first, _ in tags) or board.fast is not None
    assert ("cpu" in platform.entries) == (not board.renode_platform)


@pytest.mark.parametrize("name", renode_boards())
def test_scripts_are_of_known_commands(name: str) -> None:
    commands = read_script(script_in(load_board(name), "/tmp/x"))
    assert [c.name for c in commands][:2] == ["using", "create"]
    assert commands[-1] == Command("quit", ())
    hook = next(c for c in commands if c.name == "hook")
    assert hook.arguments[0] == "0x00000100"


@pytest.mark.parametrize(
    "line",
    [
        "machine Explode", "sysbus LoadELF firmware.elf", "sysbus LoadELF @/a b.elf",
        "logFile @log true", 'cpu AddHook 0x00000100 "import os"', "cpu AddHook 0x100 x",
        'python "print(1)"',
    ],
)  # fmt: skip
def test_the_grammar_refuses_other_commands(line: str) -> None:
    with pytest.raises(ValueError):
        read_script(line + "\n")


@pytest.mark.parametrize(
    "code", ["import os", "f'{1}'", "def f(): pass", "x = '`'", "x = '$y'", "print(1, file=2)"]
)
def test_the_grammar_refuses_other_python(code: str) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        check_python(code, {"sys"})


@pytest.mark.parametrize(
    "text",
    [
        "sram: Memory.ArrayMemory @ sysbus 0x20000000\n    size: 0x1000\n",
        "sram: Memory.MappedMemory @ sysbus 0x20000000\n    size: 0x1001\n",
        "sram: Memory.MappedMemory @ sysbus\n    colour: red\n",
        'cpu: CPU.CortexM @ sysbus\n    cpuType: "cortex-m4d"\n    nvic: nvic\n',
        "sysbus:\n    init:\n        ApplySVD @x\n",
        "sram:\n    size: 0x1000\nsram:\n    size: 0x1000\n",
        'using "/etc/passwd"\n',
    ],
)
def test_the_grammar_refuses_other_platforms(text: str) -> None:
    with pytest.raises(ValueError):
        read_platform(text)


# ---- what a project holds for people ------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, digits_model: Path) -> Path:
    """A compiled project, with the session that the compiler recorded."""
    folder = tmp_path_factory.mktemp("compiled")
    x = np.random.default_rng(0).integers(0, 256, (80, 16, 16, 1)).astype(np.uint8)
    y = np.arange(80) % 10
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    arguments = ["--board", "mps2-an386", "--data", "data.npz", "-o", "project", "-q"]
    command = [sys.executable, "-m", "tte", "compile", str(digits_model), *arguments]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "project"


def test_a_project_has_scripts_of_known_commands(compiled: Path) -> None:
    board = load_board("mps2-an386")
    platform = read_platform((compiled / "renode" / "board.repl").read_text())
    assert int(platform.entries["sram"].properties["size"], 16) == 262144
    by_hand = [c.name for c in read_script((compiled / "renode" / "emulate.resc").read_text())]
    assert by_hand[-3:] == ["socket", "connect", "start"]
    session = read_script((compiled / "renode" / "session.resc").read_text())
    assert session[-1].name == "python"
    assert board.renode_platform == "" and (compiled / "build" / "renode.elf").is_file()


def test_the_robot_file_passes_and_can_fail(compiled: Path, tmp_path: Path) -> None:
    pytest.importorskip("robot", reason="robotframework is not installed")
    keywords = tmp_path / "keywords.robot"
    keywords.write_text(
        "*** Settings ***\nLibrary    String\n"
        "Library    tests.emulate.FakeRenodeKeywords.FakeRenodeKeywords\n"
    )

    def failures(*suites: Path) -> int:
        options = ["--variable", f"RENODEKEYWORDS:{keywords}", "--outputdir", str(tmp_path)]
        command = [sys.executable, "-m", "robot", "--pythonpath", str(ROOT), *options, *suites]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert "| FAIL |" in done.stdout or done.returncode == 0, done.stdout + done.stderr
        return done.returncode

    suite = compiled / "emulate.robot"
    assert failures(suite) == 0
    text = suite.read_text()
    (loss,) = re.findall(r"^\$\{WANTED LOSS\} +(-?\d+)$", text, re.MULTILINE)
    wrong = [compiled / "loss.robot", compiled / "memory.robot"]
    wrong[0].write_text(text.replace(f" {loss}\n", f" {int(loss) + 1}\n"))
    wrong[1].write_text(text.replace("0x20040000", "0x20030000"))
    try:
        assert failures(*wrong) == 2
    finally:
        for path in wrong:
            path.unlink()


def test_the_recorded_session_is_the_same_every_time(compiled: Path) -> None:
    """And its loss is what the firmware's own conversation tells."""
    text = (compiled / "emulate.robot").read_text()
    (loss,) = re.findall(r"^\$\{WANTED LOSS\} +(-?\d+)$", text, re.MULTILINE)
    program = read_program(compiled)
    data = np.load(compiled.parent / "data.npz")
    entry = program["input"]
    transform = InputTransform(
        entry["scale"], entry["zero_point"], tuple(entry["mean"]), tuple(entry["std"])
    )
    samples = [(transform.quantize(data["x_train"][i]), data["y_train"][i]) for i in range(2)]
    with open_session("unicorn", compiled, program) as session:
        session.set_learning_rate(program["learning_rate"])
        losses = [session.train(sample, int(label)) for sample, label in samples]
    assert losses[-1] == int(loss) * program["loss"]["scale"]
    recorded = record_training(program, samples, program["learning_rate"])
    script = read_script((compiled / "renode" / "session.resc").read_text())[-1].arguments[0]
    written = "".join(re.findall(r'^digits \+= "([0-9a-f]+)"$', script, re.MULTILINE))
    assert bytes.fromhex(written) == b"".join(recorded)


def report_of(project: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tte", *arguments, "--data", str(project.parent / "data.npz")]
    command += ["--steps", "2", "--quiet", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def trained(compiled: Path) -> dict[str, Any]:
    """The report of unicorn."""
    return report_of(compiled, "emulate", str(compiled))


def test_a_real_network_ends_in_the_same_state(
    compiled: Path, trained: dict[str, Any], misbehave: Misbehave
) -> None:
    report = report_of(compiled, "emulate", str(compiled), "--emulator", "renode")
    assert report["state_sha256"] == trained["state_sha256"]
    assert report["training"]["loss"] == trained["training"]["loss"]
    found, other = (r["instructions"] for r in (report, trained))
    less = other["train_step"] - found["train_step"]
    assert 0 < less < 50 and other["inference"] - found["inference"] == less


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
def test_tte_train_reaches_an_emulator_behind_a_socket(
    compiled: Path, trained: dict[str, Any]
) -> None:
    """As renode/emulate.resc offers it, here of QEMU."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        qemu = ["qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-monitor", "none"]
        qemu += ["-kernel", str(compiled / "build" / "renode.elf"), "-serial", f"tcp:{place}"]
        process = subprocess.Popen(qemu, stdin=subprocess.DEVNULL)
        try:
            line, _ = server.accept()
            with socket.create_server(("127.0.0.1", 0)) as front:
                port = f"socket://127.0.0.1:{front.getsockname()[1]}"
                threading.Thread(target=join, args=(front, line), daemon=True).start()
                report = report_of(compiled, "train", str(compiled), "--port", port)
        finally:
            process.kill()
            process.wait()
    assert report["state_sha256"] == trained["state_sha256"]


def join(front: socket.socket, line: socket.socket) -> None:
    """Carries bytes between the first that connects and a line, both ways."""
    client, _ = front.accept()
    ends = {client: line, line: client}
    while True:
        for end in select.select(list(ends), [], [])[0]:
            data = end.recv(65536)
            if not data:
                return
            ends[end].sendall(data)


# ---- the port in QEMU, whose MPS2 boards have the same serial line -----------------------


class QemuSerial:
    """A Transport over the serial line of QEMU's board."""

    name, version = "qemu", "serial"
    bits_per_s = None
    counted = None

    def __init__(self, elf: Path, machine: str) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._process = subprocess.Popen(
            [
                "qemu-system-arm", "-M", machine, "-display", "none", "-monitor", "none",
                "-kernel", str(elf),
                "-chardev", f"socket,id=line,fd={theirs.fileno()}", "-serial", "chardev:line",
            ],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self._socket.settimeout(30)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, timeout_s: float | None) -> bytes:
        data = self._socket.recv(65536)
        assert data, "QEMU has ended"
        self.heard = data
        return data

    def count_ops(self, command: Any) -> None:
        return None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
@pytest.mark.parametrize(("name", "compiler"), [("mps2-an386", "gcc"), ("mps2-an500", "zig")])
def test_the_port_of_the_bare_core_runs_on_a_real_serial_line(
    name: str, compiler: str, make_project: MakeProject, open_fake: OpenFake
) -> None:
    with open_fake("host", name) as session:
        expected = conversation(session)
    folder, board = make_project(name, compiler=compiler), load_board(name)
    firmware_of(folder, name, compiler)
    firmware = build_firmware(folder, board, find_compiler(board, compiler), for_renode=True)
    assert firmware.elf_path.name == "renode.elf"
    transport = QemuSerial(firmware.elf_path, board.qemu_machine)
    with Session(transport, fake_program(name, 262144)) as session:
        assert conversation(session) == expected
        state = session.state()
        session.save()
        session.train(SAMPLE, 0)
        session.restart()
        session.hello()
        assert session.state() == state
        with pytest.raises(AssertionError, match="QEMU: ") as caught:
            _raise_at_report(session, transport)
        assert "!FAULT exc=0x0000000" in str(caught.value)


def _raise_at_report(session: Session, transport: QemuSerial) -> None:
    """Lets the firmware misbehave; the raw line then tells of the fault."""
    receive = transport.receive
    heard = bytearray()

    def listen(timeout_s: float | None) -> bytes:
        while b"!FAULT" not in heard or not heard.endswith(b"\n"):
            heard.extend(receive(timeout_s))
        raise AssertionError(f"QEMU: {heard!r}")

    transport.receive = listen  # type: ignore[method-assign]
    session.infer(misbehaving(READ_PAST))


# ---- the real one -------------------------------------------------------------------------


def real_renode() -> bool:
    try:
        backend.find_renode()
    except TteError:
        return False
    return "fake" not in os.environ.get("RENODE", "")


@pytest.mark.skipif(not real_renode(), reason="Renode is not installed, and no registry has it")
@pytest.mark.parametrize("name", renode_boards())
def test_the_real_renode(name: str, open_fake: OpenFake) -> None:
    with open_fake("host", name) as session:
        expected = conversation(session)
    with open_fake("renode", name) as session:
        assert conversation(session) == expected
        assert session.instructions() > 24
        with pytest.raises(FirmwareFault) as caught:
            session.infer(misbehaving(READ_PAST))
    assert "SRAM limit" in caught.value.why
