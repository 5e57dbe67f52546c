# SPDX-License-Identifier: Apache-2.0
"""From an update SPEC to the plan of what is trained.

SPEC is `head`, `bias:K`, `last:K`, `full`, or the path of a JSON file of schema tte-update/1.
Layers are convolutions, depthwise convolutions and linear layers, by their ONNX node names.
Sparse update: section 2.2 of "On-Device Training Under 256KB Memory" (NeurIPS 2022).
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.ir import Graph, Op, TrainPlan, Update

LAYER_KINDS = (
    "conv2d_int8",
    "depthwise_conv2d_int8",
    "conv_transpose2d_int8",
    "linear_int32",
)
MAX_FILE_BYTES = 4 * 2**20
FORMS = "head, bias:K, last:K, full, or a JSON file"


def plan_update(graph: Graph, spec: str) -> TrainPlan:
    """Resolves SPEC against an integer forward graph; TteError where it does not fit."""
    layers = [op for op in graph.ops if op.kind in LAYER_KINDS]
    if not layers:
        raise TteError(
            what="there is nothing to train",
            where=graph.name,
            why="the model has no convolution and no linear layer",
        )
    counted = re.fullmatch(r"(bias|last):([0-9]{1,6})", spec)
    if spec == "head":
        updates = [Update(layers[-1].name, True, None)]
    elif spec == "full":
        updates = [Update(op.name, True, None) for op in layers]
    elif counted:
        count = int(counted[2])
        if count > len(layers) - 1:
            raise TteError(
                what=f"update {spec!r} asks for more layers than there are",
                where=graph.name,
                why=f"the model has {len(layers) - 1} trainable layers before its head",
                hint=f"use {counted[1]}:{len(layers) - 1} or less",
            )
        channels = () if counted[1] == "bias" else None
        body = layers[len(layers) - 1 - count : -1]
        updates = [Update(op.name, True, channels) for op in body]
        updates.append(Update(layers[-1].name, True, None))
    else:
        updates = _from_file(graph, layers, Path(spec))
    return TrainPlan(spec, tuple(updates))


def _from_file(graph: Graph, layers: list[Op], path: Path) -> list[Update]:
    document = _read(path)
    choice = document.get("channel_choice", "magnitude")
    entries = document.get("layers")
    if choice not in ("magnitude", "first"):
        raise _invalid(path, f"channel_choice is {choice!r}", 'use "magnitude" or "first"')
    if not isinstance(entries, dict) or not entries:
        raise _invalid(path, '"layers" is missing or empty', "name at least one layer")
    names = {op.name: op for op in layers}
    for name in entries:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.3)
            raise TteError(
                what=f"the update file names the layer {name!r}, which the model does not have",
                where=str(path),
                why=f"{graph.name} has {len(names)} trainable layers",
                hint="did you mean " + ", ".join(near or list(names)[:3]) + "?",
            )
    updates = []
    for op in layers:
        if op.name in entries:
            entry = entries[op.name]
            bias, weight = _entry(path, op.name, entry)
            channels = _listed(path, op.name, entry, channel_count(graph, op))
            if channels is None:
                channels = pick_channels(graph, op, weight, choice)
            elif len(channels) == channel_count(graph, op):
                channels = None
            if bias or channels != ():
                updates.append(Update(op.name, bias, channels))
    if not updates:
        raise _invalid(path, "it trains nothing", 'give a layer "bias": true or a "weight" above 0')
    return updates


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TteError(
            what=f"unknown update {str(path)!r}",
            why="it is none of the known forms and no such file exists",
            hint=f"use {FORMS}",
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise _invalid(path, f"it is larger than {MAX_FILE_BYTES} bytes", "")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"it is not JSON: {error}", "") from None
    if not isinstance(document, dict) or document.get("schema") != "tte-update/1":
        raise _invalid(path, 'its "schema" is not "tte-update/1"', "see docs/update-files.md")
    return document


def _entry(path: Path, name: str, entry: Any) -> tuple[bool, float]:
    if not isinstance(entry, dict) or not set(entry) <= {"bias", "weight", "channels"}:
        raise _invalid(path, f"layer {name!r} is not an object of bias and weight or channels", "")
    bias, weight = entry.get("bias", False), entry.get("weight", 0.0)
    if not isinstance(bias, bool):
        raise _invalid(path, f'"bias" of layer {name!r} is {bias!r}', "use true or false")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise _invalid(path, f'"weight" of layer {name!r} is {weight!r}', "use a number in 0..1")
    return bias, float(weight)


def _listed(path: Path, name: str, entry: Any, count: int) -> tuple[int, ...] | None:
    """The channels that an entry lists, if it does."""
    listed = entry.get("channels")
    if listed is None:
        return None
    if "weight" in entry:
        raise _invalid(path, f"layer {name!r} has both weight and channels", "give one of them")
    numbers = isinstance(listed, list) and all(type(c) is int for c in listed)
    if not numbers or sorted({*listed}) != listed or any(not 0 <= c < count for c in listed):
        hint = f"list channels below {count} in ascending order"
        raise _invalid(path, f'"channels" of layer {name!r} cannot be used', hint)
    return tuple(listed)


def channel_count(graph: Graph, op: Op) -> int:
    """How many channels of a layer can be chosen: input channels, depthwise: channels."""
    return graph[op.inputs[1]].type.shape[0 if op.kind == "depthwise_conv2d_int8" else -1]


def pick_channels(
    graph: Graph,
    op: Op,
    fraction: float,
    choice: str,
    importance: NDArray[np.float64] | None = None,
) -> tuple[int, ...] | None:
    """The trained channels: the first, or those whose weights have the largest L2 norm, or the
    most important ones of `importance`."""
    count = channel_count(graph, op)
    if fraction == 1.0:
        return None
    if fraction == 0.0:
        return ()
    keep = round(fraction * count) if choice == "first" else int(fraction * count)
    keep = min(count, max(1, keep))
    if choice == "first":
        return tuple(range(keep))
    if importance is None:
        weight = graph[op.inputs[1]]
        assert weight.data is not None
        data = weight.data.astype(np.float64)
        depthwise = op.kind == "depthwise_conv2d_int8"
        axes = tuple(range(1, data.ndim)) if depthwise else tuple(range(data.ndim - 1))
        importance = np.sqrt((data**2).sum(axis=axes))
    return tuple(sorted(np.argsort(-importance, kind="stable")[:keep].tolist()))


def _invalid(path: Path, why: str, hint: str) -> TteError:
    return TteError(what="the update file cannot be used", where=str(path), why=why, hint=hint)
