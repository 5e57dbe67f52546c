# SPDX-License-Identifier: Apache-2.0
"""ONNX's own backend tests of every supported operator, through the importer and the float
reference.

    python -m tests.frontend.conformance > docs/onnx-conformance.md

A standard test gives a model and its inputs and outputs. Here a model has one input and takes one
sample at a time, so that each test is run in whichever of these forms applies:

- the first input is the model's input, all others are constants;
- all inputs of numbers are slices of one vector (where the operator takes several activations);
- a batch of N samples is N samples of a batch of one, if that computes the same by onnxruntime
  or by onnx's own reference.

The output is flattened, so that its elements come in the file's order.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.version_converter import convert_version

from tte.errors import TteError
from tte.frontend.onnx import load_model
from tte.frontend.qoperator import CONTRIB
from tte.frontend.qoperator import RULES as QUANTISED
from tte.ir import Graph
from tte.ops import ONNX_RULES
from tte.passes.fold import fold
from tte.reference import run_float

Array = NDArray[Any]

KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")
HERE = {"Dropout", "Identity", "QuantizeLinear", "DequantizeLinear"}  # known to the importer
TOLERANCE = 1e-3
MIN_OPSET, CONVERTED_OPSET = 7, 13  # PyTorch's tests are of operator set 6
QUANTISING = {"QuantizeLinear", "DequantizeLinear", *QUANTISED}
CODES = (np.dtype(np.int8), np.dtype(np.uint8))


@dataclass(frozen=True)
class Case:
    """A standard test: a model, and inputs and outputs by name."""

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Outcome:
    """`reason` is empty for a test that passes; `is_failure`: imported, and computed otherwise."""

    case: str
    operator: str
    reason: str
    is_failure: bool = False


# ---- the standard's tests -----------------------------------------------------------------


def operators() -> set[str]:
    """What is tested."""
    return {*ONNX_RULES, *HERE, *(name for name in QUANTISED if not name.startswith(CONTRIB))}


def cases() -> Iterator[Case]:
    """Tests of one of our operators, with nothing but that in the model (and, in those that come
    from PyTorch, other supported ones)."""
    from onnx.backend.test.loader import load_model_tests

    known = operators() | {"Constant"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = [(kind, test) for kind in KINDS for test in load_model_tests(kind=kind)]
    for kind, test in tests:
        folder = Path(test.model_dir) if test.model_dir else None
        model = test.model
        if model is None:
            if folder is None or not (folder / "model.onnx").is_file():
                continue
            model = onnx.load(folder / "model.onnx")
        types = [node.op_type for node in model.graph.node if node.op_type != "Constant"]
        if not types or not set(types) <= known or (kind == "node" and len(types) > 1):
            continue
        if test.data_sets:
            inputs, outputs = test.data_sets[0]
        elif folder is not None:
            inputs, outputs = (_stored(folder / "test_data_set_0", k) for k in ("input", "output"))
        names = [value.name for value in model.graph.input]
        if any(o.version < MIN_OPSET for o in model.opset_import if o.domain == ""):
            model = convert_version(model, CONVERTED_OPSET)
        yield Case(
            test.name.removeprefix("test_"),
            types[0],
            model,
            dict(zip(names, map(array, inputs), strict=False)),
            dict(zip((o.name for o in model.graph.output), map(array, outputs), strict=False)),
        )


def array(value: Any) -> Any:
    """Scalars as arrays without dimensions; sequences and the like as they are."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def _stored(folder: Path, kind: str) -> list[Array]:
    count = len(list(folder.glob(f"{kind}_*.pb")))
    found = []
    for index in range(count):
        tensor = TensorProto.FromString((folder / f"{kind}_{index}.pb").read_bytes())
        found.append(numpy_helper.to_array(tensor))
    return found


# ---- one test -----------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float32


def run(case: Case, folder: Path) -> Outcome:
    """Every form that applies must pass; the first's reason is given where none does."""
    values = [*case.inputs.values(), *case.outputs.values()]
    if not all(isinstance(value, np.ndarray) for value in values):
        return Outcome(
            case.name, case.operator, "a sequence, an optional value or a type that numpy lacks"
        )
    first = next(iter(case.inputs.values()), None)
    result = next(iter(case.outputs.values()), None)
    if first is None or result is None:
        return Outcome(case.name, case.operator, "no input or no output")
    for value in (first, result):
        codes = value.dtype in CODES and case.operator in QUANTISING
        if not is_number(value) and not codes:
            return Outcome(case.name, case.operator, f"element type {value.dtype}")
    if first.size == 0 or result.size == 0:
        return Outcome(case.name, case.operator, "no elements")
    reasons, passed = [], 0
    for form in (one_activation, many_activations, batch):
        try:
            built = [form(case, output) for output in case.outputs]
            if any(one is None for one in built):
                continue
            for one in built:
                assert one is not None
                check(one, folder)
            passed += 1
        except TteError as error:
            reasons.append((error.why or error.what).split("\n")[0])
        except AssertionError as error:
            return Outcome(case.name, case.operator, f"{form.__name__}: {error}", True)
    reason = "" if passed else reasons[0] if reasons else "its samples depend on one another"
    return Outcome(case.name, case.operator, reason)


