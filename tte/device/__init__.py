# SPDX-License-Identifier: Apache-2.0
"""Speaks with devices: framed requests over a serial line, or over any stream of bytes.

The names below are for other people's hosts; docs/protocol.md shows how.
"""

from tte.device.client import Device, Hello, Metrics
from tte.device.link import CommandRefused, ConversationLost, Link, Stream
from tte.device.port import SerialStream
from tte.device.run import read_program

__all__ = [
    "CommandRefused",
    "ConversationLost",
    "Device",
    "Hello",
    "Link",
    "Metrics",
    "SerialStream",
    "Stream",
    "read_program",
]
