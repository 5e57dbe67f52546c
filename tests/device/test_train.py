# SPDX-License-Identifier: Apache-2.0
"""`tte train` on emulated boards behind a pseudo-terminal: real ports, real speeds, real errors."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.device.served import BAUD, board
from tests.device.throughput import measure
from tte.data import Dataset, sample_order
from tte.device import train as train_module
from tte.device.port import SerialStream, baud_of
from tte.device.run import Silent, read_program
from tte.device.state import STATE_NAME, read_state
from tte.device.train import TrainOptions, open_board, run_alone, train_on_board
from tte.emulate.run import emulate
from tte.emulate.serve import Pace, pseudo_terminal
from tte.errors import TteError

serial = pytest.importorskip("serial")
STEPS = 30


@pytest.fixture(scope="module")
def expected(project: Path, dataset: Dataset) -> dict[str, Any]:
    """What the emulator makes of the same steps."""
    return emulate(project, dataset, "host", steps=STEPS)


def train(
    project: Path, dataset: Dataset, port: str, progress: Any = None, **options: Any
) -> dict[str, Any]:
    with SerialStream(port, BAUD) as stream:
        return train_on_board(project, dataset, stream, TrainOptions(**options), progress)[0]


class StopAt(Silent):
    """Presses Ctrl-C after some training steps."""

    def __init__(self, steps: int, times: int = 1) -> None:
        self.left, self.times, self.notes = steps, times, []

    def advance(self, loss: float | None = None) -> None:
        if loss is not None:
            self.left -= 1
            if self.left == 0:
                for _ in range(self.times):
                    os.kill(os.getpid(), signal.SIGINT)

    def note(self, text: str) -> None:
        self.notes.append(text)


# ---- training -----------------------------------------------------------------------------


@pytest.mark.parametrize("emulator", ["unicorn", "qemu"])
def test_the_command_trains_like_an_emulator(
    emulator: str, project: Path, data: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    """Both commands as a user runs them, in processes of their own."""
    if emulator == "qemu" and shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    tte = [sys.executable, "-m", "tte"]
    server = subprocess.Popen(
        [*tte, "serve", str(project), "--emulator", emulator, "--baud", "460800"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        done = subprocess.run(
            [*tte, "train", str(project), "--port", port, "--baud", "460800", "--data", str(data),
             "--steps", str(STEPS), "--json", str(tmp_path / "report.json")],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "accuracy after" in done.stdout
    finally:
        server.send_signal(signal.SIGINT)
        _, messages = server.communicate(timeout=20)
    assert server.returncode == 0 and "460,800 baud" in messages
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["state_sha256"] == expected["state_sha256"]
    for name in ("steps", "loss", "accuracy_before", "accuracy_after", "saturations"):
        assert report["training"][name] == expected["training"][name], name
    memory = report["memory"]
    assert memory["sram_bytes"] == memory["static_bytes"] + memory["stack_bytes"]
    assert memory["stack_bytes"] > 0


def test_the_report_has_the_sizes_of_a_current_firmware(
    project: Path, dataset: Dataset, tmp_path: Path
) -> None:
    folder = shutil.copytree(project, tmp_path / "digits")
    elf, source = folder / "build" / "firmware.elf", folder / "src" / "model.c"
    built = emulate(folder, dataset, "unicorn", steps=1)["memory"]
    with board(project) as port:

        def memory() -> dict[str, Any]:
            found = train(folder, dataset, port, steps=1, test=False)["memory"]
            assert isinstance(found, dict)
            return found

        found = memory()
        for name in ("static_bytes", "flash_bytes"):
            assert found[name] == built[name] > 0
        os.utime(source, (time.time() + 60,) * 2)
        assert memory()["flash_bytes"] is None
        os.utime(source, (0, 0))
        assert memory()["flash_bytes"] == built["flash_bytes"]
        elf.write_bytes(b"no ELF")
        assert memory()["flash_bytes"] is None
        elf.unlink()
        assert memory()["static_bytes"] is None


def test_an_interrupted_run_goes_on_where_it_stopped(
    project: Path, dataset: Dataset, expected: dict[str, Any]
) -> None:
    with board(project) as port:
        progress = StopAt(12)
        first = train(project, dataset, port, progress, steps=STEPS)
        assert first["training"]["steps"] == 12 and "12 of 30" in progress.notes[-1]
        assert first["training"]["accuracy_after"] is not None
        assert read_state(project, read_program(project)).steps == 12
        progress = StopAt(3, times=2)
        second = train(project, dataset, port, progress, steps=STEPS, resume=True)
        assert second["training"]["steps"] == 3
        assert second["training"]["accuracy_after"] is None
        last = train(project, dataset, port, steps=STEPS, resume=True)
        losses = [loss for r in (first, second, last) for loss in r["training"]["loss"]]
        assert losses == expected["training"]["loss"]
        assert last["state_sha256"] == expected["state_sha256"]
        done = train(project, dataset, port, steps=STEPS, resume=True)
        assert done["training"]["steps"] == 0
        again = train(project, dataset, port, steps=STEPS, fresh=True, test=False)
        assert again["training"]["loss"] == expected["training"]["loss"]
        assert again["training"]["accuracy_before"] is None


def test_a_board_that_restarts_goes_on_from_its_checkpoint(
    project: Path, dataset: Dataset, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts_at = [9, 15, 3]
    step = train_module._BoardRun.step

    def cut(self: Any, index: int) -> float:
        if restarts_at and self.device.steps == restarts_at[0]:
            restarts_at.pop(0)
            self.device.restart()
        return step(self, index)

    monkeypatch.setattr(train_module._BoardRun, "step", cut)
    with board(project) as port:
        progress = StopAt(-1)
        report = train(project, dataset, port, progress, steps=STEPS, save_every=6)
        assert [note for note in progress.notes if "restarted" in note] == [
            f"the board was restarted; training goes on at step {at}" for at in (6, 12)
        ]
        assert report["training"]["loss"] == expected["training"]["loss"]
        assert report["state_sha256"] == expected["state_sha256"]


def test_a_board_that_lost_an_earlier_run_says_so(
    project: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with board(project) as port:
        train(project, dataset, port, steps=5, save=False, test=False)
        step = train_module._BoardRun.step

        def cut(self: Any, index: int) -> float:
            if self.device.steps == 7:
                self.device.restart()
            return step(self, index)

        monkeypatch.setattr(train_module._BoardRun, "step", cut)
        with pytest.raises(TteError, match="lost what it had trained before"):
            train(project, dataset, port, steps=5, test=False)


@pytest.mark.parametrize("emulator", ["host", "unicorn"])
def test_stored_samples(emulator: str, project: Path, dataset: Dataset) -> None:
    kept = sample_order(len(dataset.x_train), 7, 0)
    one_epoch = Dataset(
        dataset.x_train[kept], dataset.y_train[kept], dataset.x_test, dataset.y_test,
        dataset.class_names,
    )  # fmt: skip
    with board(project, emulator) as port:
        found = train(project, dataset, port, steps=20, store=7, test=False)
        with SerialStream(port, BAUD) as stream:
            device, hello = open_board(stream, read_program(project))
            assert (hello.samples, hello.steps) == (7, 20)
            device.restart(forget=True)
            device.hello()
            run = train_module.Run(device, read_program(project), one_epoch, Silent())
            run.set_learning_rate(read_program(project)["learning_rate"], 20)
            losses = [run.step(i % 7) for i in range(20)]
            assert losses == found["training"]["loss"]
            # Streamed training has left what training on stored samples did.
            before = device.steps
        replayed = train(project, dataset, port, steps=4, replay=True, test=False)
        assert len(replayed["training"]["loss"]) == 4
        assert replayed["state_sha256"] != found["state_sha256"]
        with SerialStream(port, BAUD) as stream:
            assert run_alone(project, stream, 10**6) == 7
        with SerialStream(port, BAUD) as stream, pytest.raises(TteError, match="already"):
            run_alone(project, stream, 5)
        time.sleep(0.3)
        progress = StopAt(-1)
        last = train(project, dataset, port, progress, steps=1, test=False)
        assert "stopped the board's own training" in progress.notes[0]
        assert read_state(project, read_program(project)).steps > before + 4 + 1
        assert len(last["training"]["loss"]) == 1
        capacity = hello.sample_capacity
        with pytest.raises(TteError, match="no room for"):
            train(project, dataset, port, store=capacity + 1, test=False)


def test_stored_samples_where_the_line_is_not_looked_at(project: Path, dataset: Dataset) -> None:
    """QEMU's firmware sees no request before its steps are done."""
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    found = []
    for emulator in ("qemu", "host"):
        with board(project, emulator) as port:
            report = train(project, dataset, port, steps=9, store=4, test=False)
            found.append((report["training"]["loss"], report["state_sha256"]))
            train(project, dataset, port, steps=1, fresh=True, test=False)
    assert found[0] == found[1]


