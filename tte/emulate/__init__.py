# SPDX-License-Identifier: Apache-2.0
"""Runs firmware: one protocol, several emulators behind it.

session.py is a device (tte/device) over a Transport; host.py,
unicorn_backend.py and qemu.py are transports; faults.py words what goes wrong.
"""

from tte.emulate.session import OpCounts, Session, Transport, open_session

__all__ = ["OpCounts", "Session", "Transport", "open_session"]
