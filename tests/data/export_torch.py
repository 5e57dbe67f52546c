# SPDX-License-Identifier: Apache-2.0
"""Wrote the ONNX files beside it: what PyTorch's two exporters make of a small random network.

    pip install torch==2.13.0 onnxscript && python tests/data/export_torch.py

Only this script needs torch; the tests read the files.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
    disable_observer,
    get_default_qconfig_mapping,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx

FOLDER = Path(__file__).resolve().parent
SHAPE = (1, 3, 16, 16)


class Network(nn.Module):
    """Convolution, a residual block, pooling, a head behind a reshape: the usual things."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.pointwise = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 5))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.3)
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.pointwise(self.depthwise(x))
        x = nn.functional.avg_pool2d(x, 4)
        return self.head(x.reshape(x.size(0), -1))


def save(model: onnx.ModelProto, name: str) -> None:
    """Without the exporter's notes: they hold paths, and are no part of the model."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    (FOLDER / name).write_bytes(model.SerializeToString())


def torchscript(network: nn.Module, name: str, opset: int, batch: bool = False) -> None:
    """The exporter by tracing."""
    torch.onnx.export(
        network,
        (torch.zeros(SHAPE),),
        FOLDER / name,
        dynamo=False,
        opset_version=opset,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}} if batch else None,
    )
    save(onnx.load(FOLDER / name), name)


def dynamo(network: nn.Module, name: str) -> None:
    """The exporter by torch.export, with a symbolic batch."""
    program = torch.onnx.export(
        network,
        (torch.zeros(2, *SHAPE[1:]),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None
    save(program.model_proto, name)


def observe(network: nn.Module) -> None:
    for _ in range(8):
        network(torch.randn(4, *SHAPE[1:]))


def main() -> None:
    """All files."""
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    example = (torch.zeros(SHAPE),)
    network = Network().eval()
    torchscript(network, "torchscript_opset7.onnx", 7)
    torchscript(network, "torchscript_batch.onnx", 17, batch=True)
    dynamo(network, "dynamo_batch.onnx")

    torch.backends.quantized.engine = "fbgemm"
    prepared = prepare_fx(network, get_default_qconfig_mapping("fbgemm"), example)
    observe(prepared)
    torchscript(convert_fx(prepared), "torchscript_int8.onnx", 13)

    fake = QConfig(
        activation=FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        ),
        weight=FakeQuantize.with_args(
            observer=PerChannelMinMaxObserver,
            quant_min=-128,
            quant_max=127,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
        ),
    )
    trained = prepare_qat_fx(Network().train(), QConfigMapping().set_global(fake), example)
    observe(trained)
    trained.eval().apply(disable_observer)
    torchscript(trained, "torchscript_qat.onnx", 18)


if __name__ == "__main__":
    main()
