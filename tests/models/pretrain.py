# SPDX-License-Identifier: Apache-2.0
"""Trains models of the zoo in PyTorch, whose ONNX files are beside this script.

Only needed to make them again:

    pip install torch onnx onnxruntime scikit-learn
    python -m tests.models.pretrain [NAME ...]

A model's own ONNX graph is run node by node with its initializers as parameters, so that there is
one description of each network. The accuracy that is printed is onnxruntime's, on the test part.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

from tests.models.data import PRETRAINED, model_input
from tests.models.zoo import ZOO
from tests.onnx_models import run_onnx
from tte.data import Dataset

FOLDER = Path(__file__).parent
EPOCHS, BATCH, LEARNING_RATE = 15, 32, 2e-3


class Network(torch.nn.Module):
    """Runs an ONNX graph of convolutions, norms, pooling and linear layers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.graph = model.graph
        self.values = torch.nn.ParameterDict()
        self.means: dict[str, torch.Tensor] = {}
        statistics = {
            name
            for node in self.graph.node
            if node.op_type == "BatchNormalization"
            for name in node.input[3:5]
        }
        for tensor in self.graph.initializer:
            array = torch.tensor(numpy_helper.to_array(tensor).copy())
            if tensor.name in statistics:
                self.means[tensor.name] = array
            else:
                self.values[tensor.name] = torch.nn.Parameter(array)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known: dict[str, torch.Tensor] = {self.graph.input[0].name: x}
        for node in self.graph.node:
            inputs = [
                known[n] if n in known else self.means[n] if n in self.means else self.values[n]
                for n in node.input
            ]
            attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            known[node.output[0]] = self.run(node.op_type, inputs, attrs)
        return known[self.graph.output[0].name]

    def run(self, op: str, inputs: list[torch.Tensor], attrs: dict) -> torch.Tensor:
        x = inputs[0]
        if op == "Conv":
            pads, rank = attrs.get("pads", [0] * 4), x.ndim - 2
            if any(pads):
                pairs = [p for i in reversed(range(rank)) for p in (pads[i], pads[i + rank])]
                x = F.pad(x, pairs)
            convolve = F.conv1d if rank == 1 else F.conv2d
            stride, groups = attrs.get("strides", 1), attrs.get("group", 1)
            return convolve(x, *inputs[1:], stride=stride, groups=groups)
        if op == "BatchNormalization":
            scale, offset, mean, variance = inputs[1:]
            return F.batch_norm(x, mean, variance, scale, offset, training=self.training)
        if op == "Relu":
            return F.relu(x)
        if op in ("MaxPool", "AveragePool"):
            pool = {"MaxPool": (F.max_pool1d, F.max_pool2d), "AveragePool": (None, F.avg_pool2d)}
            return pool[op][x.ndim - 3](x, attrs["kernel_shape"], attrs["strides"])
        if op == "GlobalAveragePool":
            return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        if op == "Flatten":
            return x.flatten(1)
        if op == "Gemm":
            return F.linear(x, *inputs[1:])
        raise NotImplementedError(op)

    def save(self, model: onnx.ModelProto, path: Path) -> None:
        """The model with the values that it has now."""
        for tensor in model.graph.initializer:
            mean = self.means.get(tensor.name)
            array = self.values[tensor.name].detach() if mean is None else mean
            tensor.CopyFrom(numpy_helper.from_array(array.numpy(), tensor.name))
        path.write_bytes(model.SerializeToString())


def pretrain(name: str, dataset: Dataset) -> float:
    """Writes NAME.onnx; the accuracy on the test part."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = ZOO[name].build()
    rank = len(model.graph.input[0].type.tensor_type.shape.dim)
    network = Network(model)
    x = torch.tensor(model_input(dataset.x_train, rank))
    y = torch.tensor(dataset.y_train)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
    steps = EPOCHS * -(-len(x) // BATCH)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(network(x[part]), y[part], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            decay.step()
    path = FOLDER / f"{name}.onnx"
    network.save(model, path)
    logits = run_onnx(path, model_input(dataset.x_test, rank))
    return float((logits.argmax(axis=1) == dataset.y_test).mean())


if __name__ == "__main__":
    for name in sys.argv[1:] or PRETRAINED:
        print(f"{name}: {100 * pretrain(name, PRETRAINED[name].dataset()):.1f} %")
