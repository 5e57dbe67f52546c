# SPDX-License-Identifier: Apache-2.0
"""The compiler on one screen: import, quantise, differentiate, prune, schedule, place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tte.board import Board, enforced_limits
from tte.data import Dataset, InputTransform, check_against
from tte.errors import DoesNotFit, TteError
from tte.frontend.load import load_model
from tte.ir import Graph, Schedule, StreamDecision, TrainPlan
from tte.ir.text import graph_text, memory_text, plan_text, schedule_text
from tte.ir.verify import verify
from tte.passes.calibrate import calibrate
from tte.passes.correct_biases import correct_biases
from tte.passes.differentiate import differentiate
from tte.passes.fold import drop_sigmoid, ends_in, fold
from tte.passes.head import replace_head
from tte.passes.memory import live_bytes, plan_memory
from tte.passes.optimizer import add_optimizer
from tte.passes.prune import prune
from tte.passes.quantize import quantize
from tte.passes.scale_gradients import apply_scales, measure, scale_gradients
from tte.passes.schedule import schedule
from tte.passes.stream import stream
from tte.passes.update import plan_update
from tte.program import DEFAULT_LEARNING_RATE, InputSpec, Program
from tte.reference import run_op
from tte.training import (
    BCE,
    CROSS_ENTROPY,
    DEFAULT_LOSS,
    PLAIN_SGD,
    Loss,
    Optimizer,
    choose_loss,
    fit_targets,
    make_loss,
    target_values,
)

_Stage = TypeVar("_Stage")

CALIBRATION_SAMPLES = 128
BIAS_SAMPLES = 32
GRADIENT_SAMPLES = 64
FRESH_HEAD_HEADROOM = 2.0


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the command line can say; `update` is a SPEC, see tte/passes/update.py."""

    board: Board
    classes: int | None = None
    update: str = "head"
    sram_bytes: int | None = None
    flash_bytes: int | None = None
    seed: int = 0
    mean: tuple[float, ...] = (128.0,)
    std: tuple[float, ...] = (127.5,)
    stream: bool = True
    loss: str = "auto"
    label_smoothing: float = 0.0
    class_weights: str | tuple[float, ...] = ()  # or "balanced"
    calibration: str = "minmax"  # see tte/passes/calibrate.py
    bias_correction: bool = True
    optimizer: Optimizer = PLAIN_SGD
    dump_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A quantised model before it is said what of it is trained.

    `forward`: the integer forward graph; `codes`, `labels`: the samples that measure gradients,
    and their targets as the loss takes them.
    """

    forward: Graph
    input: InputSpec
    codes: NDArray[np.int8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    model_sha256: str
    loss: Loss = DEFAULT_LOSS
    ending: str = ""  # "softmax" or "sigmoid", which is in the loss now


def compile_model(model_path: Path, dataset: Dataset, options: CompileOptions) -> Program:
    """Turns a model into a program for a board; TteError or DoesNotFit where it cannot."""
    prepared = prepare(model_path, dataset, options)
    plan = plan_update(prepared.forward, options.update)
    program = lower(prepared, plan, options)
    check_fit(program)
    return program


def prepare(model_path: Path, dataset: Dataset, options: CompileOptions) -> Prepared:
    """Imports, folds, calibrates and quantises a model."""
    dump = _Dump(options.dump_dir)
    imported = dump("1-import", graph_text, verify(load_model(model_path)))
    loss_name = _choose_loss(imported, dataset, options)
    folded = fold(drop_sigmoid(imported) if loss_name == BCE else imported)
    _check_output(folded, loss_name)
    if options.classes is not None:
        folded = replace_head(folded, options.classes, options.seed)
    folded = dump("2-fold", graph_text, verify(folded))
    dataset = _fitted(dataset, folded, loss_name)
    samples = _calibration_samples(dataset, folded, options)
    calibrated = calibrate(folded, samples.real, options.calibration)
    forward = quantize(calibrated)
    if options.bias_correction:
        forward = correct_biases(forward, calibrated, samples.real[:BIAS_SAMPLES], run_op)
    forward = dump("3-quantize", graph_text, verify(forward))
    spec = _input_spec(forward, options)
    transform = InputTransform(spec.scale, spec.zero_point, spec.mean, spec.std)
    loss = make_loss(
        loss_name,
        dataset,
        transform,
        smoothing=options.label_smoothing,
        weights=options.class_weights,
        outputs=forward[forward.outputs[0]].type.shape[-1],
    )
    picked = samples.picked[:GRADIENT_SAMPLES]
    return Prepared(
        forward,
        spec,
        transform.quantize(samples.raw[:GRADIENT_SAMPLES]),
        loss.target.encode(target_values(dataset, "train", transform)[picked]),
        dataset.class_names,
        hashlib.sha256(model_path.read_bytes()).hexdigest(),
        loss,
        _ending(imported, loss_name),
    )


def lower(
    prepared: Prepared,
    plan: TrainPlan,
    options: CompileOptions,
    rho: Mapping[str, float] | None = None,
    thorough: bool = True,
) -> Program:
    """Differentiates, prunes, schedules and places; the limits are not checked. `rho`: gradient
    scales that were measured before, for this plan or one that trains more, of plain gradient
    descent. `thorough`: see plan_memory()."""
    dump = _Dump(options.dump_dir)
    forward = prepared.forward
    full = dump("4-differentiate", graph_text, verify(differentiate(forward, prepared.loss)))
    dump("5-update", plan_text, plan)
    pruned = dump("6-prune", graph_text, verify(prune(full, plan)))
    trained = dump("7-optimizer", graph_text, verify(add_optimizer(pruned, options.optimizer)))
    if rho is None:
        headroom = _headroom(options)
        scaled = scale_gradients(trained, prepared.codes, prepared.labels, run_op, headroom)
    else:
        scaled = apply_scales(trained, rho)
    ordered, order, streams = arrange(scaled, options.stream)
    dump("8-schedule", lambda o: schedule_text(ordered, o), order)
    planned = plan_memory(verify(ordered, scheduled=True), order, thorough)
    memory = dump("9-memory", memory_text, planned)
    return Program(
        name=forward.name,
        model_sha256=prepared.model_sha256,
        board=options.board,
        sram_limit_bytes=options.sram_bytes or options.board.sram_bytes,
        flash_limit_bytes=options.flash_bytes or options.board.flash.size_bytes,
        input=prepared.input,
        class_names=prepared.class_names,
        learning_rate=DEFAULT_LEARNING_RATE * options.optimizer.rate_scale,
        loss=prepared.loss,
        optimizer=options.optimizer,
        seed=options.seed,
        plan=plan,
        graph=ordered,
        schedule=order,
        memory=memory,
        streams=streams,
        forward=forward,
        ending=prepared.ending,
    )


def measure_scales(prepared: Prepared, graph: Graph, options: CompileOptions) -> dict[str, float]:
    """Gradient scales of a pruned training graph."""
    return measure(graph, prepared.codes, prepared.labels, run_op, _headroom(options))


def _headroom(options: CompileOptions) -> float:
    """How much larger than now gradients may become."""
    return 1.0 if options.classes is None else FRESH_HEAD_HEADROOM


def arrange(graph: Graph, streamed: bool) -> tuple[Graph, Schedule, tuple[StreamDecision, ...]]:
    """The order in which a pruned graph runs, with chains where they lower the peak."""
    ordered, order = schedule(graph)
    if not streamed:
        return ordered, order, ()
    chained, streams = stream(ordered, lambda other: live_bytes(*schedule(other)))
    ordered, order = schedule(chained)
    return ordered, order, streams


def _ending(graph: Graph, loss: str) -> str:
    """The last operator of the model, where the loss has it."""
    taken_over = {CROSS_ENTROPY: "softmax", BCE: "sigmoid"}
    return ends_in(graph) if taken_over.get(loss) == ends_in(graph) else ""


def _choose_loss(graph: Graph, dataset: Dataset, options: CompileOptions) -> str:
    outputs = options.classes or graph[graph.outputs[0]].type.elems
    return choose_loss(dataset, outputs, ends_in(graph), options.loss)


def _fitted(dataset: Dataset, graph: Graph, loss: str) -> Dataset:
    """The data in the shapes of the model's input and output."""
    shape = graph[graph.inputs[0]].type.shape
    fitted = check_against(dataset, shape[1:] if len(shape) == 4 else (1, 1, shape[1]))
    return fit_targets(fitted, loss, graph[graph.outputs[0]].type.shape[1:])


