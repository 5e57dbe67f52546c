# SPDX-License-Identifier: Apache-2.0
"""`--classes N`: a fresh last layer, to be trained from a small seeded random start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tte.errors import TteError
from tte.ir import Graph, QuantParams, Role, Tensor, TensorType
from tte.ops.linear import is_logits

WEIGHT_RANGE = 0.5  # how far a weight of the new head may grow (docs/numerics.md, section 3)
START_STD = 1 / 16  # of the first weights, in that range
MAX_CLASSES = 65535


def replace_head(graph: Graph, classes: int, seed: int, w_range: float = WEIGHT_RANGE) -> Graph:
    """A folded float graph with a last linear layer of `classes` outputs. All its weights have
    one scale, w_range / 127; the bias is 0."""
    output = graph.outputs[0]
    if not 2 <= classes <= MAX_CLASSES:
        raise TteError(f"{classes} classes are not possible", why=f"2 to {MAX_CLASSES} are")
    if not is_logits(graph, output):
        producer = graph.producers[output]
        raise TteError(
            "the classifier cannot be replaced",
            where=producer.origin or producer.name,
            why=f"the network ends in {producer.kind}, not in a linear layer",
            hint="compile without --classes, or export the network with a linear layer at its end",
        )
    op = graph.producers[output]
    features = graph[op.inputs[1]].type.shape[1]
    scale = w_range / 127
    real = np.random.default_rng(seed).normal(0.0, w_range * START_STD, (classes, features))
    codes = np.floor(real / scale + 0.5).clip(-127, 127).astype(np.int8)
    bias = np.zeros(classes, np.float32)
    weight_name, bias_name = f"{op.name}.fresh_weight", f"{op.name}.fresh_bias"
    fresh = (
        Tensor(
            weight_name,
            TensorType(codes.shape, "int8"),
            Role.CONSTANT,
            QuantParams((scale,)),
            codes,
        ),
        Tensor(bias_name, TensorType(bias.shape, "float32"), Role.CONSTANT, None, bias),
        replace(graph[output], type=TensorType((1, classes), "float32")),
    )
    layer = replace(op, inputs=(op.inputs[0], weight_name, bias_name))
    ops = [layer if other is op else other for other in graph.ops]
    return graph.with_changes(tensors=fresh, ops=ops)
