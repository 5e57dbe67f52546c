# SPDX-License-Identifier: Apache-2.0
"""ONNX's own tests of every supported operator pass, or are refused for a reason that is listed."""

from __future__ import annotations

import re
from pathlib import Path

import onnx

from tests.frontend.conformance import outcomes


def test_conformance(root: Path) -> None:
    page = (root / "docs" / "onnx-conformance.md").read_text()
    version = re.search(r"with onnx ([\d.]+);", page)
    assert version is not None
    operators = set(re.findall(r"^\| (\w+) \|", page, flags=re.MULTILINE))
    listed = set(re.findall(r"`(\w+)`", page.partition("## Refused")[2]))
    found = outcomes()
    failures = [f"{outcome.case}: {outcome.reason}" for outcome in found if outcome.is_failure]
    assert not failures
    passed = {outcome.case for outcome in found if not outcome.reason}
    assert len(passed) >= 320
    if onnx.__version__ == version[1]:  # another version has other tests
        new = {o.case: o.reason for o in found if o.reason and o.operator in operators}
        missing = {case: reason for case, reason in new.items() if case not in listed}
        assert not missing, "python -m tests.frontend.conformance > docs/onnx-conformance.md"
