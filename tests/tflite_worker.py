# SPDX-License-Identifier: Apache-2.0
"""Runs a TensorFlow Lite interpreter: ai-edge-litert here, or tflite-runtime, which needs another
numpy, in an environment of its own:

    python tflite_worker.py tflite_runtime [MODEL INPUTS.npy OUTPUTS.npz]...

Imports nothing of this project.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np


def codes(module: str, model: str, x: Any) -> dict[str, Any]:
    """Input and outputs by name, [N, ...], and `<name>/quant`: scale and zero point."""
    runtime = importlib.import_module(f"{module}.interpreter")
    interpreter = runtime.Interpreter(
        model_path=model,
        experimental_op_resolver_type=runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (feed,) = interpreter.get_input_details()
    details = [feed, *interpreter.get_output_details()]
    runs = []
    for sample in x:
        interpreter.set_tensor(feed["index"], sample[None])
        interpreter.invoke()
        runs.append([interpreter.get_tensor(detail["index"]).copy() for detail in details])
    found: dict[str, Any] = {}
    for position, detail in enumerate(details):
        found[detail["name"]] = np.concatenate([run[position] for run in runs])
        found[f"{detail['name']}/quant"] = np.asarray(detail["quantization"], np.float64)
    return found


if __name__ == "__main__":
    _, name, *files = sys.argv
    for source, samples, target in zip(files[::3], files[1::3], files[2::3], strict=True):
        np.savez(target, **codes(name, source, np.load(samples)))
