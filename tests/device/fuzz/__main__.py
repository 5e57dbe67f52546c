# SPDX-License-Identifier: Apache-2.0
"""libFuzzer on the firmware, from the seeds beside this file:

    python -m tests.device.fuzz --seconds 600 [--keep]

--keep adds to the seeds what reaches code that they do not. It needs clang with its run-time
library (Debian: clang and libclang-rt-dev). CI runs it shortly, and ten million fixed
pseudo-random bytes: test_fuzz.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.device.fuzz import SEEDS, build_fuzzer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tte-fuzz-") as name:
        folder = Path(name)
        program, corpus = folder / "fuzz", folder / "corpus"
        corpus.mkdir()
        build_fuzzer(program)
        options = [f"-max_total_time={arguments.seconds}", "-max_len=400", "-print_final_stats=1"]
        options += [f"-artifact_prefix={Path.cwd()}/"]
        status = subprocess.run([program, corpus, SEEDS, *options]).returncode
        if arguments.keep and status == 0:
            subprocess.run([program, "-merge=1", "-use_counters=0", SEEDS, corpus], check=True)
        return status


if __name__ == "__main__":
    sys.exit(main())
