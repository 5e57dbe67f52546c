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
from tte.ops.spec import IntArg, SaturationsArg, ScratchArg, TableArg, TensorArg

Array = NDArray[Any]
DTYPES = {"int8": np.int8, "int32": np.int32, "int32_t": np.int32, "uint16_t": np.uint16}


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
    buffers: dict[str, Array] = {}
    stored = {graph[name].stored_in: name for name in op.writes if graph[name].stored_in}
    for name in op.reads:
        data = values[name] if name in values else graph[name].data
        assert data is not None
        data = packed(data) if graph[name].type.dtype == "bit" else np.ascontiguousarray(data)
        buffers[name] = data.astype(data.dtype, copy=True)
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
    saturations = np.zeros(1, np.uint32)
    args: list[Any] = []
    for arg in call.args:
        if isinstance(arg, TensorArg):
            args.append(buffers[arg.name] if arg.name else None)
        elif isinstance(arg, TableArg):
            dtype = DTYPES.get(arg.c_type, np.int32)
            table = np.asarray(arg.values, np.int64).astype(dtype).reshape(-1)
            table.flags.writeable = False
            args.append(table if len(table) else None)
        elif isinstance(arg, IntArg):
            args.append(ctypes.c_uint16(arg.value))
        elif isinstance(arg, ScratchArg):
            args.append(np.full(spec.scratch_bytes(op, graph), 0x77, np.uint8))
        else:
            assert isinstance(arg, SaturationsArg)
            args.append(saturations)
    library.call(call.symbol, call.params, args)
    outputs = []
    for name in op.writes:
        out = buffers[name]
        if in_place is not None and name == op.outputs[0]:
            out = out.reshape(-1)[: graph[name].type.elems].reshape(graph[name].type.shape)
        outputs.append(out)
    if spec.accumulate is not None:
        outputs.append(saturations)
    return outputs