def _check_output(graph: Graph, loss: str) -> None:
    """Cross-entropy takes class scores, the other losses any output."""
    output = graph.outputs[0]
    shape = graph[output].type.shape
    if len(shape) != 2 and loss == CROSS_ENTROPY:
        sizes = "x".join(map(str, (shape[3], *shape[1:3])))
        raise TteError(
            f"the model's output {output!r} is a map of {sizes}, not [1, classes]",
            why="the network must end in class scores",
            hint="add global average pooling or Flatten, and a linear layer",
        )


@dataclass(frozen=True, slots=True)
class _Samples:
    raw: NDArray[Any]
    real: NDArray[np.float32]
    picked: NDArray[np.int64]


def _calibration_samples(dataset: Dataset, graph: Graph, options: CompileOptions) -> _Samples:
    """Seeded samples of the training part, as they are and as the float model sees them."""
    shape = graph[graph.inputs[0]].type.shape
    count = min(CALIBRATION_SAMPLES, len(dataset.x_train))
    picked = np.random.default_rng(options.seed).permutation(len(dataset.x_train))[:count]
    raw = dataset.x_train[picked]
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        raise TteError(what="the training data holds NaN or infinity")
    real = InputTransform(1.0, 0, options.mean, options.std).to_float(raw)
    return _Samples(
        raw.reshape(count, *shape[1:]), real.reshape(count, *shape[1:]), picked.astype(np.int64)
    )


