# SPDX-License-Identifier: Apache-2.0
"""How much of a serial line images use: python -m tests.device.throughput

A pseudo-terminal passes bytes at 921,600 baud; behind it the real firmware, with a network that
costs no time, answers. Before it, the real client trains with images of 128x128x3.
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np

from tests.device.simulator import Board
from tests.device.test_link import IMAGE_BYTES, program
from tte.device import Device, Link
from tte.device.port import SerialStream
from tte.emulate.serve import pseudo_terminal, serve

BAUD = 921_600
IMAGES = 10


class InstantBoard:
    """A Transport to a firmware in this process that computes in no time."""

    name, version, bits_per_s = "simulator", "", None

    def __init__(self, board: Board) -> None:
        self.board = board
        self.sent_bytes = self.received_bytes = 0
        self._answers, self._line = bytearray(), bytearray()

    def send(self, data: bytes) -> None:
        """The board takes whole frames; on a real one the receiver waits for the rest."""
        self.received_bytes += len(data)
        self._line += data
        whole = self._line.rfind(0) + 1
        self._answers += self.board.serve(bytes(self._line[:whole]))
        del self._line[:whole]

    def receive(self, timeout_s: float | None) -> bytes:
        data = bytes(self._answers)
        self._answers.clear()
        self.sent_bytes += len(data)
        return data

    def count_ops(self, command: object) -> None:
        return None

    def close(self) -> None:
        pass


def measure(images: int = IMAGES, baud: int = BAUD) -> tuple[float, float]:
    """The share of the line's time and of its bytes that was pixels."""
    board = InstantBoard(Board(TTE_INPUT_BYTES=IMAGE_BYTES, TTE_LINK_PAYLOAD_BYTES=512))
    x = np.random.default_rng(0).integers(-128, 128, (images, IMAGE_BYTES)).astype(np.int8)
    ended = threading.Event()
    with pseudo_terminal() as (terminal, path):
        server = threading.Thread(target=serve, args=(board, terminal, baud, ended.is_set))
        server.start()
        try:
            with SerialStream(path, baud) as stream:
                device = Device(Link(stream), program(IMAGE_BYTES))
                device.hello()
                first_bytes, start_s = board.received_bytes, time.monotonic()
                for image in x:
                    device.train(image, 0)
                took_s = time.monotonic() - start_s
                line_bytes = board.received_bytes - first_bytes
        finally:
            ended.set()
            server.join()
    pixels = images * IMAGE_BYTES
    return pixels * 10 / baud / took_s, pixels / line_bytes


def main() -> int:
    time_share, byte_share = measure()
    print(f"{IMAGES} images of {IMAGE_BYTES:,} bytes at {BAUD:,} baud")
    print(f"{time_share:.1%} of the line's time, {byte_share:.1%} of its bytes were pixels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
