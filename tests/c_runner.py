# SPDX-License-Identifier: Apache-2.0
"""Runs one integer op through its kernel call on the host's kernel library."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.kernel_library import KernelLibrary
from tte.ir import Graph, Op
from tte.ops import INTEGER_OPS
from tte.ops.chain import stage_scratch_offset
from tte.ops.spec import (
    Arg,
    BandPointer,
    ChainCall,
    RowsArg,
    SaturationsArg,
    ScratchArg,
    TableArg,
    TensorArg,
)

Array = NDArray[Any]
DTYPES = {
    "int8": np.int8,
    "uint8": np.uint8,
    "int32": np.int32,
    "int8_t": np.int8,
    "int16_t": np.int16,
    "int32_t": np.int32,
    "uint16_t": np.uint16,
}


def packed(mask: Array) -> Array:
    """A bool mask as the bytes that kernels read and write."""
    return np.packbits(mask.reshape(-1), bitorder="little")


def run_c(
    library: KernelLibrary,
    graph: Graph,
    op: Op,
    values: Mapping[str, Array],
    in_place: int | None = None,
) -> list[Array]:
    """Outputs of an op as its kernel computes them: masks packed, a gradient op's saturation
    count last. `in_place`: the input whose buffer also takes the first output."""
    spec = INTEGER_OPS[op.kind]
    assert spec.kernel_call is not None
    call = spec.kernel_call(op, graph)
    buffers = _buffers(graph, op, values, in_place)
    saturations = np.zeros(1, np.uint32)
    if isinstance(call, ChainCall):
        _run_chain(library, op, call, buffers, spec.scratch_bytes(op, graph))
    else:
        scratch = np.full(spec.scratch_bytes(op, graph), 0x77, np.uint8)
        args = [a for arg in call.args for a in _arguments(arg, buffers, scratch, saturations)]
        library.call(call.symbol, call.params, args)
    outputs = []
    for name in op.writes:
        out = buffers[name]
        if in_place is not None and name == op.outputs[0]:
            out = out.reshape(-1)[: graph[name].type.elems].reshape(graph[name].type.shape)
        outputs.append(out)
    if spec.counts:
        outputs.append(saturations)
    return outputs


def _buffers(
    graph: Graph, op: Op, values: Mapping[str, Array], in_place: int | None
) -> dict[str, Array]:
    """Inputs, read-only unless the op updates them, and outputs full of rubbish."""
    buffers: dict[str, Array] = {}
    stored = {graph[name].stored_in for name in op.writes}
    for name in op.reads:
        data = values[name] if name in values else graph[name].data
        assert data is not None
        data = packed(data) if graph[name].type.dtype == "bit" else np.ascontiguousarray(data)
        buffers[name] = data.copy()
        buffers[name].flags.writeable = name in stored
    for name in op.writes:
        tensor = graph[name]
        if tensor.stored_in:
            buffers[name] = buffers[tensor.stored_in]
        elif tensor.type.dtype == "bit":
            buffers[name] = np.full(tensor.type.size_bytes, 0xA5, np.uint8)
        else:
            buffers[name] = np.full(tensor.type.shape, 0x5A, DTYPES[tensor.type.dtype])
    if in_place is not None:
        host = buffers[op.inputs[in_place]]
        host.flags.writeable = True
        buffers[op.outputs[0]] = host
    return buffers


def _arguments(
    arg: Arg, buffers: Mapping[str, Array], scratch: Array, saturations: Array
) -> list[Any]:
    if isinstance(arg, TensorArg):
        return [buffers[arg.name] if arg.name else None]
    if isinstance(arg, TableArg):
        dtype = DTYPES.get(arg.c_type, np.int32)
        table = np.asarray(arg.values, np.int64).astype(dtype).reshape(-1)
        table.flags.writeable = False
        return [table if len(table) else None]
    if isinstance(arg, RowsArg):
        return [ctypes.c_uint16(0), ctypes.c_uint16(arg.count)]
    if isinstance(arg, ScratchArg):
        return [scratch]
    assert isinstance(arg, SaturationsArg)
    return [saturations]


def _run_chain(
    library: KernelLibrary, op: Op, chain: ChainCall, buffers: dict[str, Array], scratch_bytes: int
) -> None:
    """The loop that the generated C has, with every ring in a buffer of exactly its size."""
    for tensor, rows in zip(op.attrs.inner, op.attrs.rings, strict=True):
        shape = (rows, *tensor.type.shape[2:])
        buffers[tensor.name] = np.full(shape, 0x33, np.int8)
    scratch = np.full(scratch_bytes - stage_scratch_offset(op), 0x77, np.uint8)
    done = 0
    for row in range(0, chain.out_rows, chain.band_rows):
        end = row + chain.band_rows
        need = min(chain.ring_map_rows, (end - 1) * chain.stride + chain.reach)
        for stage in chain.stages:
            first, last = (done, need) if stage.fills_ring else (row, end)
            if first >= last:
                continue
            args: list[Any] = []
            bands: list[tuple[Array, slice, Array]] = []
            for arg in stage.call.args:
                if isinstance(arg, RowsArg):
                    args += [ctypes.c_uint16(first), ctypes.c_uint16(last)]
                elif isinstance(arg, BandPointer):
                    whole = buffers[arg.name].reshape(-1)
                    where = slice(row * arg.row_bytes, end * arg.row_bytes)
                    part = whole[where].copy()
                    part.flags.writeable = whole.flags.writeable
                    same = [p for w, s, p in bands if s == where and np.shares_memory(w, whole)]
                    part = same[0] if same else part
                    bands.append((whole, where, part))
                    args.append(part)
                else:
                    args += _arguments(arg, buffers, scratch, scratch)
            library.call(stage.call.symbol, stage.call.params, args)
            for whole, where, part in bands:
                if whole.flags.writeable:
                    whole[where] = part
            done = need if stage.fills_ring else done