def test_there_is_nothing_to_replay(project: Path, dataset: Dataset) -> None:
    with board(project) as port:
        with pytest.raises(TteError, match="no stored samples"):
            train(project, dataset, port, steps=1, replay=True, test=False)
        with SerialStream(port, BAUD) as stream, pytest.raises(TteError, match="no stored samples"):
            run_alone(project, stream, 5)


# ---- the line -----------------------------------------------------------------------------


def test_the_pace_is_that_of_the_line() -> None:
    now = [0.0]
    pace = Pace(1000.0, lambda: now[0])
    passed = 0
    for _ in range(4000):
        count = pace.budget_bytes
        if count:
            pace.passed(count)
            passed += count
        now[0] += 0.001
    assert 3900 <= passed <= 4030
    now[0] += 100.0
    assert pace.budget_bytes <= 22  # time that nobody used is lost


def test_images_over_a_port() -> None:
    """The line's share of time is measured by hand (docs/protocol.md); its bytes are not chance."""
    _, byte_share = measure(images=1, baud=4_000_000)
    assert byte_share > 0.95


# ---- errors -------------------------------------------------------------------------------


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TteError, match="no such port"):
        SerialStream(str(tmp_path / "nowhere"))


def test_something_that_is_no_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TteError, match="cannot be opened"):
        SerialStream(str(tmp_path / "file"))


