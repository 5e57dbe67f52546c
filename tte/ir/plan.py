# SPDX-License-Identifier: Apache-2.0
"""What is trained, in which order it runs, and where everything lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Update:
    """What of one layer is trained. `channels` are input channels (depthwise: channels), in
    ascending order; empty: no weights; None: all of them."""

    layer: str
    bias: bool
    channels: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """The trained layers in forward order; layers that are not named are frozen."""

    spec: str
    updates: tuple[Update, ...]

    def of(self, layer: str) -> Update | None:
        return next((update for update in self.updates if update.layer == layer), None)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Ops `first` .. `last` (indices into the schedule, both included) need the tensor."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The order is the graph's own op order. `backward_start` is the index of the loss op;
    `training_only` holds the forward ops that inference leaves out."""

    backward_start: int
    training_only: frozenset[int]
    lifetimes: Mapping[str, Lifetime]


@dataclass(frozen=True, slots=True)
class StreamDecision:
    """A chain that runs in bands of rows: the peak (largest sum of live bytes) with all chains and
    without this one, and what its bands cost, predicted."""

    chain: str
    stages: int
    band_rows: int
    peak_bytes: int
    peak_without_bytes: int
    extra_instructions: int


@dataclass(frozen=True, slots=True)
class Placement:
    """A tensor's place in the arena."""

    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Places of all arena tensors and of each op's scratch (named `<op>.scratch`).

    `lower_bound_bytes` is the largest sum of live bytes over the schedule: no plan is smaller.
    `proven_bytes`: an exhaustive search showed that no placement needs less than that.
    `live_bytes` is that sum for each op; `peak_op` is the index of the op where it is largest,
    `peak` that op's live tensors with their sizes, largest first.
    """

    placements: Mapping[str, Placement]
    lifetimes: Mapping[str, Lifetime]
    arena_bytes: int
    lower_bound_bytes: int
    proven_bytes: int
    live_bytes: tuple[int, ...]
    peak_op: int
    peak: tuple[tuple[str, int], ...]
