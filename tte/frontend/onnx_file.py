# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX file into plain records: nodes, constants, input, output.

The file is somebody else's: its size, its structure and every array are checked before memory
is spent on them, external data may not leave the model's folder, and each defect is a TteError.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.ops.spec import OnnxNode

if TYPE_CHECKING:
    from types import ModuleType

Array = NDArray[Any]

MAX_FILE_BYTES = 64 << 20
MAX_PARSED_BYTES = 256 << 20  # beyond the file itself
MAX_NODES = 10_000
MAX_NAME_CHARS = 1000
MIN_OPSET = 7
BYTES_PER_FIELD = 200  # of a parsed message, at most, for each of its fields
SUBGRAPH = "<graph>"  # stands for an attribute that holds a graph

EXPORT_HINT = "export the network again, e.g. torch.onnx.export(model, x, FILE, opset_version=17)"


@dataclass(frozen=True, slots=True)
class OnnxValue:
    """A graph input or output. `dims`: None where a size is symbolic or missing."""

    name: str
    dtype: str
    dims: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What an ONNX file holds. Initializers that are also inputs count as constants."""

    name: str
    opset: int
    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Array]
    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]


class FreeNames:
    """Gives names that nothing else has; n names of one base take n steps."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self.numbers: Counter[str] = Counter()  # last number behind a base

    def free(self, base: str) -> str:
        name = base
        while name in self.taken:
            self.numbers[base] += 1
            name = f"{base}_{self.numbers[base] + 1}"
        self.taken.add(name)
        return name


def read_onnx(path: Path) -> OnnxFile:
    """The checked content of a file."""
    try:
        return _Reader(path).read()
    except TteError:
        raise
    except Exception as error:  # protobuf, onnx and numpy raise of every kind
        raise TteError(
            "the model cannot be read",
            where=str(path),
            why=f"{type(error).__name__}: {printable(str(error))[:300]}",
            hint=EXPORT_HINT,
        ) from error


