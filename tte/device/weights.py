# SPDX-License-Identifier: Apache-2.0
"""Trained weights, from a device into an ONNX file and back.

A project's model.onnx (QDQ) is what its firmware computes before it is trained. A pulled file is
the same with the trained codes in it. What has no place in an ONNX model (residuals: the fractions
of a code that training has saved up) is in its metadata, so that pushing it restores every bit.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.device.state import State, decode, state_bytes
from tte.errors import TteError
from tte.export import BIAS_CODES, TrainedWeight, read_weights, with_weights

MODEL_NAME = "model.onnx"
NO_MODEL_HINT = "tte compile writes it, where the network can be written as ONNX"
MODEL_KEY, STATE_KEY, STEPS_KEY = "tte.model_id", "tte.state", "tte.steps"
MOST_STATE_BYTES = 1 << 28
MOST_FILE_BYTES = 1 << 31


def pull(project_dir: Path, program: Mapping[str, Any], state: State) -> bytes:
    """The ONNX file of a project with the weights of `state`."""
    where = project_dir / MODEL_NAME
    content = _read(where, NO_MODEL_HINT)
    arrays, _ = read_weights(content, str(where))
    parts = _parts(program, state.data)
    trained = {
        weight.initializer: weight.into_file(
            _codes(weight, parts[weight.state], arrays), arrays[weight.initializer]
        )
        for weight in _weights(program)
    }
    packed = base64.b64encode(zlib.compress(state.encode(), 9)).decode()
    return with_weights(
        content,
        trained,
        {MODEL_KEY: state.model_id, STEPS_KEY: str(state.steps), STATE_KEY: packed},
    )


def push(project_dir: Path, program: Mapping[str, Any], model: Path) -> State:
    """The state that a device needs to compute what an ONNX file does. Residuals are those of the
    file's metadata where its weights are still those that they belong to, and 0 elsewhere."""
    own = project_dir / MODEL_NAME
    frozen, _ = read_weights(_read(own, NO_MODEL_HINT), str(own))
    arrays, metadata = read_weights(_read(model, "tte weights pull writes one"), str(model))
    trained = _weights(program)
    states = {weight.state for weight in trained}
    wholes = [_found(arrays, weight, frozen[weight.initializer].dtype, model) for weight in trained]
    _check_frozen(frozen, arrays, {weight.initializer for weight in trained}, model)
    kept = _kept_state(metadata, program, str(model))
    parts = _parts(program, kept.data if kept else bytes(state_bytes(program)))
    for weight, whole in zip(trained, wholes, strict=True):
        codes = weight.from_file(whole)
        _check_codes(weight, codes, model)
        _check_rest(weight, whole, frozen[weight.initializer], model)
        data = np.ascontiguousarray(codes).astype(codes.dtype.newbyteorder("<")).tobytes()
        if data != parts[weight.state]:
            parts[weight.state] = data
            for name in parts.keys() - states:
                if name.startswith(f"{weight.initializer}."):
                    parts[name] = bytes(len(parts[name]))
    return State(str(program["id"]), kept.steps if kept else 0, b"".join(parts.values()))


# ---- the state ----------------------------------------------------------------------------


def _weights(program: Mapping[str, Any]) -> list[TrainedWeight]:
    return [
        TrainedWeight(
            entry["state"],
            entry["initializer"],
            tuple(entry["shape"]),
            tuple(entry["perm"]),
            None if entry["channels"] is None else tuple(entry["channels"]),
            entry["axis"],
        )
        for entry in program.get("weights", ())
    ]


def _parts(program: Mapping[str, Any], data: bytes) -> dict[str, bytes]:
    """The state, tensor by tensor."""
    parts, offset = {}, 0
    for entry in program["state"]:
        parts[entry["name"]] = data[offset : offset + entry["bytes"]]
        offset += entry["bytes"]
    return parts


def _codes(weight: TrainedWeight, data: bytes, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    dtype = arrays[weight.initializer].dtype.newbyteorder("<")
    return np.frombuffer(data, dtype).reshape(weight.state_shape())


def _kept_state(
    metadata: Mapping[str, str], program: Mapping[str, Any], where: str
) -> State | None:
    """The state in a file's metadata, if it is one of this program."""
    if metadata.get(MODEL_KEY) != program["id"] or STATE_KEY not in metadata:
        return None
    try:
        packed = base64.b64decode(metadata[STATE_KEY], validate=True)
        content = zlib.decompressobj().decompress(packed, MOST_STATE_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise TteError(
            "the state in the file's metadata is damaged", where=where, why=str(error)
        ) from error
    return decode(content, program, where)


# ---- the file -----------------------------------------------------------------------------


def _read(path: Path, hint: str) -> bytes:
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise TteError("the model is too large", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise TteError(
            "the model cannot be read",
            where=str(path),
            why=error.strerror or str(error),
            hint=hint,
        ) from error


def _found(
    arrays: Mapping[str, NDArray[Any]], weight: TrainedWeight, dtype: Any, where: Path
) -> NDArray[Any]:
    array = arrays.get(weight.initializer)
    if array is None or array.size != int(np.prod(weight.shape)) or array.dtype != dtype:
        raise TteError(
            f"the model has no weights {weight.initializer!r} of {dtype} {list(weight.shape)}",
            where=str(where),
            why="it was not pulled from this project"
            if array is None
            else f"they are {array.dtype} {list(array.shape)}",
            hint="tte weights pull writes files that fit",
        )
    return array


def _check_frozen(
    own: Mapping[str, NDArray[Any]],
    arrays: Mapping[str, NDArray[Any]],
    trained: set[str],
    where: Path,
) -> None:
    """Whatever is not trained is as in the project: it lies in flash and cannot be changed."""
    for name, expected in own.items():
        found = arrays.get(name)
        if name in trained:
            continue
        if (
            found is None
            or found.dtype != expected.dtype
            or found.shape != expected.shape
            or found.tobytes() != expected.tobytes()
        ):
            raise TteError(
                f"the model's {name!r} is not the project's",
                where=str(where),
                why="only weights that the project trains can be changed on the device",
                hint="compile the model instead: tte compile MODEL",
            )


def _check_rest(weight: TrainedWeight, whole: NDArray[Any], own: NDArray[Any], where: Path) -> None:
    """The channels of a weight that are not trained are as in the project too."""
    if weight.channels is None:
        return
    blank = np.zeros(weight.state_shape(), own.dtype)
    if (weight.into_file(blank, whole) != weight.into_file(blank, own)).any():
        raise TteError(
            f"other channels of {weight.initializer!r} than the project trains have changed",
            where=str(where),
            hint="compile the model instead: tte compile MODEL",
        )


def _check_codes(weight: TrainedWeight, codes: NDArray[Any], where: Path) -> None:
    limit = 127 if codes.dtype == np.int8 else BIAS_CODES
    if np.abs(codes.astype(np.int64)).max(initial=0) > limit:
        raise TteError(
            f"a code of {weight.initializer!r} is out of range",
            where=str(where),
            why=f"codes are -{limit} to {limit}",
        )