def _input_spec(graph: Graph, options: CompileOptions) -> InputSpec:
    tensor = graph[graph.inputs[0]]
    assert tensor.quant is not None
    shape = tensor.type.shape
    height, width, channels = shape[1:] if len(shape) == 4 else (1, 1, shape[1])
    quant = tensor.quant
    return InputSpec(
        (height, width, channels),
        quant.per_tensor_scale,
        quant.zero_point,
        options.mean,
        options.std,
    )


def _rows(sizes: Sequence[tuple[str, int]]) -> str:
    return "\n".join(f"{size:>9}  {name}" for name, size in sizes[:6])


def check_fit(program: Program) -> None:
    """DoesNotFit, with the peak step's largest buffers, where SRAM or flash cannot hold it."""
    memory, stack = program.memory, program.board.stack_reserve_bytes
    sram = memory.arena_bytes + program.trainable_bytes + stack
    if sram > program.sram_limit_bytes:
        peak = program.graph.ops[memory.peak_op]
        sizes = {name: program.graph[name].type.size_bytes for name in program.trained}
        trained = sorted(sizes.items(), key=lambda item: -item[1])
        velocities = program.optimizer.has_velocity
        raise DoesNotFit(
            what=f"the program needs {sram} bytes of SRAM, the limit is {program.sram_limit_bytes}",
            where=f"peak at {peak.name} ({peak.kind})",
            why=f"arena {memory.arena_bytes}, trained tensors {program.trainable_bytes}, "
            f"stack {stack}; live at the peak (bytes):\n{_rows(memory.peak)}\n"
            f"largest trained tensors (bytes):\n{_rows(trained)}",
            hint="train less (--update), raise --sram, or use a smaller input"
            + ("; without --momentum and --batch velocities go" if velocities else ""),
        )
    limits = enforced_limits(
        program.board, program.sram_limit_bytes, 0, stack, program.trainable_bytes
    )
    if memory.arena_bytes > limits.sram_bytes:
        raise DoesNotFit(
            what=f"the arena needs {memory.arena_bytes} bytes of SRAM in one piece, "
            f"{program.board.name} has {limits.sram_bytes}",
            why=f"the stack and the trained tensors lie in {limits.fast_bytes} bytes elsewhere",
            hint="train less (--update), or use a smaller input",
        )
    if program.constant_bytes > program.flash_limit_bytes:
        raise DoesNotFit(
            what=f"the weights need {program.constant_bytes} bytes of flash, "
            f"the limit is {program.flash_limit_bytes}",
            hint="raise --flash, or use a smaller model",
        )


class _Dump:
    """Writes a stage as text where --dump asks for it, and passes it on."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def __call__(self, name: str, text: Callable[[_Stage], str], stage: _Stage) -> _Stage:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{name}.txt").write_text(text(stage), encoding="utf-8")
        return stage
