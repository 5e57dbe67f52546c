# SPDX-License-Identifier: Apache-2.0
"""The keywords of Renode's Robot Framework library that emulate.robot uses, on the stand-in."""

from __future__ import annotations

from pathlib import Path

from tests.emulate.fake_renode import Monitor


class FakeRenodeKeywords:
    ROBOT_LIBRARY_SCOPE = "GLOBAL"

    def __init__(self) -> None:
        self._monitor = Monitor()

    def setup(self) -> None:
        pass

    def teardown(self) -> None:
        pass

    def test_teardown(self) -> None:
        pass

    def reset_emulation(self) -> None:
        self._monitor = Monitor()

    def execute_script(self, path: str) -> None:
        self._monitor.script(Path(path))

    def execute_command(self, command: str) -> str:
        return self._monitor.query(command)
