# SPDX-License-Identifier: Apache-2.0
"""Frames on a serial line: COBS, CRC-32, an 8-byte header. docs/protocol.md describes them; the
firmware's half is runtime_c/link/tte_frame.c.

Sources: Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999; CRC-32 of IEEE 802.3.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

ANSWER = 0x80
WANTS_ANSWER = 1
# The longest payload of an answer, of a request's frame overhead before COBS, and of a frame here.
ANSWER_BYTES = 2048
OVERHEAD_BYTES = 12
_LONGEST_CODED = (ANSWER_BYTES + OVERHEAD_BYTES) * 255 // 254 + 2
_HEADER = struct.Struct("<BBHI")


@dataclass(frozen=True, slots=True)
class Frame:
    """`detail`: WANTS_ANSWER or 0 in requests, a status in answers; `key`: of the conversation."""

    command: int
    detail: int
    sequence: int
    key: int
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """A frame as it goes over the line, between two zero bytes."""
    body = _HEADER.pack(frame.command, frame.detail, frame.sequence, frame.key) + frame.payload
    return b"\0" + cobs_encode(body + zlib.crc32(body).to_bytes(4, "little")) + b"\0"


def cobs_encode(data: bytes) -> bytes:
    """`data` without zero bytes, at most one byte in 254 longer, and one."""
    coded = bytearray()
    for piece in data.split(b"\0"):
        start = 0
        while len(piece) - start >= 254:
            coded.append(255)
            coded += piece[start : start + 254]
            start += 254
        coded.append(len(piece) - start + 1)
        coded += piece[start:]
    return bytes(coded)


def cobs_decode(coded: bytes) -> bytes | None:
    """The inverse; None where `coded`, which has no zero byte, is no code."""
    data = bytearray()
    position = 0
    while position < len(coded):
        code = coded[position]
        end = position + code
        if code == 0 or end > len(coded):
            return None
        data += coded[position + 1 : end]
        position = end
        if code != 255 and position < len(coded):
            data.append(0)
    return bytes(data)


class Decoder:
    """Finds the sound frames in any bytes, and keeps no more of them than one frame has."""

    def __init__(self) -> None:
        self._coded = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        *ends, rest = data.split(b"\0")
        frames = []
        for part in ends:
            self._keep(part)
            frame = None if self._too_long else _parse(bytes(self._coded))
            if frame is not None:
                frames.append(frame)
            self._coded.clear()
            self._too_long = False
        self._keep(rest)
        return frames

    def _keep(self, part: bytes) -> None:
        if len(self._coded) + len(part) > _LONGEST_CODED:
            self._too_long = True
        else:
            self._coded += part


def _parse(coded: bytes) -> Frame | None:
    data = cobs_decode(coded)
    if data is None or len(data) < OVERHEAD_BYTES:
        return None
    body = data[:-4]
    if zlib.crc32(body) != int.from_bytes(data[-4:], "little"):
        return None
    command, detail, sequence, key = _HEADER.unpack_from(body)
    return Frame(command, detail, sequence, key, body[_HEADER.size :])
