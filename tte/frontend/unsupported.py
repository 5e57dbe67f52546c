# SPDX-License-Identifier: Apache-2.0
"""The error for operators that are not supported, and what does their work instead."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable

from tte.errors import TteError

LINE = 88  # characters of the list
NORM = "BatchNormalization"
SERIES = "dilated convolutions along the series"
INSTEAD = {
    "GRU": SERIES,
    "LSTM": SERIES,
    "RNN": SERIES,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": SERIES,
    "UNIDIRECTIONAL_SEQUENCE_RNN": SERIES,
    "GroupNormalization": NORM,
    "InstanceNormalization": NORM,
    "LayerNormalization": NORM,
    "RESIZE_BILINEAR": "RESIZE_NEAREST_NEIGHBOR or TRANSPOSE_CONV",
}


def unsupported(first: str, counts: Counter[str], supported: Iterable[str], where: str) -> TteError:
    """Names the first operator, counts all, lists what there is."""
    listed = ", ".join(f"{kind} ({count})" for kind, count in counts.most_common(8))
    known = textwrap.wrap("supported: " + ", ".join(sorted(supported)), LINE)
    instead = f"use {INSTEAD[first]}" if first in INSTEAD else "replace it in the network"
    return TteError(
        f"the operator {first} is not supported",
        where=where,
        why="\n".join((f"not supported in this model: {listed}", *known)),
        hint=f"{instead} and train again, or cut the network before it",
    )
