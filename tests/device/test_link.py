# SPDX-License-Identifier: Apache-2.0
"""Requests arrive once and in order whatever the line does, and the line is used well."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from tests.device.simulator import FAULTS, Board, Line
from tests.emulate.fake_project import fake_program
from tte.device import CommandRefused, ConversationLost, Device, Link
from tte.device.client import METRICS, STATE
from tte.device.frames import Frame, encode

IMAGE_BYTES = 128 * 128 * 3


def program(input_bytes: int = 8) -> dict[str, Any]:
    return fake_program("mps2-an386", 262144) | {
        "input": {"shape": [1, 1, input_bytes]},
        "state": [{"name": "weight", "bytes": 3 * input_bytes}, {"name": "bias", "bytes": 12}],
    }


def device_on(line: Line, input_bytes: int = 8, **options: Any) -> Device:
    device = Device(Link(line, **options), program(input_bytes))
    device.hello()
    return device


def samples(count: int, input_bytes: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    return np.random.default_rng(3).integers(-9, 10, (count, input_bytes)).astype(np.int8)


def trained(
    faults: float, input_bytes: int, steps: int, kinds: tuple[str, ...] = FAULTS
) -> tuple[Any, ...]:
    """What training leaves behind, and the line."""
    board = Board(TTE_INPUT_BYTES=input_bytes, TTE_LINK_PAYLOAD_BYTES=512)
    line = Line(board, latency_s=0.002, faults=faults, seed=round(100 * faults), kinds=kinds)
    device = device_on(line, input_bytes)
    device.set_learning_rate(0.5)
    x = samples(steps, input_bytes)
    losses = [device.train(x[i], i % 3) for i in range(steps)]
    output = device.infer(x[0]).tolist()
    return (losses, output, device.state(), device.saturations(), device.metrics().steps), line


@pytest.mark.parametrize("kinds", [*((kind,) for kind in FAULTS), FAULTS], ids="+".join)
@pytest.mark.parametrize("faults", [0.01, 0.1, 0.4])
@pytest.mark.parametrize(("input_bytes", "steps"), [(8, 300), (5000, 40)])
def test_faults_change_nothing(
    faults: float, kinds: tuple[str, ...], input_bytes: int, steps: int
) -> None:
    """Each kind alone and all together, in both directions."""
    expected, _ = trained(0.0, input_bytes, steps)
    found, line = trained(faults, input_bytes, steps, kinds)
    assert found == expected
    assert expected[-1] == steps
    assert line.faults_met > 0.5 * faults * line.carried > 2


@pytest.mark.parametrize("latency_s", [0.0, 0.004, 0.016])
def test_images_use_nine_tenths_of_the_line(latency_s: float) -> None:
    """At 921,600 baud and 10 bits a byte; 16 ms is the worst of the usual USB adapters."""
    line = Line(Board(TTE_INPUT_BYTES=IMAGE_BYTES, TTE_LINK_PAYLOAD_BYTES=512), latency_s=latency_s)
    device = device_on(line, IMAGE_BYTES)
    device.set_learning_rate(0.5)
    x = samples(4, IMAGE_BYTES)
    start_s, start_bytes = line.now_s, line.sent_bytes
    for i in range(4):
        device.train(x[i], 0)
    line_s = 4 * IMAGE_BYTES * 10 / 921_600
    assert line_s / (line.now_s - start_s) >= 0.9
    assert 4 * IMAGE_BYTES / (line.sent_bytes - start_bytes) >= 0.95


def test_a_slow_line_is_not_flooded_with_repeats() -> None:
    board = Board(TTE_INPUT_BYTES=IMAGE_BYTES, TTE_LINK_PAYLOAD_BYTES=512)
    device = device_on(Line(board, bits_per_s=115_200, latency_s=0.1), IMAGE_BYTES)
    device.train(samples(1, IMAGE_BYTES)[0], 0)
    assert device.link.frames_again == 0


def test_a_restarted_device_has_lost_the_conversation() -> None:
    line = Line(Board())
    device = device_on(line)
    line.board = Board()
    with pytest.raises(ConversationLost):
        device.metrics()
    device.hello()
    assert device.metrics().steps == 0


def test_frames_of_another_model_or_host_are_refused_and_do_nothing() -> None:
    board = Board()
    device = device_on(Line(board))
    device.train(samples(1, 8)[0], 0)
    state = device.state()
    for key in (0, 1, 0xFFFFFFFF):
        for command in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 63):
            answer = board.serve(encode(Frame(command, 0, 1, key, b"\x04" + bytes(8))))
            assert answer  # a refusal, which a host takes for the end of its conversation
    assert device.state() == state
    assert device.metrics().steps == 1


def test_a_hello_that_comes_again_late_changes_nothing() -> None:
    board = Board()
    line = Line(board)
    sent: list[bytes] = []
    send = line.send
    line.send = lambda data: (sent.append(data), send(data))  # type: ignore[assignment, func-returns-value]
    device = device_on(line)
    device.metrics()
    assert board.serve(sent[0]) == b""
    device.metrics()


def test_echoes_and_rubbish_are_ignored() -> None:
    board = Board()
    device = device_on(Line(board))
    rubbish = np.random.default_rng(1).integers(0, 256, 5000).astype(np.uint8).tobytes()
    board.serve(rubbish + encode(Frame(0x86, 0, 2, 1)) + b"\0\0\0")
    device.metrics()


def test_sequences_wrap() -> None:
    board = Board()
    device = device_on(Line(board))
    link = device.link
    for first in range(1, 65536, 4096):
        requests = range(first, min(first + 4096, 65536))
        write = struct.pack("<BI", STATE, 0)
        board.serve(b"".join(encode(Frame(2, 0, n, link._key, write)) for n in requests))
    link._sequence = 0
    for _ in range(3):
        link.call(METRICS)
    assert link._sequence == 3 and link.frames_again == 0


def test_an_error_reaches_the_host() -> None:
    device = device_on(Line(Board()))
    device.link.post(b"\x09" + bytes(4))
    with pytest.raises(CommandRefused) as caught:
        device.metrics()
    assert caught.value.status == 4
    device.metrics()


class Batches:
    """A stream without a line to a board that reads one frame, then all that is there, and so on:
    it has answered the first before it sees the others."""

    bits_per_s = None

    def __init__(self) -> None:
        self.board, self.sent, self.takes_all = Board(), b"", True

    def send(self, data: bytes) -> None:
        self.sent += data

    def receive(self, timeout_s: float | None) -> bytes:
        self.takes_all = not self.takes_all
        end = len(self.sent) if self.takes_all else self.sent.index(0, 1) + 1
        data, self.sent = self.sent[:end], self.sent[end:]
        return self.board.serve(data)


def test_after_a_refused_write_nothing_is_sent_too_early() -> None:
    """A board drops what follows a command before its answer."""
    device = Device(Link(Batches()), fake_program("mps2-an386", 262144))
    device.hello()
    for _ in range(5):
        device.link.post(struct.pack("<BI", 99, 0))
        with pytest.raises(CommandRefused):
            device.metrics()
    assert device.link.frames_again == 0
