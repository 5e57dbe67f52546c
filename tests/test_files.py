# SPDX-License-Identifier: Apache-2.0
"""Files are written whole, or an error says why not and nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tte.errors import TteError
from tte.files import write_whole


def test_the_old_content_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old and long", b"new"):
        write_whole(path, content, "the file")
        assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", [".", "folder", "none/file"])
def test_what_cannot_be_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TteError, match="the file cannot be written"):
        write_whole(Path(name), b"new", "the file")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
