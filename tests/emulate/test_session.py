# SPDX-License-Identifier: Apache-2.0
"""One firmware, every emulator: equal answers, equal counts, and faults with their place."""

from __future__ import annotations

import math
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.emulate.fake_project import MakeProject, OpenFake, fake_program, firmware_of
from tte.board import load_board
from tte.device.client import (
    INFER,
    INPUT,
    METRICS,
    OUTPUT,
    READ,
    SETTINGS,
    STATE,
    TARGET,
    TRAIN,
    factor,
)
from tte.device.link import CommandRefused
from tte.emulate import Session, open_session
from tte.errors import FirmwareFault, TteError

EMULATORS = ["unicorn", "qemu"]
READ_PAST, WRITE_PAST, RECURSE, HANG = 100, 101, 102, 103
BAD_COMMAND, BAD_ARGUMENT, BAD_STATE = 3, 4, 5
WRITE_FLASH, JUMP_TO_SRAM, READ_LAST_WORD = 104, 105, 106
SAMPLE = np.array([4, -3, 2, -1, 0, 1, 2, 3], dtype=np.int8)


def misbehaving(what: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    return np.full(8, what, dtype=np.int8)


def conversation(session: Session) -> list[object]:
    """Everything that must not depend on where the firmware runs."""
    said: list[object] = [session.hello().state_bytes]
    session.set_learning_rate(0.9)
    for step in range(12):
        sample = (SAMPLE.astype(np.int32) * (step + 5) % 97).astype(np.int8)
        said.append(session.train(sample, step % 3))
        said.append(session.infer(sample).tolist())
    said.append(session.state())
    said.append(session.saturations())
    return said


def test_known_answers(open_fake: OpenFake) -> None:
    with open_fake("host") as session:
        logits = session.infer(SAMPLE).tolist()
        assert logits == [10 + 4 - 6 + 6, -20 - 16 - 15, 30 + 28 + 128]
        assert session.train(SAMPLE, 1) == 51 / 4
        state = session.state()
        assert len(state) == 36
        assert np.frombuffer(state[24:], "<i4").tolist() == [10, -20 + 12, 30]
        assert session.instructions() is None
        assert session.count_ops(lambda: session.infer(SAMPLE)) is None


@pytest.mark.parametrize("compiler", ["gcc", "zig", "clang"])
@pytest.mark.parametrize("board", ["mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505"])
def test_answers_are_equal_everywhere(board: str, compiler: str, open_fake: OpenFake) -> None:
    with open_fake("host") as session:
        expected = conversation(session)
    stacks = set()
    for emulator in EMULATORS:
        with open_fake(emulator, board, compiler=compiler) as session:
            assert conversation(session) == expected, emulator
            stacks.add(session.stack_bytes())
            assert session.emulator_name == emulator and session.emulator_version
    assert len(stacks) == 1 and 64 < stacks.pop() < 2048


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
@pytest.mark.parametrize("board", ["mps2-an386", "mps2-an500", "mps2-an505"])
def test_counts_are_exact(board: str, compiler: str, open_fake: OpenFake) -> None:
    with open_fake("qemu", board, compiler=compiler) as session:
        session.set_learning_rate(0.5)
        session.infer(SAMPLE)
        inference = session.instructions()
        session.train(SAMPLE, 2)
        training = session.instructions()
        assert session.count_ops(lambda: session.infer(SAMPLE)) is None
    with open_fake("unicorn", board, compiler=compiler) as session:
        session.set_learning_rate(0.5)
        assert session.infer(SAMPLE) is not None and session.instructions() is None
        counts = session.count_ops(lambda: session.infer(SAMPLE))
        assert counts is not None and counts.total == inference
        assert counts.by_op[0] > 24 and counts.by_op[1:] == (0, 0)
        assert sum(counts.by_op) < counts.total
        for _ in range(2):
            counts = session.count_ops(lambda: session.train(SAMPLE, 2))
            assert counts is not None and counts.total == training
            assert counts.by_op[0] > 24 and counts.by_op[1] == 0 and counts.by_op[2] > 8
        session.train(SAMPLE, 2)
        assert session.instructions() is None


@pytest.mark.parametrize("limit", [262144, 131072, 200000])
@pytest.mark.parametrize("emulator", EMULATORS)
def test_the_sram_limit_holds(emulator: str, limit: int, open_fake: OpenFake) -> None:
    with open_fake(emulator, sram_limit_bytes=limit) as session:
        assert session.infer(misbehaving(READ_LAST_WORD))[0] == 0
        with pytest.raises(FirmwareFault) as caught:
            session.infer(misbehaving(READ_PAST))
    fault = caught.value
    assert fault.exit_status == 4
    assert f"{0x2000_0000 + limit:#010x}" in fault.why
    assert f"the first byte past the SRAM limit of {limit} bytes" in fault.why
    assert "op 1, misbehave (tte_misbehave_int8), in misbehave+0x" in fault.where
    opened = open_fake(emulator, sram_limit_bytes=limit)
    with opened as session, pytest.raises(FirmwareFault) as caught:
        session.train(misbehaving(WRITE_PAST), 1)
    assert f"SRAM limit of {limit} bytes" in caught.value.why
    assert "in misbehave+0x" in caught.value.where


@pytest.mark.parametrize("board", ["mps2-an386", "mps2-an500", "mps2-an505"])
@pytest.mark.parametrize("emulator", EMULATORS)
def test_a_stack_overflow_is_called_by_its_name(
    emulator: str, board: str, open_fake: OpenFake
) -> None:
    with open_fake(emulator, board) as session, pytest.raises(FirmwareFault) as caught:
        session.infer(misbehaving(RECURSE))
    assert caught.value.what.startswith("stack overflow")
    assert "op 1, misbehave" in caught.value.where
    assert f"{load_board(board).stack_reserve_bytes} bytes" in caught.value.why


@pytest.mark.parametrize("emulator", EMULATORS)
def test_flash_is_read_only_and_sram_is_not_executed(emulator: str, open_fake: OpenFake) -> None:
    with open_fake(emulator) as session, pytest.raises(FirmwareFault) as caught:
        session.infer(misbehaving(WRITE_FLASH))
    assert "0x00000100" in caught.value.why
    with open_fake(emulator) as session, pytest.raises(FirmwareFault) as caught:
        session.infer(misbehaving(JUMP_TO_SRAM))
    assert "pc 0x2000" in caught.value.where


@pytest.mark.parametrize("emulator", [*EMULATORS, "host"])
def test_a_hang_ends_at_the_limit(emulator: str, open_fake: OpenFake) -> None:
    with open_fake(emulator, command_limit_s=0.5) as session:
        session.infer(SAMPLE)
        start = time.monotonic()
        with pytest.raises(FirmwareFault) as caught:
            session.infer(misbehaving(HANG))
        assert time.monotonic() - start < 5
    assert "did not answer within 0.5 s" in caught.value.what
    if emulator == "unicorn":
        assert "op 1, misbehave" in caught.value.where


def test_a_crash_on_the_host_is_a_fault(open_fake: OpenFake) -> None:
    with open_fake("host") as session, pytest.raises(FirmwareFault) as caught:
        session.infer(misbehaving(WRITE_PAST))
    assert "SIGSEGV" in caught.value.why


@pytest.mark.parametrize("emulator", [*EMULATORS, "host"])
def test_what_is_wrong_is_refused_and_changes_nothing(emulator: str, open_fake: OpenFake) -> None:
    with open_fake(emulator) as session:
        session.set_learning_rate(0.5)
        before = session.state()
        with pytest.raises(TteError):
            session.train(SAMPLE, 3)
        for label in (3, 2**31, 2**32 - 1):
            session._write(TARGET, struct.pack("<I", label))
            session._write(INPUT, SAMPLE.tobytes())
            assert refusal(session, TRAIN, struct.pack("<I", 0)) == BAD_ARGUMENT
        assert refusal(session, INFER, b"") is None  # the sample is still whole
        assert refusal(session, INFER, b"") == BAD_STATE
        assert refusal(session, 99, b"") == BAD_COMMAND
        assert refusal(session, METRICS, bytes(9)) == BAD_ARGUMENT
        for read in ((STATE, 37, 1), (STATE, 2**32 - 1, 1), (9, 0, 1), (INPUT, 0, 1)):
            assert refusal(session, READ, struct.pack("<BIH", *read)) == BAD_ARGUMENT, read
        for region, offset, data in (
            (INPUT, 1, b"x"), (INPUT, 0, bytes(9)), (INPUT, 2**32 - 1, b"xx"),
            (TARGET, 0, bytes(5)), (TARGET, 2**32 - 4, bytes(8)), (STATE, 36, b"x"),
            (STATE, 2**32 - 1, b"xy"), (STATE, 0, bytes(37)), (OUTPUT, 0, b"x"), (0, 0, b""),
            (SETTINGS, 0, bytes(7)), (SETTINGS, 0, struct.pack("<Ii", 1, 0)),
            (SETTINGS, 0, struct.pack("<Ii", 1 << 30, -1)),
            (SETTINGS, 0, struct.pack("<Ii", 1 << 30, 127)),
        ):  # fmt: skip
            session.link.post(struct.pack("<BI", region, offset) + data)
            with pytest.raises(CommandRefused) as caught:
                session.metrics()
            assert caught.value.status == BAD_ARGUMENT, (region, offset)
        assert session.state() == before
        assert session.metrics().steps == 0


def refusal(session: Session, command: int, payload: bytes) -> int | None:
    """The status of a request that is refused."""
    try:
        session.link.call(command, payload)
    except CommandRefused as refused:
        return refused.status
    return None


def test_a_sample_of_the_wrong_kind_is_refused(open_fake: OpenFake) -> None:
    with open_fake("host") as session:
        for sample in (SAMPLE[:4], SAMPLE.astype(np.float32)):
            with pytest.raises(TteError):
                session.infer(sample)


def test_a_foreign_program_is_refused(make_project: MakeProject) -> None:
    program = fake_program("mps2-an386", 262144) | {"input": {"shape": [1, 1, 9]}}
    with pytest.raises(TteError) as caught:
        open_session("host", make_project(), program)
    assert "disagree" in caught.value.what


def test_an_unknown_emulator_lists_those_there_are(make_project: MakeProject) -> None:
    with pytest.raises(TteError) as caught:
        open_session("bochs", make_project(), fake_program("mps2-an386", 262144))
    assert "unicorn" in caught.value.hint


def test_qemu_leaves_nothing_behind(
    open_fake: OpenFake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_fake("qemu") as session:
        assert any(tmp_path.iterdir())
        process = session._transport._process  # type: ignore[attr-defined]
    assert process.poll() is not None
    assert not any(tmp_path.iterdir())


def test_a_missing_qemu_says_what_to_install(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project()
    firmware = firmware_of(folder, "mps2-an386", "gcc")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(TteError) as caught:
        open_session("qemu", folder, fake_program("mps2-an386", 262144), firmware)
    assert "apt install qemu-system-arm" in caught.value.hint


@pytest.mark.parametrize("value", [1.0, 0.1, 1e-6, 3.5e9, 1 - 2**-53, 2.0**-40])
def test_a_learning_rate_becomes_a_factor(value: float) -> None:
    mantissa, exponent = factor(value)
    assert 2**30 <= mantissa < 2**31
    assert math.isclose(math.ldexp(mantissa, -exponent), value, rel_tol=2**-30)


def test_only_positive_learning_rates() -> None:
    assert factor(0.0) == (0, 0)
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(TteError):
            factor(value)


def test_limits_of_the_boards_are_256_kib() -> None:
    for name in ("mps2-an386", "mps2-an500"):
        assert load_board(name).sram.size_bytes == 262144
