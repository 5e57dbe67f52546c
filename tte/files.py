# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from tte.errors import TteError


def write_whole(path: Path, content: bytes, what: str) -> None:
    """Writes beside `path` and moves it there; `what` an error says it is."""
    partial = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise TteError(
            f"{what} cannot be written", where=str(path), why=error.strerror or str(error)
        ) from error
