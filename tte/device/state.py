# SPDX-License-Identifier: Apache-2.0
"""Trained state in a file, state.bin of a project: what an emulation or a device ended with.

Little endian: "TTES", version (4), steps (4), model id (16), all trained tensors in the order of
program.json's "state", CRC-32 of everything before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tte.errors import TteError
from tte.files import write_whole

STATE_NAME = "state.bin"
_MAGIC, _VERSION = b"TTES", 1
_HEADER = struct.Struct("<4sII16s")


@dataclass(frozen=True, slots=True)
class State:
    """`data`: all trained tensors; `steps`: trained since the network's first state."""

    model_id: str
    steps: int
    data: bytes

    def encode(self) -> bytes:
        body = _HEADER.pack(_MAGIC, _VERSION, self.steps, bytes.fromhex(self.model_id)) + self.data
        return body + zlib.crc32(body).to_bytes(4, "little")


def state_bytes(program: Mapping[str, Any]) -> int:
    """All trained tensors of a program."""
    return sum(int(entry["bytes"]) for entry in program["state"])


def decode(content: bytes, program: Mapping[str, Any], where: str) -> State:
    """The inverse; an error where it is no state of this program."""
    body = content[:-4]
    if (
        len(content) < _HEADER.size + 4
        or content[:4] != _MAGIC
        or zlib.crc32(body) != int.from_bytes(content[-4:], "little")
    ):
        raise TteError("this is no trained state", where=where, why="it is damaged or another file")
    _, version, steps, model_id = _HEADER.unpack_from(body)
    if version != _VERSION:
        raise TteError(
            "the trained state was written by another version of tte",
            where=where,
            why=f"its version is {version}, this tte reads {_VERSION}",
        )
    data = body[_HEADER.size :]
    if model_id.hex() != program["id"] or len(data) != state_bytes(program):
        raise TteError(
            "the trained state belongs to another program",
            where=where,
            why="another model, other data or another --update than the project's",
            hint="compile with the same arguments again, or train anew",
        )
    return State(model_id.hex(), steps, data)


def write_state(project_dir: Path, state: State) -> None:
    """Writes DIR/state.bin whole or not at all."""
    write_whole(project_dir / STATE_NAME, state.encode(), "the trained state")


def read_state(project_dir: Path, program: Mapping[str, Any]) -> State:
    """The trained state of DIR/state.bin."""
    path = project_dir / STATE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise TteError(
            "the project has no trained state yet",
            where=str(path),
            hint=f"tte emulate {project_dir} --data DATA writes it, tte train too; --port reads "
            "it from a board",
        ) from error
    except OSError as error:
        raise TteError(
            "the trained state cannot be read", where=str(path), why=error.strerror or str(error)
        ) from error
    return decode(content, program, str(path))
