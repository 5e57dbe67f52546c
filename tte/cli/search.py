# SPDX-License-Identifier: Apache-2.0
"""tte search"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tte.cli.options import (
    BoardName,
    Classes,
    Data,
    Json,
    Mean,
    Model,
    Quiet,
    Seed,
    Std,
    parse_bytes,
)
from tte.cli.output import to_stdout, write_json
from tte.cli.project import check_model
from tte.errors import TteError


class MethodName(str, Enum):
    measured = "measured"
    fisher = "fisher"


class ChannelChoice(str, Enum):
    magnitude = "magnitude"
    gradient = "gradient"
    first = "first"


def search_command(
    model: Model,
    board: BoardName,
    data: Data,
    sram: Annotated[
        int,
        typer.Option("--sram", parser=parse_bytes, metavar="BYTES", help="All that may be used."),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="UPDATE.json", help="The update file to write."),
    ],
    method: Annotated[
        MethodName, typer.Option("--method", help="fisher: no training run, seconds.")
    ] = MethodName.measured,
    channels: Annotated[
        ChannelChoice, typer.Option("--channels", help="Which channels of a layer train.")
    ] = ChannelChoice.magnitude,
    max_instructions: Annotated[
        int | None,
        typer.Option("--max-instructions", min=1, metavar="N", help="Of a training step."),
    ] = None,
    classes: Classes = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, max=10**6, help="Of a trial; default: one epoch."),
    ] = None,
    folds: Annotated[
        int, typer.Option("--folds", min=1, max=5, help="Splits of the training part.")
    ] = 2,
    finalists: Annotated[
        int,
        typer.Option(
            "--finalists",
            min=0,
            max=100,
            help="Candidates to train; as many of their offspring.",
        ),
    ] = 8,
    final_steps: Annotated[
        int, typer.Option("--final-steps", min=1, max=10**6, help="Of a finalist.")
    ] = 3000,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Of a Dask cluster."),
    ] = None,
    seed: Seed = 0,
    mean: Mean = "128",
    std: Std = "127.5",
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Find which layers and channels to train within a memory."""
    from tte.board import load_board
    from tte.data import load_dataset
    from tte.pipeline import CompileOptions
    from tte.report.progress import ProgressBar
    from tte.report.search import print_search, write_search_plot
    from tte.report.tables import console
    from tte.search.run import SearchOptions, search
    from tte.search.space import write_update

    check_model(model)
    compiling = CompileOptions(
        board=load_board(board), classes=classes, sram_bytes=sram, seed=seed, mean=mean, std=std
    )
    options = SearchOptions(
        sram_bytes=sram,
        method=method.value,
        channels=channels.value,
        max_instructions=max_instructions,
        steps=steps,
        folds=folds,
        finalists=finalists,
        final_steps=final_steps,
        scheduler=scheduler,
        journal=output.with_suffix(".journal") if method is MethodName.measured else None,
    )
    if not output.parent.is_dir():
        raise TteError("the folder of the output does not exist", where=str(output.parent))
    with ProgressBar(console(stderr=True), enabled=not quiet) as progress:
        found = search(model, load_dataset(data), compiling, options, progress)
    facts = found.facts()
    write_update(output, facts["best"]["update"])
    for index, point in enumerate(facts["front"]):
        write_update(output.with_suffix(f".{index}.json"), point["update"])
    write_json(facts, json)
    plot = write_search_plot(facts, output.with_suffix(".png"))
    if not quiet and not to_stdout(json):
        print_search(facts, output, console())
        if plot is not None:
            print(plot)