def file_bytes(path: Path, hint: str) -> bytes:
    """The content of a model file, of checked size; `hint` says how to get a good one."""
    if path.is_dir():
        what, way_out = "the model is a directory", "name an .onnx or .tflite file"
        raise TteError(what, where=str(path), hint=way_out)
    if not path.is_file():
        raise TteError("the model does not exist", where=str(path))
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TteError(
                f"the model has {size >> 20} MiB",
                where=str(path),
                why=f"at most {MAX_FILE_BYTES >> 20} MiB are read; a microcontroller has less",
            )
        data = path.read_bytes()
    except OSError as error:
        raise TteError(
            "the model cannot be read", where=str(path), why=error.strerror or str(error)
        ) from error
    if not data:
        raise TteError("the model is empty", where=str(path), hint=hint)
    return data


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.external_bytes = 0

    def error(self, what: str, why: str = "", hint: str = "") -> TteError:
        return TteError(what, where=str(self.path), why=why, hint=hint)

    def read(self) -> OnnxFile:
        data = file_bytes(self.path, EXPORT_HINT)
        try:
            parsed_bytes = estimate_parsed_bytes(data)
        except ValueError as error:
            raise self.error("the model is not an ONNX file", str(error), EXPORT_HINT) from error
        if parsed_bytes > MAX_PARSED_BYTES:
            raise self.error(
                "the model is too large",
                f"it would take {parsed_bytes >> 20} MiB of memory to read its structure",
            )
        import onnx

        self.onnx: ModuleType = onnx
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
        except Exception as error:
            raise self.error(
                "the model is not an ONNX file", "it is truncated or corrupt", EXPORT_HINT
            ) from error
        if not model.HasField("graph") or not model.opset_import:
            why = "it has no graph or names no operator set"
            raise self.error("the model is not an ONNX file", why, EXPORT_HINT)
        opset = self.opset(model)
        graph = model.graph
        if model.functions:
            raise self.error(
                "functions in a model are not supported",
                f"it defines {printable(model.functions[0].name)!r}",
                "onnx.inliner.inline_local_functions(model) replaces them by their nodes",
            )
        if graph.sparse_initializer:
            raise self.error("sparse initializers are not supported", hint="store them dense")
        if not graph.node:
            raise self.error("the model has no nodes", hint=EXPORT_HINT)
        if len(graph.node) > MAX_NODES:
            raise self.error(f"the model has {len(graph.node)} nodes, at most {MAX_NODES} are read")
        constants: dict[str, Array] = {}
        for tensor in graph.initializer:
            name = _text(tensor.name)
            if not name or name in constants:
                raise self.error(f"the initializer name {printable(name)!r} is not unique")
            constants[name] = self.array(tensor, name)
        names = [name for node in graph.node for name in (node.name, *node.input, *node.output)]
        names += [value.name for value in (*graph.input, *graph.output)]
        longest = max([*names, *constants], key=len)
        if len(longest) > MAX_NAME_CHARS:
            raise self.error(
                f"the name {printable(longest)[:40]!r}... has {len(longest)} characters",
                f"at most {MAX_NAME_CHARS} are read",
            )
        return OnnxFile(
            name=printable(graph.name)[:80] or "model",
            opset=opset,
            nodes=tuple(self.node(node, index, opset) for index, node in enumerate(graph.node)),
            constants=constants,
            inputs=tuple(self.value(v) for v in graph.input if _text(v.name) not in constants),
            outputs=tuple(self.value(v) for v in graph.output),
        )

    def opset(self, model: Any) -> int:
        """The version of the default operator set."""
        versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
        newest = int(self.onnx.defs.onnx_opset_version())
        if len(versions) != 1 or not MIN_OPSET <= versions[0] <= newest:
            found = ", ".join(map(str, versions)) or "none"
            raise self.error(
                f"ONNX operator set {found} is not supported",
                f"{MIN_OPSET} to {newest} are, with the installed onnx package",
                "export with opset_version=17, or convert with onnx.version_converter",
            )
        return int(versions[0])

    def value(self, info: Any) -> OnnxValue:
        """A graph input or output."""
        if not info.type.HasField("tensor_type"):
            return OnnxValue(_text(info.name), "no tensor", None)
        tensor = info.type.tensor_type
        dims = None
        if tensor.HasField("shape"):
            dims = tuple(
                int(dim.dim_value) if dim.HasField("dim_value") else None
                for dim in tensor.shape.dim
            )
        return OnnxValue(_text(info.name), self.dtype_name(tensor.elem_type), dims)

    def dtype_name(self, data_type: int) -> str:
        names = self.onnx.TensorProto.DataType
        try:
            return str(names.Name(data_type)).lower()
        except ValueError:
            return f"unknown type {data_type}"

    def node(self, proto: Any, index: int, opset: int) -> OnnxNode:
        """A node; its name may be empty and need not be unique."""
        domain = "" if proto.domain in ("", "ai.onnx") else f"{_text(proto.domain)}."
        where = printable(proto.name) or f"number {index}"
        attrs: dict[str, Any] = {}
        for attr in proto.attribute:
            if attr.name in attrs:
                raise self.error(f"node {where}: attribute {printable(attr.name)!r} is repeated")
            attrs[_text(attr.name)] = self.attribute(attr, where)
        return OnnxNode(
            printable(domain + _text(proto.op_type)),
            printable(proto.name),
            tuple(map(_text, proto.input)),
            tuple(map(_text, proto.output)),
            attrs,
            opset,
        )

    def attribute(self, attr: Any, where: str) -> Any:
        kinds = self.onnx.AttributeProto
        if attr.type == kinds.FLOAT:
            return float(attr.f)
        if attr.type == kinds.INT:
            return int(attr.i)
        if attr.type == kinds.STRING:
            return attr.s.decode("utf-8", "replace")
        if attr.type == kinds.FLOATS:
            return tuple(map(float, attr.floats))
        if attr.type == kinds.INTS:
            return tuple(map(int, attr.ints))
        if attr.type == kinds.STRINGS:
            return tuple(s.decode("utf-8", "replace") for s in attr.strings)
        if attr.type == kinds.TENSOR:
            return self.array(attr.t, f"{where}, attribute {_text(attr.name)}")
        if attr.type in (kinds.GRAPH, kinds.GRAPHS, kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS):
            return SUBGRAPH
        name = printable(attr.name)
        raise self.error(f"node {where}: attribute {name!r} has the unknown type {attr.type}")

    # ---- arrays ---------------------------------------------------------------------------

    def array(self, tensor: Any, name: str) -> Array:
        """A tensor's values; floats of 16 bits become float32."""
        name = printable(name)
        dims = tuple(int(dim) for dim in tensor.dims)
        if len(dims) > 16 or any(dim < 0 for dim in dims):
            raise self.error(f"tensor {name!r} has the dimensions {dims}", "they cannot be")
        elems = math.prod(dims)
        kinds = self.onnx.TensorProto
        itemsize = {
            kinds.FLOAT: 4,
            kinds.DOUBLE: 8,
            kinds.FLOAT16: 2,
            kinds.BFLOAT16: 2,
            kinds.INT8: 1,
            kinds.UINT8: 1,
            kinds.INT16: 2,
            kinds.UINT16: 2,
            kinds.INT32: 4,
            kinds.UINT32: 4,
            kinds.INT64: 8,
            kinds.UINT64: 8,
            kinds.BOOL: 1,
        }.get(tensor.data_type)
        if itemsize is None:
            kind = self.dtype_name(tensor.data_type)
            raise self.error(f"tensor {name!r} is of the unsupported type {kind}")
        if tensor.data_location == kinds.EXTERNAL:
            raw = self.external_data(tensor, name, elems * itemsize)
            proto = kinds(dims=dims, data_type=tensor.data_type, raw_data=raw)
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != elems * itemsize:
                raise self.mismatch(name, dims, f"{len(tensor.raw_data)} bytes")
            proto = tensor
        else:
            found = max(
                len(tensor.float_data),
                len(tensor.int32_data),
                len(tensor.int64_data),
                len(tensor.double_data),
                len(tensor.uint64_data),
            )
            if found != elems:
                raise self.mismatch(name, dims, f"{found} values")
            proto = tensor
        array = np.asarray(self.onnx.numpy_helper.to_array(proto))
        if array.shape != dims:
            raise self.mismatch(name, dims, f"the shape {array.shape}")
        if tensor.data_type in (kinds.FLOAT16, kinds.BFLOAT16):
            array = array.astype(np.float32)
        return array

    def mismatch(self, name: str, dims: tuple[int, ...], found: str) -> TteError:
        return self.error(
            f"tensor {name!r} of dimensions {list(dims)} holds {found}", hint=EXPORT_HINT
        )

    def external_data(self, tensor: Any, name: str, expected_bytes: int) -> bytes:
        """The bytes of a tensor that lie in a file beside the model."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = _text(entries.get("location", ""))
        folder = self.path.resolve().parent
        try:
            file = (folder / location).resolve()
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", expected_bytes))
            inside = bool(location) and "\0" not in location and file.is_relative_to(folder)
            exists = inside and file.is_file()
        except (OSError, ValueError, RuntimeError):
            inside = exists = False
            offset = length = -1
        where = f"tensor {name!r}: its external data file {printable(location)!r}"
        if not inside:
            raise self.error(f"{where} is not inside the model's folder")
        if not exists:
            raise self.error(f"{where} does not exist", hint="keep it beside the model")
        if offset < 0 or length != expected_bytes:
            raise self.error(f"{where} should give {length} bytes, needed are {expected_bytes}")
        self.external_bytes += length
        if self.external_bytes > MAX_FILE_BYTES or offset + length > file.stat().st_size:
            raise self.error(f"{where} is too short, or the model too large")
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
        if len(data) != length:
            raise self.error(f"{where} is too short")
        return data


def _text(value: str | bytes) -> str:
    """A string field; protobuf gives bytes where it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def printable(value: str | bytes) -> str:
    """Text from a file without what a terminal or C could take for more."""
    return "".join(c if c.isprintable() else "_" for c in _text(value))


