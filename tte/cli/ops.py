# SPDX-License-Identifier: Apache-2.0
"""tte ops"""

from __future__ import annotations

from tte.cli.options import Json, Quiet
from tte.cli.output import show_rows


def ops_command(json: Json = None, quiet: Quiet = False) -> None:
    """List the supported ONNX operators."""
    from tte.ops import FLOAT_OPS

    pairs = sorted((onnx, op.kind) for op in FLOAT_OPS.values() for onnx in op.onnx)
    facts = {"ops": [{"onnx": onnx, "kind": kind} for onnx, kind in pairs]}
    show_rows("Operators", ("ONNX", "becomes"), pairs, facts, json, quiet)
