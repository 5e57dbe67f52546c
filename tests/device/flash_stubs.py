# SPDX-License-Identifier: Apache-2.0
"""Programs that stand in for those that flash boards.

Each records its arguments and the files that lie beside it, then prints and exits as its script
says: [[words of the command line, output, status], ..], the first whose words all occur.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STUB = """\
#!{python}
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
name = os.path.basename(__file__)
with open(os.path.join(here, "calls"), "a") as stream:
    files = {{f: os.path.getsize(f) for f in sorted(os.listdir(".")) if f.startswith("firmware.")}}
    stream.write(json.dumps([[name, *sys.argv[1:]], files]) + "\\n")
with open(os.path.join(here, name + ".json")) as stream:
    script = json.load(stream)
for words, output, status in script:
    if all(word in sys.argv for word in words):
        print(output, flush=True)
        sys.exit(status)
sys.exit("no script for " + repr(sys.argv))
"""

ST_LINKS = """\
Found {count} stlink programmers
"""
ST_LINK = """\
  version:    V2J37S26
  serial:     {serial}
  flash:      {flash} (pagesize: 16384)
  sram:       196608
  chipid:     0x413
  dev-type:   {chip}
"""


def st_info(*serials: str, flash: int = 1 << 20, chip: str = "STM32F4x5_F4x7") -> str:
    """What st-info --probe prints."""
    links = [ST_LINK.format(serial=serial, flash=flash, chip=chip) for serial in serials]
    return ST_LINKS.format(count=len(serials)) + "".join(links)


def pyocd_json(*names: str) -> str:
    """What pyocd json --probes prints."""
    boards = [{"unique_id": name, "info": "ST-Link", "target": "n/a"} for name in names]
    return json.dumps({"pyocd_version": "0.46.0", "status": 0, "boards": boards}, indent=4)


class Stubs:
    """A folder of stand-ins, the only one on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, *script: tuple[list[str], str, int]) -> None:
        path = self.folder / name
        path.write_text(STUB.format(python=sys.executable))
        path.chmod(0o755)
        (self.folder / f"{name}.json").write_text(json.dumps(script))

    def calls(self) -> list[tuple[list[str], dict[str, int]]]:
        """(command, files beside it) of each call, in order."""
        path = self.folder / "calls"
        lines: list[Any] = path.read_text().splitlines() if path.exists() else []
        return [tuple(json.loads(line)) for line in lines]
