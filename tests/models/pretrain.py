# SPDX-License-Identifier: Apache-2.0
"""Trains models of the zoo in PyTorch.

Makes the ONNX files beside this script, or, into another folder, those of models that are too large
to keep:

    pip install torch onnx onnxruntime scikit-learn pillow
    python -m tests.models.pretrain [--to FOLDER] [NAME ...]

A model's own ONNX graph is run node by node with its weights as parameters, so that there is one
description of each network. The score that is printed is onnxruntime's, on the test part. Runs on
a graphics card where there is one; its results differ from a processor's in the last bits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

from tests.models.data import PRETRAINED, TRAINED, Training, model_input
from tests.models.measure import float_outputs, score
from tests.models.zoo import ZOO

FOLDER = Path(__file__).parent
BATCH, LEARNING_RATE = 32, 2e-3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Inputs that are trained; the other constants are statistics, bounds, sizes.
WEIGHTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "BatchNormalization": (1, 2),
}


class Network(torch.nn.Module):
    """Runs the ONNX graph of a model of the zoo."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.graph = model.graph
        self.weights = torch.nn.ParameterDict()
        trained = {
            node.input[position]
            for node in self.graph.node
            for position in WEIGHTS.get(node.op_type, ())
            if position < len(node.input)
        }
        for tensor in self.graph.initializer:
            array = torch.tensor(numpy_helper.to_array(tensor).copy())
            if tensor.name in trained:
                self.weights[tensor.name] = torch.nn.Parameter(array)
            else:
                self.register_buffer(tensor.name, array)

    def value(self, name: str) -> torch.Tensor | None:
        """A constant; None for an input that is left out."""
        if not name:
            return None
        found: torch.Tensor = self.weights[name] if name in self.weights else getattr(self, name)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known: dict[str, torch.Tensor] = {self.graph.input[0].name: x}
        for node in self.graph.node:
            inputs = [known[name] if name in known else self.value(name) for name in node.input]
            attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            known[node.output[0]] = self.run(node.op_type, inputs, attrs)
        return known[self.graph.output[0].name]

    def run(self, op: str, inputs: list[Any], attrs: dict[str, Any]) -> torch.Tensor:
        """One node's output."""
        x = inputs[0]
        rank = x.ndim - 2
        stride = attrs.get("strides", 1)
        if op == "Conv":
            pads = attrs.get("pads", [0] * 2 * rank)
            x = F.pad(x, [p for i in reversed(range(rank)) for p in (pads[i], pads[i + rank])])
            convolve = F.conv1d if rank == 1 else F.conv2d
            return convolve(x, *inputs[1:], stride=stride, groups=attrs.get("group", 1))
        if op == "ConvTranspose":
            return F.conv_transpose2d(x, *inputs[1:], stride=stride)
        if op == "BatchNormalization":
            scale, offset, mean, variance = inputs[1:]
            return F.batch_norm(x, mean, variance, scale, offset, training=self.training)
        if op in ("MaxPool", "AveragePool"):
            pool = {"MaxPool": (F.max_pool1d, F.max_pool2d), "AveragePool": (None, F.avg_pool2d)}
            return pool[op][rank - 1](x, attrs["kernel_shape"], stride)
        if op == "GlobalAveragePool":
            return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        if op == "Resize":
            return F.interpolate(x, scale_factor=tuple(inputs[2][2:].tolist()), mode="nearest")
        if op == "Concat":
            return torch.cat(inputs, attrs["axis"])
        return {
            "Relu": F.relu,
            "HardSwish": F.hardswish,
            "HardSigmoid": F.hardsigmoid,
            "Flatten": lambda x: x.flatten(1),
            "Gemm": F.linear,
            "Add": torch.add,
            "Mul": torch.mul,
        }[op](*inputs)

    def save(self, model: onnx.ModelProto, path: Path) -> None:
        """The model with the values that it has now."""
        for tensor in model.graph.initializer:
            value = self.value(tensor.name)
            assert value is not None
            tensor.CopyFrom(numpy_helper.from_array(value.detach().cpu().numpy(), tensor.name))
        path.write_bytes(model.SerializeToString())


def varied(x: torch.Tensor) -> torch.Tensor:
    """Pictures, half of them mirrored, moved by up to an eighth of their size."""
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    x = torch.where(mirrored, x.flip(3), x)
    far = x.shape[3] // 8
    down, right = torch.randint(0, 2 * far + 1, (2,)).tolist()
    padded = F.pad(x, [far] * 4, mode="replicate")
    return padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]


def pretrain(name: str, training: Training, folder: Path = FOLDER) -> float:
    """Writes NAME.onnx; the model's score on the test part."""
    torch.manual_seed(0)
    model = ZOO[training.model].build()
    network = Network(model).to(DEVICE)
    dataset = training.dataset()
    rank = len(model.graph.input[0].type.tensor_type.shape.dim)
    x = torch.tensor(model_input(dataset.x_train, rank), device=DEVICE)
    y = torch.tensor(dataset.y_train, device=DEVICE)
    if not dataset.has_labels:
        y = torch.tensor(model_input(dataset.y_train.astype("float32"), rank), device=DEVICE)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
    steps = training.epochs * -(-len(x) // BATCH)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(training.epochs):
        for part in torch.randperm(len(x)).to(DEVICE).split(BATCH):
            outputs = network(varied(x[part]) if training.vary else x[part])
            if dataset.has_labels:
                loss = F.cross_entropy(outputs, y[part], label_smoothing=0.05)
            else:
                loss = F.mse_loss(outputs, y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            decay.step()
    path = folder / f"{name}.onnx"
    network.save(model, path)
    return score(float_outputs(path, dataset.x_test), dataset)


def main() -> None:
    """Trains the models that are named, or all of this folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(TRAINED)}, ...")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    everything = {**PRETRAINED, **TRAINED}
    for name in arguments.names or PRETRAINED:
        print(f"{name}: {100 * pretrain(name, everything[name], arguments.to):.1f} %", flush=True)


if __name__ == "__main__":
    main()
