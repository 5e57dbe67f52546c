# SPDX-License-Identifier: Apache-2.0
"""Writes a program as a self-contained C project. Same program, same bytes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tte.board import Board
from tte.codegen.project import project_files, render
from tte.codegen.view import CallView, ProgramView
from tte.errors import TteError
from tte.export import to_onnx, trained_weights
from tte.ops.depthwise_conv2d import tap_kernels
from tte.ops.loss import LossAttrs
from tte.program import Program
from tte.resources import runtime_dir

MANIFEST_SCHEMA = "tte-program/1"
MODEL_NAME = "model.onnx"
FAST = "kernels/armv7em/tte_{}.h"
WINDOWS, TAPS, UNUSED = (FAST.format(name) for name in ("windows", "taps", "unused"))


def render_project(program: Program, for_reading: bool = True) -> dict[str, str]:
    """All files of the project: relative path -> text; `for_reading`: see ProgramView."""
    view = ProgramView(program, for_reading)
    values = view.values()
    kernels = sorted({_source(call.symbol, program.board) for call in view.calls})
    files = project_files(
        program.board,
        program.sram_limit_bytes,
        program.flash_limit_bytes,
        program.board.stack_reserve_bytes,
        kernels,
        program.trainable_bytes,
    )
    if UNUSED in files:
        files[UNUSED] += _unused(files[WINDOWS] + files[TAPS], view.calls)
    for name in ("model.h", "model.c", "data.h", "data.c"):
        files[f"src/{name}"] = render(f"{name}.j2", values)
    files["program.json"] = json.dumps(manifest(program, view), indent=1) + "\n"
    return dict(sorted(files.items()))


def _unused(declarations: str, calls: Iterable[CallView]) -> str:
    """A macro for each of the declared depthwise kernels that no call is for."""
    used = set()
    for call in calls:
        if call.window is None:
            continue
        height, width, stride = call.window.kernel_h, call.window.kernel_w, call.window.stride_w
        name = f"tte_windows_{height}x{width}_{stride}_"
        if call.symbol == "tte_depthwise_conv2d_int8":
            used.add(name + "int8")
            if call.has_mask:
                used.add(name + "masked_int8")
        elif call.symbol == "tte_depthwise_conv2d_grad_input_int8":
            used.add(name + "grad")
        elif call.symbol == "tte_depthwise_conv2d_grad_weight_int8":
            used |= tap_kernels(call.window)
    names = re.findall(r"^void (tte_(?:windows|taps)_\w+)\(", declarations, re.MULTILINE)
    return "".join(f"#define {name} NULL\n" for name in names if name not in used)


def _source(symbol: str, board: Board) -> str:
    """The kernel's file below runtime_c/src: the faster one, where there is one for the board."""
    fast = f"armv7em/{symbol}.c"
    is_there = board.has_dsp and (runtime_dir() / "src" / fast).is_file()
    return fast if is_there else f"{symbol}.c"


def emit_project(program: Program, out_dir: Path) -> None:
    """Writes all files below `out_dir`, which exists; model.onnx is what the device computes before
    it is trained, where it can be written as ONNX."""
    for path, text in render_project(program).items():
        target = out_dir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    if program.forward is not None:
        with contextlib.suppress(TteError):  # firmware does not depend on it
            model = to_onnx(program.forward, program.ending)
            (out_dir / MODEL_NAME).write_bytes(model)


def manifest(program: Program, view: ProgramView) -> dict[str, Any]:
    """program.json: what the tools need to know of the project."""
    graph, memory, spec = program.graph, program.memory, program.input
    output = graph[graph.outputs[0]]
    assert output.quant is not None
    channels = output.type.shape[-1]
    labels = program.loss.target.kind == "label"
    loss = next(op.attrs for op in graph.ops if isinstance(op.attrs, LossAttrs))
    backward = {call.index for op in view.backward for call in op.calls}
    names = program.class_names
    return {
        "schema": MANIFEST_SCHEMA,
        "id": program.state_id,
        "model": {"name": program.name, "sha256": program.model_sha256},
        "board": program.board.name,
        "cpu": program.board.core,
        "compiler": None,
        "input": {
            "shape": list(spec.shape),
            "scale": spec.scale,
            "zero_point": spec.zero_point,
            "mean": list(spec.mean),
            "std": list(spec.std),
        },
        "classes": channels if labels else None,
        "class_names": [names[i] if i < len(names) else str(i) for i in range(channels)],
        "output": {
            "shape": list(output.type.shape[1:]),
            "dtype": output.type.dtype,
            "scale": output.quant.scales(channels).tolist(),
            "zero_point": output.quant.zero_point,
        },
        "target": {
            "kind": program.loss.target.kind,
            "bytes": view.target["target_bytes"],
            "scale": program.loss.target.scale,
            "offset": program.loss.target.offset,
        },
        "loss": {
            "name": program.loss.name,
            "scale": loss.loss_scale,
            "label_smoothing": program.loss.smoothing,
            "class_weights": list(program.loss.weights),
        },
        "optimizer": asdict(program.optimizer),
        "learning_rate": program.learning_rate,
        "seed": program.seed,
        "update": {
            "spec": Path(program.plan.spec).name,
            "layers": [
                {
                    "layer": update.layer,
                    "bias": update.bias,
                    "channels": None if update.channels is None else len(update.channels),
                }
                for update in program.plan.updates
            ],
        },
        "state": [{"name": entry.name, "bytes": entry.bytes} for entry in view.state],
        "weights": []
        if program.forward is None
        else [
            asdict(weight)
            for weight in trained_weights(program.forward, program.plan, program.trained)
        ],
        "ops": [
            {
                "op": call.name,
                "kernel": call.symbol,
                "macs": call.macs,
                "phase": "backward" if call.index in backward else "forward",
            }
            for call in view.calls
        ],
        "saturations": view.saturations,
        "memory": {
            "arena_bytes": memory.arena_bytes,
            "trainable_bytes": program.trainable_bytes,
            "sram_limit_bytes": program.sram_limit_bytes,
            "flash_limit_bytes": program.flash_limit_bytes,
            "stack_reserve_bytes": program.board.stack_reserve_bytes,
        },
        "plan": {
            "streams": [asdict(decision) for decision in program.streams],
            "arena_lower_bound_bytes": memory.lower_bound_bytes,
            "arena_proven_bytes": memory.proven_bytes,
            "peak_op": graph.ops[memory.peak_op].name,
            "peak": [{"tensor": name, "bytes": size} for name, size in memory.peak],
            "live": [
                {"op": op.name, "bytes": size}
                for op, size in zip(graph.ops, memory.live_bytes, strict=True)
            ],
        },
    }
