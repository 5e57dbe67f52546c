# SPDX-License-Identifier: Apache-2.0
"""One training step of a real network against an independent floating-point implementation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tte.frontend.onnx import load_model
from tte.ir import Graph, Role, Tensor, TensorType
from tte.ir.verify import verify
from tte.ops import INTEGER_OPS
from tte.ops.arith import to_factor
from tte.ops.quantized import UpdateAttrs
from tte.passes.calibrate import calibrate
from tte.passes.differentiate import differentiate
from tte.passes.fold import fold
from tte.passes.prune import prune
from tte.passes.quantize import quantize
from tte.passes.scale_gradients import scale_gradients
from tte.passes.schedule import schedule
from tte.passes.update import plan_update
from tte.reference import run_op

SCHEME = "99kb"


@dataclass(frozen=True)
class Cosine:
    """Agreement of one gradient with the reference's."""

    layer: str
    param: str
    cosine: float


def gradient_cosines(models: Path, samples: np.ndarray, teacher: bool) -> list[Cosine]:
    """Cosines of the integer gradients with `mcunet-5fps-grad-golden.npz`, last layer first.

    `samples`: uint8 images that the gradient scales are calibrated on. With `teacher` every layer
    sees the reference's own activations: rounding ties of the forward pass, which cascade through
    fifty layers in any int8 implementation, are then left out, and the arithmetic of the
    gradients is all that differs.
    """
    golden = np.load(models / "mcunet-5fps-grad-golden.npz")
    activations = np.load(models / "mcunet-5fps-activations-golden.npz")
    graph, head = _training_graph(models, golden, samples)
    values = {
        graph.inputs[0]: golden["input_q"].transpose(0, 2, 3, 1),
        "label": golden["label"].reshape(1).astype(np.int32),
        "learning_rate": np.asarray(to_factor(1e-3), np.int64).astype(np.int32),
    }
    found = []
    for op in graph.ops:
        if isinstance(op.attrs, UpdateAttrs):
            cosine = _cosine(graph, op, values, golden, head)
            found.append(Cosine(op.attrs.layer, op.attrs.param, cosine))
        values.update((n, v) for n, v in zip(op.outputs, run_op(graph, op, values), strict=False))
        if teacher and op.name in activations.files and op.name != head:
            shape = graph[op.outputs[0]].type.shape
            values[op.outputs[0]] = activations[op.name].transpose(1, 2, 0).reshape(shape)
    return found


def _training_graph(
    models: Path, golden: np.lib.npyio.NpzFile, samples: np.ndarray
) -> tuple[Graph, str]:
    """The network with the reference's head, pruned to the scheme, and the head's name."""
    graph = fold(load_model(models / "mcunet-5fps-int8-qdq.onnx"))
    head = graph.ops[-1]
    fresh = [
        Tensor(name, TensorType(golden[key].shape, "float32"), Role.CONSTANT, None, golden[key])
        for name, key in zip(head.inputs[1:], ("head_weight", "head_bias"), strict=True)
    ]
    classes = len(golden["head_bias"])
    output = replace(graph[head.outputs[0]], type=TensorType((1, classes), "float32"))
    graph = graph.with_changes(tensors=[*fresh, output])
    real = (samples.astype(np.float32) - 128) / 127.5
    forward = verify(quantize(calibrate(graph, real)))
    plan = plan_update(forward, str(models / "updates" / f"mcunet-5fps-{SCHEME}.json"))
    pruned = verify(prune(differentiate(forward), plan))
    codes = (samples.astype(np.int16) - 128).astype(np.int8)
    labels = np.arange(len(codes)) % classes
    ordered, _ = schedule(scale_gradients(pruned, codes, labels, run_op))
    return verify(ordered, scheduled=True), head.name


def _cosine(graph: Graph, op, values: dict, golden: np.lib.npyio.NpzFile, head: str) -> float:  # type: ignore[no-untyped-def]
    attrs: UpdateAttrs = op.attrs
    spec = INTEGER_OPS[op.kind]
    assert spec.real_gradient is not None
    grad = values[op.inputs[-4]].astype(np.float64)
    weight = attrs.param == "weight"
    found = spec.real_gradient(op, [values[op.inputs[0]], grad] if weight else [grad])
    key = f"head_{attrs.param}_grad" if attrs.layer == head else f"{attrs.layer}.{attrs.param}_grad"
    wanted = golden[key].astype(np.float64)
    if weight and wanted.ndim == 4:
        trained = np.flatnonzero(golden[f"{attrs.layer}.channel_mask_{SCHEME}"])
        wanted = wanted.transpose(0, 2, 3, 1)[..., trained]
    found, wanted = found.reshape(-1), wanted.reshape(-1)
    return float(found @ wanted / np.sqrt((found @ found) * (wanted @ wanted)))
