# SPDX-License-Identifier: Apache-2.0
"""Runs firmware: one harness protocol, several emulators behind it.

session.py speaks the protocol of runtime_c/firmware/main.c over a Transport; host.py,
unicorn_backend.py and qemu.py are transports; faults.py words what goes wrong.
"""

from tte.emulate.session import Hello, OpCounts, Session, Transport, open_session

__all__ = ["Hello", "OpCounts", "Session", "Transport", "open_session"]
