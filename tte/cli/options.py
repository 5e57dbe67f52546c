# SPDX-License-Identifier: Apache-2.0
"""What several commands take, and how its text is read."""

from __future__ import annotations

import math
import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from tte.errors import UsageError


def parse_bytes(text: str) -> int:
    """262144, 256KiB or 256K; also M and MiB."""
    match = re.fullmatch(r"([0-9]{1,12})([KM](?:iB)?)?", text.strip())
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no number of bytes like 262144, 256KiB or 256K")
    return int(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[(match[2] or "")[:1]]


def parse_numbers(text: str) -> tuple[float, ...]:
    """One number, or one per channel separated by commas."""
    values = tuple(map(_number, text.split(",")))
    if not all(map(math.isfinite, values)):
        raise typer.BadParameter(f"{text!r} is no number, and no list of numbers like 123,117,104")
    return values


def parse_positive_numbers(text: str) -> tuple[float, ...]:
    values = parse_numbers(text)
    if min(values) <= 0:
        raise typer.BadParameter(f"{text!r} must be greater than 0")
    return values


def parse_rate(text: str) -> float:
    """A positive number below 10."""
    value = _number(text)
    if not 0 < value < 10:
        raise typer.BadParameter(f"{text!r} is no learning rate like 0.001")
    return value


def parse_share(text: str) -> float:
    """A number from 0 to below 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{text!r} is no number from 0 to below 1")
    return value


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def parse_weights(text: str) -> Any:
    """`balanced`, or one number a class."""
    return "balanced" if text == "balanced" else parse_numbers(text)


def exclude(*options: tuple[str, Any]) -> None:
    """An error where more than one of these (name, value) is given."""
    names = [name for name, value in options if value]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} exclude each other", hint="give one of them")


class LossName(str, Enum):
    auto = "auto"
    cross_entropy = "cross-entropy"
    bce = "bce"
    mse = "mse"


class CalibrationName(str, Enum):
    minmax = "minmax"
    percentile = "percentile"
    mse = "mse"


class ScheduleName(str, Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class CompilerName(str, Enum):
    gcc = "gcc"
    zig = "zig"
    clang = "clang"


class EmulatorName(str, Enum):
    unicorn = "unicorn"
    qemu = "qemu"
    renode = "renode"
    host = "host"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model, .onnx or .tflite.")]
Project = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that compile wrote.")]
Data = Annotated[
    Path, typer.Option("--data", metavar="DATA", help="An .npz file or an image folder.")
]
BoardName = Annotated[str, typer.Option("--board", metavar="B", help="See tte boards.")]
Classes = Annotated[
    int | None,
    typer.Option("--classes", min=2, max=65536, help="A fresh classifier of N outputs."),
]
Mean = Annotated[
    Any,
    typer.Option(
        "--mean",
        parser=parse_numbers,
        metavar="M[,M..]",
        help="uint8 images enter as (pixel - M) / S.",
    ),
]
Std = Annotated[Any, typer.Option("--std", parser=parse_positive_numbers, metavar="S[,S..]")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, max=10**9, help="Training steps.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, max=10**6, help="Default: 1.")]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", parser=parse_rate, metavar="F", help="Default: a good one"),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1)]
SampleSeed = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=2**32 - 1, help="Order of the samples."),
]
Compiler = Annotated[
    CompilerName | None, typer.Option("--compiler", help="Default: the first that is installed.")
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the report; - is stdout.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
LrSchedule = Annotated[
    ScheduleName | None,
    typer.Option("--lr-schedule", help="How the learning rate falls. Default: as compiled."),
]
Baud = Annotated[
    int | None,
    typer.Option("--baud", min=300, max=12_000_000, help="Default: what the board runs at."),
]
