# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and stored samples on emulated boards: restarts, and power cuts in unicorn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import unicorn

from tests.emulate.conftest import make_project as make_project
from tests.emulate.conftest import open_fake as open_fake
from tests.emulate.fake_project import OpenFake
from tte.device import CommandRefused, ConversationLost, Device
from tte.emulate.faults import RESTART_STATUS

X = np.random.default_rng(0).integers(-9, 10, (200, 8)).astype(np.int8)


def train(device: Device, first: int, last: int) -> None:
    for i in range(first, last):
        device.train(X[i], i % 3)


@pytest.mark.parametrize("emulator", ["host", "unicorn", "qemu"])
def test_a_restart_goes_on_from_the_last_checkpoint(emulator: str, open_fake: OpenFake) -> None:
    with open_fake(emulator) as device:
        first = device.state()
        device.set_learning_rate(0.5)
        train(device, 0, 10)
        expected = device.state()
        assert device.save() == 1
        train(device, 10, 15)
        device.restart()
        with pytest.raises(ConversationLost):
            device.metrics()
        hello = device.hello()
        assert (hello.steps, hello.checkpoint) == (10, 1)
        assert device.state() == expected != first
        device.restart(forget=True)
        with pytest.raises(ConversationLost):
            device.metrics()
        assert (device.hello().checkpoint, device.state()) == (0, first)


@pytest.mark.parametrize("emulator", ["host", "unicorn"])
def test_stored_samples_train_like_streamed_ones(emulator: str, open_fake: OpenFake) -> None:
    steps = 25
    with open_fake(emulator) as device:
        device.set_learning_rate(0.5)
        for i in range(steps):
            device.train(X[i % 10], i % 10 % 3)
        expected = device.state()
    with open_fake(emulator) as device:
        device.clear()
        with pytest.raises(CommandRefused):
            device.run(5)
        assert [device.store(X[i], i % 3) for i in range(10)] == list(range(1, 11))
        device.set_learning_rate(0.5)
        device.run(steps)
        while device.metrics().run_steps:
            pass
        assert device.metrics().steps == steps
        assert device.state() == expected
        device.save()
        device.restart()
        with pytest.raises(ConversationLost):
            device.metrics()
        assert device.hello().samples == 10
        device.run(10**9)
        for refused in (lambda: device.train(X[0], 0), lambda: device.infer(X[0]), device.clear):
            with pytest.raises(CommandRefused) as caught:
                refused()
            assert caught.value.status == 6  # busy
        device.metrics()
        device.run(0)
        assert device.metrics().run_steps == 0 < device.metrics().steps - steps
        device.steps = device.metrics().steps
        device.train(X[0], 0)


class PowerCut:
    """Power that fails in an operation of the firmware's flash driver: the erasure of a sector, or
    the write of a word. What was being changed is left with any mixture of its old and new bits."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.cut_at: int | None = None  # the operation
        self.operations = 0
        self.rng = np.random.default_rng(0)
        self.spoil = lambda: None
        self._erased: int | None = None  # the sector
        storage = transport._storage
        self._origin, self._sector_bytes = storage.origin, storage.sector_bytes
        end = storage.origin + storage.size_bytes - 1
        hook = unicorn.UC_HOOK_MEM_WRITE
        transport._uc.hook_add(hook, self._on_write, begin=storage.origin, end=end)
        self._restart, transport._restart = transport._restart, self._power_on

    def _on_write(self, uc: Any, kind: int, address: int, size: int, value: int, _: Any) -> None:
        sector = (address - self._origin) // self._sector_bytes
        erases = value & 0xFFFFFFFF == 0xFFFFFFFF
        if erases and sector == self._erased:
            return  # a word of the same erasure
        self._erased = sector if erases else None
        self.operations += 1
        if self.operations == self.cut_at:
            first = self._origin + sector * self._sector_bytes if erases else address
            count = self._sector_bytes if erases else size
            wanted = b"\xff" * count if erases else (value & 0xFFFFFFFF).to_bytes(4, "little")
            before = bytes(uc.mem_read(first, count))
            self.spoil = lambda: uc.mem_write(first, self._mixture(before, wanted))
            self.transport._exit_status = RESTART_STATUS
            uc.emu_stop()

    def _mixture(self, before: bytes, wanted: bytes) -> bytes:
        old, new = (np.frombuffer(part, np.uint8) for part in (before, wanted))
        mask = self.rng.integers(0, 256, len(old)).astype(np.uint8)
        mixed: bytes = (old ^ ((old ^ new) & mask)).tobytes()
        return mixed

    def _power_on(self) -> None:
        self.spoil()
        self.cut_at, self.spoil = None, lambda: None
        self._restart()


def test_unicorn_loses_power_at_every_operation_of_a_save(open_fake: OpenFake) -> None:
    """In the firmware's own flash driver; what it restarts from is one of the two states."""
    with open_fake("unicorn") as device:
        power = PowerCut(device._transport)
        device.set_learning_rate(0.5)
        train(device, 0, 1)
        assert device.save() == 1
        saved, operations, number = device.state(), power.operations, 1
        assert 15 < operations < 50  # an erasure and the words of a checkpoint
        found = []
        # The erasure late: what it finds then are the words of the saves before it.
        for cut_at in (*range(2, operations), 1, operations):
            for _ in range(8 if cut_at == 1 else 2):
                train(device, device.steps, device.steps + 1)
                state, power.operations, power.cut_at = device.state(), 0, cut_at
                with pytest.raises(ConversationLost):
                    device.save()
                hello = device.hello()
                assert hello.checkpoint in (number, number + 1)
                assert device.state() == (saved if hello.checkpoint == number else state)
                found.append(hello.checkpoint - number)
                saved, number = device.state(), hello.checkpoint
        train(device, device.steps, device.steps + 1)
        assert device.save() == number + 1
        assert set(found[:-2]) == {0}  # only the last operation seals a checkpoint
        assert len(found) == 2 * operations + 6
