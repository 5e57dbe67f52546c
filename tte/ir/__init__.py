# SPDX-License-Identifier: Apache-2.0
"""The intermediate representation: plain frozen data, shared by every stage."""

from tte.ir.graph import Graph, Op, Role, Tensor, TensorType
from tte.ir.plan import MemoryPlan, Placement, Schedule, StreamDecision, TrainPlan, Update
from tte.ir.quant import QuantParams

__all__ = [
    "Graph",
    "MemoryPlan",
    "Op",
    "Placement",
    "QuantParams",
    "Role",
    "Schedule",
    "StreamDecision",
    "Tensor",
    "TensorType",
    "TrainPlan",
    "Update",
]
