# SPDX-License-Identifier: Apache-2.0
"""Whatever instant the power fails at in a save, the next start finds the state before the save or
the state after it. Flash writes whole units once and erases whole sectors; an operation that power
interrupts leaves any mixture of the bits before and after it."""

from __future__ import annotations

import ctypes
import hashlib

import pytest

from tests.device.simulator import POWER_CUT, Board, Line
from tests.device.test_link import device_on, samples
from tte.device import CommandRefused, ConversationLost
from tte.errors import TteError

STATE_BYTES = 36
# 4-byte units, 8-byte units with slots of several sectors, 32-byte and 256-byte units, two slots.
FLASHES: list[dict[str, int]] = [
    {"SIM_UNIT_BYTES": 4, "SIM_SECTOR_BYTES": 256, "SIM_SECTORS": 4, "SIM_CHECKPOINT_SECTORS": 4},
    {"SIM_UNIT_BYTES": 8, "SIM_SECTOR_BYTES": 64, "SIM_SECTORS": 9, "SIM_CHECKPOINT_SECTORS": 8},
    {"SIM_UNIT_BYTES": 32, "SIM_SECTOR_BYTES": 128, "SIM_SECTORS": 3, "SIM_CHECKPOINT_SECTORS": 3},
    {"SIM_UNIT_BYTES": 256, "SIM_SECTOR_BYTES": 1024, "SIM_SECTORS": 2,
     "SIM_CHECKPOINT_SECTORS": 2},
]  # fmt: skip


class Saver:
    """A board's trained state and its checkpoints, without a line."""

    def __init__(self, board: Board) -> None:
        self.board = board
        entry = (ctypes.c_void_p * 4).in_dll(board.c, "tte_state")  # place, bytes, place, bytes
        self._parts = [(entry[0], 24), (entry[2], 12)]

    @property
    def state(self) -> bytes:
        return b"".join(ctypes.string_at(place, size) for place, size in self._parts)

    @state.setter
    def state(self, content: bytes) -> None:
        ctypes.memmove(self._parts[0][0], content[:24], 24)
        ctypes.memmove(self._parts[1][0], content[24:], 12)

    def save(self, steps: int) -> tuple[int, int]:
        return self.board.call("tte_checkpoint_save", steps)

    def load(self) -> tuple[int, int, bytes]:
        """Number, steps and state after a start; the network's own state where there is none."""
        steps = ctypes.c_uint32(0)
        number = self.board.c.tte_checkpoint_load(ctypes.byref(steps))
        return number, steps.value, self.state


def state_of(steps: int) -> bytes:
    return hashlib.sha512(str(steps).encode()).digest()[:STATE_BYTES]


@pytest.mark.parametrize("flash", FLASHES, ids=lambda flash: f"unit{flash['SIM_UNIT_BYTES']}")
def test_power_may_fail_at_every_operation(flash: dict[str, int]) -> None:
    saver = Saver(Board(**flash))
    board = saver.board
    slots = board.c.tte_checkpoint_slots()
    assert slots >= 2
    first = saver.state
    expected = (0, 0, first)
    cuts = 0
    for steps in range(1, 2 * slots + 2):  # until every slot was written twice
        before = board.flash
        board.c.sim_cut_power_at(0, 0)
        saver.state = state_of(steps)
        assert saver.save(steps) == (0, steps)
        operations = board.c.sim_operations()
        after = board.flash
        saved = (steps, steps, state_of(steps))
        for operation in range(1, operations + 1):
            for seed in range(6):
                restore(board, before)
                saver.state = state_of(steps)
                board.c.sim_cut_power_at(operation, 100 * operation + seed)
                assert saver.save(steps)[0] == POWER_CUT
                # The power is back: SRAM holds the first state.
                saver.state = first
                found = saver.load()
                assert found in (expected, saved), (steps, operation, seed)
                is_sealed = operation == operations and found == saved
                assert found == expected or is_sealed
                cuts += 1
                # The next save starts from whatever the failure left.
                board.c.sim_cut_power_at(0, 0)
                board.c.sim_trust_flash()
                saver.state = state_of(99)
                assert saver.save(99) == (0, found[0] + 1)
                saver.state = first
                assert saver.load() == (found[0] + 1, 99, state_of(99))
        restore(board, after)
        expected = saved
    assert cuts > 100


