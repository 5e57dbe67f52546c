# SPDX-License-Identifier: Apache-2.0
"""tte inspect"""

from __future__ import annotations

import math

from tte.cli.options import Json, Model, Quiet
from tte.cli.output import count, show_rows, times
from tte.cli.project import check_model


def inspect_command(model: Model, json: Json = None, quiet: Quiet = False) -> None:
    """List the layers of a model, their sizes and multiplications."""
    from tte.frontend.load import load_model

    check_model(model)
    graph = load_model(model)
    layers = []
    for op in graph.ops:
        shape = graph[op.outputs[0]].type.shape
        constants = [graph[name] for name in op.reads if graph[name].data is not None]
        weights = sum(tensor.type.elems for tensor in constants)
        # Each weight of a matrix or kernel meets every output position once.
        positions = math.prod(shape) // shape[-1]
        macs = sum(t.type.elems * positions for t in constants if len(t.type.shape) > 1)
        layers.append(
            {
                "name": op.origin or op.name,
                "kind": op.kind,
                "output": list(shape),
                "parameters": weights,
                "macs": macs,
            }
        )
    inputs = [list(graph[name].type.shape) for name in graph.inputs]
    facts = {"model": graph.name, "inputs": inputs, "layers": layers}
    rows = [
        (
            str(e["name"]),
            str(e["kind"]),
            times(e["output"]),
            *map(count, (e["parameters"], e["macs"])),
        )
        for e in layers
    ]
    total = ("total", "", "", *(count(sum(e[k] for e in layers)) for k in ("parameters", "macs")))
    columns = ("layer", "kind", "output", "#parameters", "#MACs")
    show_rows(
        f"{graph.name}, input {times(inputs[0])}", columns, [*rows, total], facts, json, quiet
    )
