# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes at both ends of the line."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.device.fuzz import SEEDS, build_fuzzer, has_libfuzzer
from tests.device.simulator import FUZZ, FUZZ_DEFINES, SOURCES, Board, compile_sim
from tests.device.test_link import program
from tte.device import Device, Link
from tte.device.frames import ANSWER, Decoder, Frame, cobs_decode, cobs_encode, encode
from tte.device.link import key_of
from tte.errors import TteError

FIRMWARE_BYTES = 10_000_000


def test_ten_million_bytes_for_the_firmware(tmp_path: Path) -> None:
    """The kept seeds, then a fixed mixture of rubbish, damaged and sound but senseless frames."""
    fuzzer = tmp_path / "fuzz"
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    sources = map(str, (*SOURCES, FUZZ / "fuzz_firmware.c"))
    compile_sim(fuzzer, (*FUZZ_DEFINES, ("STANDALONE", 1)), *flags, *sources)
    seeds = sorted(map(str, (FUZZ / "seeds").iterdir()))
    assert len(seeds) > 10
    done = subprocess.run(
        [str(fuzzer), str(FIRMWARE_BYTES), *seeds], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_libfuzzer_from_the_seeds(tmp_path: Path) -> None:
    """Shortly; `python -m tests.device.fuzz` takes as long as it is told."""
    if not has_libfuzzer(tmp_path):
        pytest.skip("needs clang with libFuzzer: sudo apt install clang libclang-rt-dev")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    build_fuzzer(tmp_path / "fuzz")
    options = ["-runs=30000", "-seed=1", "-max_len=400", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [tmp_path / "fuzz", corpus, SEEDS, *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert any(corpus.iterdir())  # it found its way to new code


def test_codes_are_inverse_and_as_long_as_they_should_be() -> None:
    rng = np.random.default_rng(0)
    for size in (*range(0, 600, 7), 253, 254, 255, 508, 509, 2048):
        for high in (2, 256):
            data = rng.integers(0, high, size).astype(np.uint8).tobytes()
            coded = cobs_encode(data)
            assert 0 not in coded and cobs_decode(coded) == data
            assert len(coded) <= size + size // 254 + 1


def test_the_firmware_codes_frames_as_python_does() -> None:
    board = Board()
    hello = board.serve(encode(Frame(1, 0, 0, 0, b"nonc")))
    (frame,) = Decoder().feed(hello)
    assert encode(frame) == hello
    assert frame.key == key_of(b"nonc", frame.payload[4:20])


def test_a_million_bytes_for_the_decoder() -> None:
    rng = random.Random(5)
    decoder = Decoder()
    found = fed = 0
    while fed < 1_000_000:
        data = bytearray()
        for _ in range(rng.randrange(1, 6)):
            data += encode(Frame(1, 2, 3, 4, rng.randbytes(rng.randrange(2048))))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data += rng.randbytes(rng.randrange(3000))
        frames = decoder.feed(bytes(data))
        assert all((f.command, f.detail, f.sequence, f.key) == (1, 2, 3, 4) for f in frames)
        assert len(decoder._coded) < 3000
        found += len(frames)
        fed += len(data)
    assert found > 100
    decoder.feed(bytes(100_000).replace(b"\0", b"x"))
    assert len(decoder._coded) < 3000


class HostileDevice:
    """Answers everything with sound frames that make no sense, and now and then with sense."""

    bits_per_s = 1_000_000

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._board = Board()
        self._out = bytearray()
        self._key = 0

    def send(self, data: bytes) -> None:
        rng = self._random
        for request in Decoder().feed(data):
            if request.command == 1:
                model_id = bytes(range(1, 17))
                self._key = key_of(request.payload, model_id)
                if rng.random() < 0.7:
                    self._out += self._board.serve(encode(request))
                    continue
            sequence = rng.choice((request.sequence, request.sequence - 1, rng.randrange(65536)))
            command = rng.choice((request.command | ANSWER, ANSWER, rng.randrange(256)))
            size = rng.choice((0, 4, 8, 12, 28, 64, rng.randrange(2048)))
            frame = Frame(
                command, rng.choice((0, 0, 0, 1, 2, 4, rng.randrange(256))), sequence & 0xFFFF,
                rng.choice((self._key, self._key, rng.getrandbits(32))), rng.randbytes(size),
            )  # fmt: skip
            self._out += encode(frame)

    def receive(self, timeout_s: float | None) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data


@pytest.mark.parametrize("seed", range(60))
def test_a_hostile_device_gets_an_error_and_nothing_else(seed: int) -> None:
    sample = np.zeros(8, np.int8)
    device = Device(Link(HostileDevice(seed), retry_s=0.0, limit_s=0.3), program())
    try:
        device.hello()
    except TteError:
        return
    for call in (
        lambda: device.train(sample, 1),
        lambda: device.infer(sample),
        device.state,
        device.saturations,
        device.metrics,
        device.save,
        lambda: device.set_state(bytes(36)),
    ):
        try:
            call()
        except TteError:
            continue
        except struct.error as error:
            pytest.fail(str(error))