@dataclass(frozen=True)
class Form:
    """A model of one input and one flattened output, with what goes in and what must come out."""

    model: onnx.ModelProto
    x: Array
    expected: Array


def one_activation(case: Case, output: str) -> Form | None:
    """The first input is the model's; as a vector where its first axis is no batch of one."""
    name, value = next(iter(case.inputs.items()))
    constants = {other: data for other, data in case.inputs.items() if other != name}
    expected = case.outputs[output]
    if value.ndim in (2, 3, 4) and value.shape[0] == 1:
        model = assemble(case, output, name, value, constants)
        return Form(model, value, expected)
    flat = value.reshape(1, -1)
    model = assemble(case, output, "flat_input", flat, constants)
    prepend(model, [reshape(model, "flat_input", name, value.shape)])
    return Form(model, flat, expected)


def many_activations(case: Case, output: str) -> Form | None:
    """All numbers are slices of one vector."""
    numbers = {name: value for name, value in case.inputs.items() if is_number(value)}
    if len(numbers) < 2 or case.operator not in ("Add", "Sub", "Mul", "Div", "Concat"):
        return None
    constants = {name: value for name, value in case.inputs.items() if name not in numbers}
    flat = np.concatenate([value.reshape(-1) for value in numbers.values()])[None]
    model = assemble(case, output, "flat_input", flat, constants)
    nodes, start = [], 0
    for name, value in numbers.items():
        bounds = [constant(model, f"{name}_{n}", [n]) for n in (start, start + value.size)]
        inputs = ["flat_input", *bounds, constant(model, f"{name}_axis", [1])]
        nodes.append(helper.make_node("Slice", inputs, [f"{name}_flat"]))
        nodes.append(reshape(model, f"{name}_flat", name, value.shape))
        start += value.size
    prepend(model, nodes)
    return Form(model, flat, case.outputs[output])


def batch(case: Case, output: str) -> Form | None:
    """Sample by sample, where another implementation says that the samples do not mix."""
    name, value = next(iter(case.inputs.items()))
    if value.ndim not in (2, 3, 4) or value.shape[0] == 1 or not is_number(value):
        return None
    constants = {other: data for other, data in case.inputs.items() if other != name}
    model = assemble(case, output, name, value[:1], constants)
    found, expected = independent(model, name, value), case.outputs[output]
    if found is None:
        return None
    if found.size != expected.size or differ(found, expected):
        return None
    return Form(model, value, expected)


def independent(model: onnx.ModelProto, name: str, x: Array) -> Array | None:
    """The outputs for each sample, by onnxruntime or by onnx's own reference."""
    samples = [x[i : i + 1] for i in range(len(x))]
    with contextlib.suppress(Exception):  # it may know older operators only
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return np.concatenate([session.run(None, {name: sample})[0] for sample in samples])
    with contextlib.suppress(Exception):
        evaluator = ReferenceEvaluator(model)
        return np.concatenate([evaluator.run(None, {name: sample})[0] for sample in samples])
    return None


