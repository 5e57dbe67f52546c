# SPDX-License-Identifier: Apache-2.0
"""Float models and their int8 selves: the scores of docs/models.md.

Models of the zoo with trained weights, and three ImageNet networks whose heads are linear
classifiers of their features (logistic regression). Models that are not kept here are left out
until they are trained:

    python -m tests.models.pretrain --to build/models NAME ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table

from tests.models.data import PRETRAINED, TRAINED
from tests.models.measure import float_outputs, int8_outputs, score
from tte.board import load_board
from tte.data import Dataset, load_dataset
from tte.passes.calibrate import METHODS
from tte.pipeline import CompileOptions, prepare

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
TRAINED_HERE = HERE.parents[1] / "build" / "models"
NETS = ("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3")
PHOTOS = ("flowers5_128", "person_128")


@dataclass(frozen=True)
class Case:
    """A trained model and the data that it is for."""

    model: str
    data: str
    path: Path
    dataset: Dataset


def cases(scratch: Path) -> Iterator[Case]:
    """All that there are."""
    for name, training in {**PRETRAINED, **TRAINED}.items():
        folder = HERE.parent / "models" if name in PRETRAINED else TRAINED_HERE
        path = folder / f"{name}.onnx"
        if path.is_file():
            yield Case(training.model, training.dataset.__name__, path, training.dataset())
    for net in NETS:
        for photos in PHOTOS:
            dataset = load_dataset(SHARED / "data" / photos)
            path = with_head(SHARED / "models" / f"{net}-fp32.onnx", dataset, scratch)
            yield Case(net, photos, path, dataset)


def with_head(path: Path, dataset: Dataset, scratch: Path) -> Path:
    """The network with a classifier of its own features for these classes."""
    from sklearn.linear_model import LogisticRegression

    model = onnx.load(path)
    head = model.graph.node[-1]
    assert head.op_type == "Gemm"
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=head.input[0]))
    target = scratch / path.name
    del model.graph.node[-1]
    onnx.save(model, target)
    features = float_outputs(target, dataset.x_train)
    fitted = LogisticRegression(C=0.01, max_iter=5000).fit(features, dataset.y_train)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # two classes
        weight, bias = np.vstack([0 * weight, weight]), np.append(0, bias)
    model.graph.node.append(head)
    for name, array in zip(head.input[1:], (weight, bias), strict=True):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=head.output[0]))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, target)
    return target


def quantisation(scratch: Path) -> None:
    """Prints a row a model and data set, and then the table."""
    console = Console(width=160)
    table = Table(title="score of the test part, %; error of the outputs with minmax, %")
    for column in ("model", "data"):
        table.add_column(column)
    ways = [(method, correct) for correct in (True, False) for method in METHODS]
    names = [method if correct else f"{method}, as rounded" for method, correct in ways]
    for column in ("samples", "float", *names, "error", "error, as rounded"):
        table.add_column(column, justify="right")
    board = load_board("mps2-an500")
    for case in cases(scratch):
        expected = float_outputs(case.path, case.dataset.x_test)
        row = [case.model, case.data, str(len(expected))]
        row.append(f"{100 * score(expected, case.dataset):.1f}")
        errors = {}
        for method, correct in ways:
            options = CompileOptions(board=board, calibration=method, bias_correction=correct)
            prepared = prepare(case.path, case.dataset, options)
            found = int8_outputs(prepared, case.dataset.x_test)
            row.append(f"{100 * score(found, case.dataset):.1f}")
            errors[method, correct] = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        row.extend(f"{100 * errors['minmax', correct]:.1f}" for correct in (True, False))
        table.add_row(*row)
        console.print(" | ".join(row))
    console.print(table)