def restore(board: Board, content: bytes) -> None:
    board.flash = content
    board.c.sim_trust_flash()


def test_saves_wear_all_sectors_alike() -> None:
    saver = Saver(Board(**FLASHES[0]))
    for steps in range(1, 41):
        saver.state = state_of(steps)
        assert saver.save(steps) == (0, steps)
    assert saver.board.erasures == [10, 10, 10, 10]


@pytest.mark.parametrize("spoilt", range(0, 128, 5))
def test_a_checkpoint_with_a_flipped_bit_is_none(spoilt: int) -> None:
    saver = Saver(Board(**FLASHES[1]))
    first = saver.state
    saver.save(1)
    flash = bytearray(saver.board.flash)
    flash[spoilt] ^= 1 << spoilt % 8
    saver.board.flash = bytes(flash)
    is_padding = spoilt >= 32 + STATE_BYTES + 20 + 8  # header, state, schedule, seal
    assert (saver.load()[0] == 1) == is_padding
    assert saver.state == first


def test_flash_that_is_too_small_has_no_checkpoints() -> None:
    board = Board(SIM_SECTOR_BYTES=128, SIM_SECTORS=1, SIM_CHECKPOINT_SECTORS=1)
    device = device_on(Line(board))
    assert board.c.tte_checkpoint_slots() == 0
    with pytest.raises(CommandRefused) as caught:
        device.save()
    assert caught.value.status == 7


def test_a_save_survives_a_restart_until_it_is_forgotten() -> None:
    board = Board()
    device = device_on(Line(board))
    device.set_learning_rate(0.25)
    x = samples(10, 8)
    for i in range(5):
        device.train(x[i], i % 3)
    assert device.save() == 1
    state = device.state()
    for i in range(5, 10):
        device.train(x[i], i % 3)
    expected = device.state()
    line = Line(Board(board.flash))
    again = device_on(line)
    assert again.steps == 5 and again.state() == state
    for i in range(5, 10):
        again.train(x[i], i % 3)  # with the learning rate of the checkpoint
    assert again.state() == expected
    assert again.save() == 2
    again.restart(forget=True)
    assert line.board.ended
    fresh = Board(line.board.flash)
    with pytest.raises(ConversationLost):
        line.board = fresh
        again.metrics()
    assert again.hello().checkpoint == 0 and again.steps == 0


@pytest.mark.parametrize("operation", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_power_may_fail_while_a_sample_is_stored(operation: int, seed: int) -> None:
    """What was stored before is there; the sample is there whole, or not at all."""
    x = samples(4, 8)
    board = Board()
    device = device_on(Line(board), retry_s=0.001, limit_s=0.05)
    for i in range(2):
        device.store(x[i], i)
    board.c.sim_cut_power_at(operation, 100 * operation + seed)
    with pytest.raises(TteError, match="does not answer"):
        device.store(x[2], 2)
    assert board.ended == POWER_CUT
    board = Board(board.flash)
    board.c.sim_trust_flash()
    device = device_on(Line(board))
    found = device.hello().samples
    assert found == 2 or (operation, found) == (3, 3)
    assert device.store(x[3], 0) == found + 1
    device.set_learning_rate(0.5)
    device.run(8)
    assert device.metrics().steps == 8
    kept = [(0, 0), (1, 1), *([(2, 2)] if found == 3 else []), (3, 0)]
    other = device_on(Line(Board()))
    other.set_learning_rate(0.5)
    for i in range(8):
        number, label = kept[i % len(kept)]
        other.train(x[number], label)
    assert device.state() == other.state()