def test_a_port_that_is_in_use() -> None:
    with (
        pseudo_terminal() as (_, path),
        SerialStream(path),
        pytest.raises(TteError, match="in use"),
    ):
        SerialStream(path)


def test_a_port_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise serial.SerialException(errno.EACCES, "could not open port")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(TteError, match="dialout"):
        SerialStream("/dev/ttyACM0")


def test_pyserial_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(TteError, match="pip install"):
        SerialStream("/dev/ttyACM0")


def test_nobody_answers(project: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "HELLO_LIMIT_S", 0.4)
    with pseudo_terminal() as (_, path), pytest.raises(TteError, match="does not answer"):
        train(project, dataset, path)


def test_the_connection_breaks_off(project: Path) -> None:
    with contextlib.ExitStack() as stack:
        terminal = contextlib.ExitStack()
        _, path = terminal.enter_context(pseudo_terminal())
        stream = stack.enter_context(SerialStream(path))
        terminal.close()
        with pytest.raises(TteError, match="broke off"):
            stream.receive(1.0)


def test_another_models_firmware(project: Path, dataset: Dataset, tmp_path: Path) -> None:
    other = read_program(project) | {"id": bytes(16).hex()}
    (tmp_path / "program.json").write_text(json.dumps(other))
    with board(project) as port, pytest.raises(TteError, match="disagree"):
        train(tmp_path, dataset, port)
    assert not (tmp_path / STATE_NAME).exists()


class OtherVersion:
    """A stream to a device of another protocol version."""

    bits_per_s = BAUD

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer, self._data = answer, b""

    def send(self, data: bytes) -> None:
        self._data += self._answer(data)

    def receive(self, timeout_s: float | None) -> bytes:
        data, self._data = self._data, b""
        return data


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_of_the_protocol(version: int, project: Path) -> None:
    from tte.device.frames import Decoder, Frame, encode
    from tte.device.link import key_of

    program = read_program(project)

    def answer(data: bytes) -> bytes:
        answers = b""
        for frame in Decoder().feed(data):
            model_id = bytes.fromhex(program["id"])
            payload = bytes((version, 0, 0, 2)) + model_id + bytes(44)
            key = key_of(frame.payload, model_id)
            answers += encode(Frame(0x81, 0, frame.sequence, key, payload))
        return answers

    with pytest.raises(TteError, match="another version"):
        open_board(OtherVersion(answer), program)


@pytest.mark.parametrize(
    "options",
    [
        ("--steps", "5", "--epochs", "1"),
        ("--resume", "--fresh"),
        ("--store", "5", "--replay"),
        ("--detach",),
        ("--detach", "--replay"),
        ("--baud", "0"),
        ("--store", "0"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], project: Path, data: Path) -> None:
    command = [sys.executable, "-m", "tte", "train", str(project), "--port", "/dev/none"]
    done = subprocess.run([*command, "--data", str(data), *options], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr


def test_the_speed_is_the_board_s() -> None:
    assert baud_of({"board": "nrf52840-dk"}) == 1_000_000
    assert baud_of({"board": "stm32f746g-disco"}) == 921_600
    assert baud_of({"board": "mps2-an386"}) == 921_600  # emulated only