def assemble(
    case: Case, output: str, name: str, x: Array, constants: dict[str, Array]
) -> onnx.ModelProto:
    """The test's model with one input like x and one flattened output."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    del graph.input[:], graph.output[:]
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph.input.append(helper.make_tensor_value_info(name, kind, x.shape))
    present = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(
        numpy_helper.from_array(value, other)
        for other, value in constants.items()
        if other not in present
    )
    graph.node.append(reshape(model, output, "flat_output", (1, -1)))
    kind = helper.np_dtype_to_tensor_dtype(case.outputs[output].dtype)
    graph.output.append(helper.make_tensor_value_info("flat_output", kind, None))
    return model


def constant(model: onnx.ModelProto, name: str, values: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
    return name


def reshape(model: onnx.ModelProto, source: str, name: str, shape: Any) -> onnx.NodeProto:
    target = constant(model, f"{name}_shape", list(shape))
    return helper.make_node("Reshape", [source, target], [name])


def prepend(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    own = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *own])


def differ(found: Array, expected: Array) -> bool:
    found, expected = (array.reshape(-1).astype(np.float64) for array in (found, expected))
    return not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def check(form: Form, folder: Path) -> None:
    """AssertionError where the importer and the passes behind it compute something else; TteError
    where they refuse."""
    path = folder / "case.onnx"
    path.write_bytes(form.model.SerializeToString())
    try:
        imported = load_model(path)
    except TteError as error:
        if "needs no computation" not in str(error):
            raise
        (given,), (result,) = form.model.graph.input, form.model.graph.output
        if is_number(form.x):
            prepend(form.model, [helper.make_node("Clip", ["unclipped"], [given.name])])
            given.name = "unclipped"
        else:
            form.model.graph.node.append(helper.make_node("Clip", [result.name], ["clipped"]))
            result.name = "clipped"
        path.write_bytes(form.model.SerializeToString())
        imported = load_model(path)
    graphs = [imported]
    if not {"softmax", "log_softmax"} & {op.kind for op in imported.ops}:  # dropped at the end
        graphs.append(fold(imported))
    for graph in graphs:
        distances = [distance(graph, imported, form, x) for x in entered(form.x, graph)]
        assert min(distances) <= 1, f"differs by {min(distances):g} times what is tolerated"


def entered(x: Array, graph: Graph) -> list[Array]:
    """The file's input in the order of the graph: the file does not say whether its axis 1 or its
    last one are channels."""
    tensor = graph[graph.inputs[0]]
    if x.dtype in CODES:
        assert tensor.quant is not None
        x = tensor.quant.dequantize(x.astype(np.int16) - (128 if x.dtype == np.uint8 else 0))
    shape, found = tensor.type.shape[1:], []
    for moved in (np.moveaxis(x, 1, -1) if x.ndim > 2 else x, x):
        padded = (1,) * (len(shape) + 1 - moved.ndim) + moved.shape[1:]
        if padded == shape or x.ndim == 2:
            found.append(np.ascontiguousarray(moved).reshape(len(x), *shape))
    assert found, f"an input of shape {x.shape} became {shape}"
    return found


def distance(graph: Graph, imported: Graph, form: Form, x: Array) -> float:
    """The largest difference, in what is tolerated: one quantum where codes come out."""
    found = run_float(graph, x)[graph.outputs[0]].reshape(-1).astype(np.float64)
    expected = form.expected.reshape(-1)
    assert found.size == expected.size, f"gives {found.size} elements, not {expected.size}"
    if expected.dtype in CODES:
        quant = graph[graph.outputs[0]].quant or imported[imported.outputs[0]].quant
        assert quant is not None
        codes = expected.astype(np.int16) - (128 if expected.dtype == np.uint8 else 0)
        real = np.rint(found / quant.per_tensor_scale + quant.zero_point).clip(-128, 127)
        return float(np.abs(real - codes).max())
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        error = np.abs(found - expected) / (TOLERANCE * (1 + np.abs(expected)))
    return float(np.where(same, 0, error).max())


# ---- the table ----------------------------------------------------------------------------


def outcomes() -> list[Outcome]:
    """All tests."""
    with tempfile.TemporaryDirectory() as folder:
        return [run(case, Path(folder)) for case in cases()]


def table(found: list[Outcome]) -> str:
    """What passes and what does not, as a page of the documentation."""
    total, passed = (
        Counter(o.operator for o in found),
        Counter(o.operator for o in found if not o.reason),
    )
    lines = [
        "# ONNX conformance",
        "",
        "ONNX's own backend tests (they come with the `onnx` package) of every operator that is",
        "supported, through the importer, the folding passes and the float reference. Made by",
        f"`python -m tests.frontend.conformance` with onnx {onnx.__version__}; a test holds it.",
        "",
        f"{sum(passed.values())} of {sum(total.values())} pass; none of the others is imported and",
        "computes something else: each is refused with a message, for the reason given below.",
        "",
        "| operator | tests | pass |",
        "|---|---|---|",
        *(f"| {name} | {total[name]} | {passed[name]} |" for name in sorted(total)),
        "",
        "## Refused",
        "",
    ]
    refused: dict[str, list[str]] = defaultdict(list)
    for outcome in found:
        if outcome.reason:
            refused[outcome.reason].append(outcome.case)
    for reason, names in sorted(refused.items()):
        lines.append(f"- **{reason}**: {', '.join(f'`{name}`' for name in sorted(names))}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    results = outcomes()
    for outcome in results:
        if outcome.is_failure:
            print(outcome.case, outcome.reason, file=sys.stderr)
    print(table(results), end="")
