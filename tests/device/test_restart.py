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

X = np.random.default_rng(0).integers(-9, 10, (40, 8)).astype(np.int8)


def train(device: Device, first: int, last: int) -> None:
    for i in range(first, last):
        device.train(X[i], i % 3)


@pytest.mark.parametrize("emulator", ["host", "unicorn"])
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


def test_unicorn_loses_power_in_a_save(open_fake: OpenFake) -> None:
    """The firmware stops in the middle of its flash driver; what it restarts from is one of the
    two states."""
    with open_fake("unicorn") as device:
        transport: Any = device._transport
        storage = transport._storage
        writes = 0
        cut_at = 0

        def on_write(uc: Any, *_: Any) -> None:
            nonlocal writes
            writes += 1
            if writes == cut_at:
                transport._exit_status = RESTART_STATUS
                uc.emu_stop()

        transport._uc.hook_add(
            unicorn.UC_HOOK_MEM_WRITE,
            on_write,
            begin=storage.origin,
            end=storage.origin + storage.size_bytes - 1,
        )
        device.set_learning_rate(0.5)
        saved = device.state()
        train(device, 0, 1)
        assert device.save() == 1
        saved, operations, number = device.state(), writes, 1
        assert operations > 1024
        found = []
        for cut_at in (1, 2, 700, 1024, 1025, 1026, *range(1027, operations + 2)):
            train(device, device.steps, device.steps + 1)
            state, writes = device.state(), 0
            if cut_at > operations:
                assert device.save() == number + 1
                break
            with pytest.raises(ConversationLost):
                device.save()
            hello = device.hello()
            assert hello.checkpoint in (number, number + 1)
            assert device.state() == (saved if hello.checkpoint == number else state)
            found.append(hello.checkpoint - number)
            saved, number = device.state(), hello.checkpoint
        assert set(found) == {0, 1}
