# SPDX-License-Identifier: Apache-2.0
"""Real functions of one number, as small trees: what tables are built from.

An activation function is one node; what exporters write in several operators (x * Clip(x + 3, 0,
6) / 6, x * Sigmoid(x), 0.5 x (1 + Erf(x / sqrt 2))) is a tree of them (tte/passes/fold.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_NODES = 64  # of a tree that is built from others
SIMPLE = frozenset({"x", "affine", "clip"})


@dataclass(frozen=True, slots=True)
class Expression:
    """`name`: "x", the argument itself, or one of FUNCTIONS, of `args` and then `numbers`."""

    name: str = "x"
    args: tuple[Expression, ...] = ()
    numbers: tuple[float, ...] = ()

    def __call__(self, x: Array) -> Array:
        """The value at each element of x; beyond a function's domain infinite or NaN."""
        if self.name == "x":
            return x
        with np.errstate(all="ignore"):
            values = [arg(x) for arg in self.args]
            return np.asarray(FUNCTIONS[self.name](*values, *self.numbers), x.dtype)

    def of(self, inner: Expression) -> Expression:
        """This function of another one."""
        if self.name == "x":
            return inner
        return Expression(self.name, tuple(arg.of(inner) for arg in self.args), self.numbers)

    @property
    def nodes(self) -> int:
        """The tree's size."""
        return 1 + sum(arg.nodes for arg in self.args)

    @property
    def is_simple(self) -> bool:
        """Whether it only scales, shifts and clips: layers do that by themselves."""
        return self.name in SIMPLE and all(arg.is_simple for arg in self.args)


def call(name: str, *numbers: float) -> Expression:
    """A function of x."""
    return Expression(name, (Expression(),), numbers)


def _sigmoid(x: Array) -> Array:
    return 0.5 * np.tanh(0.5 * x) + 0.5


def _erf(x: Array) -> Array:
    """Error below 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    total = sum(factor * t ** (power + 1) for power, factor in enumerate(series))
    return np.sign(x) * (1 - total * np.exp(-(x**2)))


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "affine": lambda x, scale, offset: x * scale + offset,
    "clip": lambda x, low, high: np.clip(x, low, high),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "abs": np.abs,
    "cos": np.cos,
    "elu": _elu,
    "celu": lambda x, alpha: _elu(x / alpha, 1.0) * alpha if alpha else np.maximum(x, 0),
    "erf": _erf,
    "exp": np.exp,
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "hard_sigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "leaky_relu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "log": np.log,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "power": np.power,
    "selu": lambda x, alpha, gamma: gamma * _elu(x, alpha),
    "sigmoid": _sigmoid,
    "silu": lambda x, alpha: x * _sigmoid(alpha * x),
    "sin": np.sin,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "thresholded_relu": lambda x, alpha: np.where(x > alpha, x, 0),
}
