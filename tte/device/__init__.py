# SPDX-License-Identifier: Apache-2.0
"""Speaks with devices: framed requests over a serial line, or over any stream of bytes."""

from tte.device.client import Device, Hello, Metrics
from tte.device.link import CommandRefused, ConversationLost, Link, Stream

__all__ = [
    "CommandRefused",
    "ConversationLost",
    "Device",
    "Hello",
    "Link",
    "Metrics",
    "Stream",
]
