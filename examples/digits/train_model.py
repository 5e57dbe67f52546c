# SPDX-License-Identifier: Apache-2.0
"""Trains and exports digits_cnn.onnx, the small CNN that the example fine-tunes on the device.

Only needed to make the model again: digits_cnn.onnx is part of the repository.

    pip install torch numpy scikit-learn onnx onnxruntime
    python train_model.py [FILE]

Upright digits, 70 % of them for training, in varying contrast, some negative, some noisy, so that
the features are worth keeping. The accuracy printed at the end is measured by onnxruntime on the
other 30 %, clean; these are also the only digits in the test part of make_data.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from make_data import SIZE, load_scans, pixels, render, split
from onnx import TensorProto, helper, numpy_helper
from torch import nn

EPOCHS = 60
BATCH = 64
SEED = 1
MIN_CONTRAST = 0.5
NEGATIVE_SHARE = 0.3
MAX_NOISE = 0.1

# (name, kind, input channels, output channels, kernel, stride, activation)
LAYERS = [
    ("stem", "conv", 1, 12, 3, 1, "relu6"),
    ("down1.depthwise", "depthwise", 12, 12, 3, 2, "relu6"),
    ("down1.pointwise", "conv", 12, 24, 1, 1, None),
    ("residual.expand", "conv", 24, 48, 1, 1, "relu6"),
    ("residual.depthwise", "depthwise", 48, 48, 3, 1, "relu6"),
    ("residual.project", "conv", 48, 24, 1, 1, None),
    ("down2.depthwise", "depthwise", 24, 24, 3, 2, "relu6"),
    ("down2.pointwise", "conv", 24, 96, 1, 1, "relu"),
]
FEATURES = 96
SKIP_FROM, SKIP_TO = "down1.pointwise", "residual.project"


class DigitsCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for _, kind, inputs, outputs, kernel, stride, _ in LAYERS:
            groups = inputs if kind == "depthwise" else 1
            pad = kernel // 2
            self.convs.append(
                nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
            )
            self.norms.append(nn.BatchNorm2d(outputs))
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = x
        for (name, *_, activation), conv, norm in zip(LAYERS, self.convs, self.norms, strict=True):
            x = norm(conv(x))
            if name == SKIP_TO:
                x = x + skip
            if activation == "relu6":
                x = nn.functional.relu6(x)
            elif activation == "relu":
                x = nn.functional.relu(x)
            if name == SKIP_FROM:
                skip = x
        return self.head(x.mean(dim=(2, 3)))


def model_input(images: np.ndarray) -> np.ndarray:
    """float32 [N,1,SIZE,SIZE] as `tte compile` feeds uint8 pixels: (pixel - 128) / 127.5."""
    values = (pixels(images).astype(np.float32) - 128) / 127.5
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def augmented(images: torch.Tensor) -> torch.Tensor:
    """[N,1,SIZE,SIZE] of values 0..1: shifted, paler, some negative, some noisy; as model input."""
    per_image = (len(images), 1, 1, 1)
    images = torch.roll(images, torch.randint(-1, 2, (2,)).tolist(), dims=(2, 3))
    images = images * (MIN_CONTRAST + (1 - MIN_CONTRAST) * torch.rand(per_image))
    images = torch.where(torch.rand(per_image) < NEGATIVE_SHARE, 1 - images, images)
    images = images + torch.randn_like(images) * MAX_NOISE * torch.rand(per_image)
    return (images.clamp(0, 1) * 255 - 128) / 127.5


def train(x: np.ndarray, y: np.ndarray) -> DigitsCnn:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = DigitsCnn()
    steps = EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    images, labels = torch.from_numpy(x).float()[:, None], torch.from_numpy(y)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            logits = model(augmented(images[batch]))
            loss = nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: DigitsCnn) -> onnx.ModelProto:
    """The network node by node, BatchNormalization kept: what a training framework exports."""
    nodes, tensors = [], []

    def constant(name: str, value: torch.Tensor) -> str:
        tensors.append(numpy_helper.from_array(value.detach().numpy(), name))
        return name

    def node(kind: str, name: str, inputs: list[str], **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    x = skip = "input"
    for (name, kind, inputs, _, kernel, stride, activation), conv, norm in zip(
        LAYERS, model.convs, model.norms, strict=True
    ):
        x = node(
            "Conv",
            name,
            [x, constant(f"{name}.weight", conv.weight)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            dilations=[1, 1],
            group=inputs if kind == "depthwise" else 1,
        )
        parameters = [
            constant(f"{name}.norm.scale", norm.weight),
            constant(f"{name}.norm.bias", norm.bias),
            constant(f"{name}.norm.mean", norm.running_mean),
            constant(f"{name}.norm.variance", norm.running_var),
        ]
        x = node("BatchNormalization", f"{name}.norm", [x, *parameters], epsilon=norm.eps)
        if name == SKIP_TO:
            x = node("Add", "residual.add", [skip, x])
        if activation == "relu6":
            limits = ["relu6.min", "relu6.max"]
            x = node("Clip", f"{name}.relu6", [x, *limits])
        elif activation == "relu":
            x = node("Relu", f"{name}.relu", [x])
        if name == SKIP_FROM:
            skip = x
    constant("relu6.min", torch.tensor(0.0))
    constant("relu6.max", torch.tensor(6.0))
    x = node("GlobalAveragePool", "pool", [x])
    x = node("Flatten", "flatten", [x], axis=1)
    head = [x, constant("head.weight", model.head.weight), constant("head.bias", model.head.bias)]
    nodes.append(helper.make_node("Gemm", head, ["logits"], name="head", transB=1))
    graph = helper.make_graph(
        nodes,
        "digits_cnn",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        tensors,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    proto.producer_name = "tte examples/digits"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def main(path: Path) -> None:
    scans, labels = load_scans()
    train_part, test_part = split(labels)
    images = render(scans)
    model = train(images[train_part], labels[train_part])
    path.write_bytes(export(model).SerializeToString(deterministic=True))

    x = model_input(images[test_part])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = session.run(None, {"input": x})[0]
    with torch.no_grad():
        reference = model(torch.from_numpy(x)).numpy()
    difference = float(np.abs(logits - reference).max())
    assert difference < 1e-4, f"onnxruntime and torch differ by {difference}"
    accuracy = float((logits.argmax(axis=1) == labels[test_part]).mean())
    print(
        f"{path}: {path.stat().st_size} bytes, accuracy {accuracy:.4f} on {len(test_part)} digits"
    )


if __name__ == "__main__":
    default = Path(__file__).resolve().parent / "digits_cnn.onnx"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
