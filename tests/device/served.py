# SPDX-License-Identifier: Apache-2.0
"""Emulated boards behind pseudo-terminals, in this process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from tte.device.run import read_program
from tte.emulate.serve import open_transport, pseudo_terminal, serve

BAUD = 921_600


@contextlib.contextmanager
def board(project: Path, emulator: str = "host", baud: int = BAUD) -> Iterator[str]:
    """The path of a port with a board."""
    ended = threading.Event()
    transport = open_transport(emulator, project, read_program(project))
    with pseudo_terminal() as (terminal, path):
        server = threading.Thread(target=serve, args=(transport, terminal, baud, ended.is_set))
        server.start()
        try:
            yield path
        finally:
            ended.set()
            server.join()
            transport.close()
