# SPDX-License-Identifier: Apache-2.0
"""tte compile"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tte.cli.options import (
    BoardName,
    CalibrationName,
    Classes,
    Compiler,
    Data,
    Json,
    LossName,
    Mean,
    Model,
    Quiet,
    ScheduleName,
    Seed,
    Std,
    parse_bytes,
    parse_share,
    parse_weights,
)
from tte.cli.output import name_of, show
from tte.cli.project import check_model, check_output, write_project

MAX_BATCH = 4096
AUTO = "auto"  # `--update auto`: what a quick search finds for the memory there is


def compile_command(
    model: Model,
    board: BoardName,
    data: Data,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The project folder to write.")
    ],
    classes: Classes = None,
    update: Annotated[
        str,
        typer.Option(
            "--update",
            metavar="SPEC",
            help="What trains: head, bias:K, last:K, full, auto or a file.",
        ),
    ] = "head",
    sram: Annotated[
        int | None,
        typer.Option("--sram", parser=parse_bytes, metavar="BYTES", help="Default: the board's."),
    ] = None,
    flash: Annotated[
        int | None,
        typer.Option("--flash", parser=parse_bytes, metavar="BYTES", help="Default: the board's."),
    ] = None,
    seed: Seed = 0,
    mean: Mean = "128",
    std: Std = "127.5",
    loss: Annotated[
        LossName, typer.Option("--loss", help="auto: what fits the targets; see docs/training.md.")
    ] = LossName.auto,
    label_smoothing: Annotated[
        float, typer.Option("--label-smoothing", parser=parse_share, metavar="F")
    ] = 0.0,
    class_weights: Annotated[
        Any,
        typer.Option(
            "--class-weights",
            parser=parse_weights,
            metavar="balanced|W,W..",
            help="What a sample of each class counts.",
        ),
    ] = None,
    calibration: Annotated[
        CalibrationName,
        typer.Option(
            "--calibration", help="How ranges of float models are chosen; see docs/models.md."
        ),
    ] = CalibrationName.minmax,
    no_bias_correction: Annotated[
        bool, typer.Option("--no-bias-correction", help="Keep a float model's biases as rounded.")
    ] = False,
    momentum: Annotated[
        float,
        typer.Option(
            "--momentum",
            parser=parse_share,
            metavar="F",
            help="Takes 2 more bytes a trained weight.",
        ),
    ] = 0.0,
    batch: Annotated[
        int,
        typer.Option(
            "--batch",
            min=1,
            max=MAX_BATCH,
            metavar="N",
            help="Samples whose mean gradient is one step; memory as for --momentum, once.",
        ),
    ] = 1,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", parser=parse_share, metavar="F")
    ] = 0.0,
    schedule: Annotated[
        ScheduleName, typer.Option("--lr-schedule", help="How the learning rate falls.")
    ] = ScheduleName.constant,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Keep every map whole; see docs/design.md.")
    ] = False,
    compiler: Compiler = None,
    dump: Annotated[
        Path | None,
        typer.Option("--dump", metavar="DIR", help="Write every stage of the compiler as text."),
    ] = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Turn a model into a firmware project that trains."""
    from tte.board import load_board
    from tte.data import load_dataset
    from tte.pipeline import CompileOptions, compile_model
    from tte.training import Optimizer

    options = CompileOptions(
        board=load_board(board),
        classes=classes,
        update=update,
        sram_bytes=sram,
        flash_bytes=flash,
        seed=seed,
        mean=mean,
        std=std,
        stream=not no_stream,
        loss=loss.value,
        label_smoothing=label_smoothing,
        class_weights=class_weights or (),
        calibration=calibration.value,
        bias_correction=not no_bias_correction,
        optimizer=Optimizer(momentum, batch, weight_decay, schedule.value),
        dump_dir=dump,
    )
    check_output(output)
    check_model(model)
    dataset = load_dataset(data)
    if update == AUTO:
        from tte.search.run import compile_auto

        program = compile_auto(model, dataset, options)
    else:
        program = compile_model(model, dataset, options)
    report, without = write_project(program, output, options.board, dataset, name_of(compiler))
    show(report, json, quiet)
    if without is not None:
        print(f"warning: not built yet: {without.render()}", file=sys.stderr)