# ---- how much memory a file takes --------------------------------------------------------------

# Wire format: fields whose content is a message again, plain bytes, or packed numbers.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
_BYTES: dict[str, frozenset[int]] = {
    "model": frozenset({2, 3, 4, 6}),
    "graph": frozenset({2, 10}),
    "node": frozenset({1, 2, 3, 4, 6, 7}),
    "attribute": frozenset({1, 4, 7, 9, 13}),
    "tensor": frozenset({4, 8, 9, 10, 12}),
}
_PACKED: dict[str, frozenset[int]] = {
    "model": frozenset(),
    "graph": frozenset(),
    "node": frozenset(),
    "attribute": frozenset({8}),
    "tensor": frozenset({1, 5, 7, 11}),
}
_FIXED_BYTES = {0: 0, 1: 8, 2: 0, 5: 4}  # by wire type


def estimate_parsed_bytes(data: bytes) -> int:
    """An upper estimate of the memory that a parsed ONNX file takes beside its own bytes: a field
    of two bytes may become an object of 150. Stops at MAX_PARSED_BYTES. ValueError where the
    bytes cannot be a protobuf message."""
    total = position = 0
    kind, end = "model", len(data)
    outer: list[tuple[str, int]] = []
    while total <= MAX_PARSED_BYTES:
        while position == end and outer:
            kind, end = outer.pop()
        if position == end:
            break
        total += BYTES_PER_FIELD
        key, position = _varint(data, position, end)
        field, wire = key >> 3, key & 7
        if field == 0 or wire not in _FIXED_BYTES:
            raise ValueError("it is corrupt, or of another format")
        length = _FIXED_BYTES[wire]
        if wire in (0, 2):
            value, position = _varint(data, position, end)
            length = value if wire == 2 else 0
        if position + length > end:
            raise ValueError("it is truncated or corrupt")
        if wire == 2 and field in _MESSAGES[kind]:
            if len(outer) > 100:
                raise ValueError("it is nested too deeply")
            outer.append((kind, end))
            kind, end = _MESSAGES[kind][field], position + length
            continue
        if wire == 2 and field in _PACKED[kind]:
            total += 8 * length
        elif wire == 2 and field not in _BYTES[kind]:
            total += length * BYTES_PER_FIELD // 2
        position += length
    return total


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("it is truncated or corrupt")


def live_nodes(nodes: Iterable[OnnxNode], outputs: Iterable[str]) -> list[OnnxNode]:
    """The nodes that the outputs need, in file order."""
    nodes = list(nodes)
    producers = {name: index for index, node in enumerate(nodes) for name in node.outputs if name}
    wanted, found = list(outputs), set()
    while wanted:
        index = producers.get(wanted.pop())
        if index is not None and index not in found:
            found.add(index)
            wanted.extend(nodes[index].inputs)
    return [node for index, node in enumerate(nodes) if index in found]
