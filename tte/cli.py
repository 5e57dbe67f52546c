# SPDX-License-Identifier: Apache-2.0
"""The command line. Strict about what it is given; everything heavy is imported in the commands.

Exit status: 0 done, 1 an error, 2 wrong usage, 3 does not fit the memory, 4 the firmware faulted,
130 interrupted. TTE_DEBUG=1 shows the traceback of an error.
"""

from __future__ import annotations

import functools
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from tte import __version__
from tte.errors import TteError, UsageError

# The compiler's matrices are small: a thread pool would cost more than it gives. Before numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    from tte.board import Board
    from tte.build import Firmware
    from tte.data import Dataset

INTERRUPTED = 130
ISSUE_HINT = "this is a defect of tte: please report it with the command and TTE_DEBUG=1's output"

app = typer.Typer(
    name="tte",
    help="Compiles a trained model into int8 firmware that keeps training on the microcontroller.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The `tte` script."""
    app(prog_name="tte")


# ---- errors -------------------------------------------------------------------------------

_Function = TypeVar("_Function", bound=Callable[..., None])


def guarded(function: _Function) -> _Function:
    """Ends a command with one message and its exit status, whatever it raises."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except TteError as error:
            _fail(f"error: {error.render()}", error.exit_status)
        except KeyboardInterrupt:
            _fail("interrupted", INTERRUPTED)
        except BrokenPipeError:  # `tte ops | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (typer.Exit, typer.Abort):
            raise
        except MemoryError:
            _fail("error: this machine has too little memory for that", 1)
        except Exception as error:
            text = f"internal error: {type(error).__name__}: {error}\n  hint:  {ISSUE_HINT}"
            _fail(text, 1)

    return command  # type: ignore[return-value]


def _fail(message: str, status: int) -> NoReturn:
    if os.environ.get("TTE_DEBUG") == "1":
        traceback.print_exc()
    print(message, file=sys.stderr)
    raise typer.Exit(status)


# ---- option values ------------------------------------------------------------------------


def parse_bytes(text: str) -> int:
    """262144, 256KiB or 256K; also M and MiB."""
    match = re.fullmatch(r"([0-9]{1,12})([KM](?:iB)?)?", text.strip())
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no number of bytes like 262144, 256KiB or 256K")
    return int(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[(match[2] or "")[:1]]


def parse_numbers(text: str) -> tuple[float, ...]:
    """One number, or one per channel separated by commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(math.isfinite(value) for value in values):
        raise typer.BadParameter(f"{text!r} is no number, and no list of numbers like 123,117,104")
    return values


def parse_positive_numbers(text: str) -> tuple[float, ...]:
    values = parse_numbers(text)
    if min(values) <= 0:
        raise typer.BadParameter(f"{text!r} must be greater than 0")
    return values


def parse_rate(text: str) -> float:
    """A positive number below 10."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 10:
        raise typer.BadParameter(f"{text!r} is no learning rate like 0.001")
    return value


def parse_share(text: str) -> float:
    """A number from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{text!r} is no number from 0 to below 1")
    return value


def parse_weights(text: str) -> Any:
    """`balanced`, or one number a class."""
    return "balanced" if text == "balanced" else parse_numbers(text)


class LossName(str, Enum):
    auto = "auto"
    cross_entropy = "cross-entropy"
    bce = "bce"
    mse = "mse"


class CompilerName(str, Enum):
    gcc = "gcc"
    zig = "zig"
    clang = "clang"


class EmulatorName(str, Enum):
    unicorn = "unicorn"
    qemu = "qemu"
    host = "host"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model, .onnx or .tflite.")]
Project = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that compile wrote.")]
Data = Annotated[
    Path, typer.Option("--data", metavar="DATA", help="An .npz file or an image folder.")
]
Compiler = Annotated[
    CompilerName | None, typer.Option("--compiler", help="Default: the first that is installed.")
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the report; - is stdout.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"tte {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


# ---- commands -----------------------------------------------------------------------------


@app.command("compile")
@guarded
def compile_command(
    model: Model,
    board: Annotated[str, typer.Option("--board", metavar="B", help="See tte boards.")],
    data: Data,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The project folder to write.")
    ],
    classes: Annotated[
        int | None,
        typer.Option("--classes", min=2, max=65536, help="A fresh classifier of N outputs."),
    ] = None,
    update: Annotated[
        str,
        typer.Option(
            "--update", metavar="SPEC", help="What trains: head, bias:K, last:K, full or a file."
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
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1)] = 0,
    mean: Annotated[
        Any,
        typer.Option(
            "--mean",
            parser=parse_numbers,
            metavar="M[,M..]",
            help="uint8 images enter as (pixel - M) / S.",
        ),
    ] = "128",
    std: Annotated[
        Any, typer.Option("--std", parser=parse_positive_numbers, metavar="S[,S..]")
    ] = "127.5",
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
        dump_dir=dump,
    )
    _check_output(output)
    _check_model(model)
    program = compile_model(model, load_dataset(data), options)
    report, without = _write_project(program, output, options.board, _name(compiler))
    _show(report, json, quiet)
    if without is not None:
        print(f"warning: not built yet: {without.render()}", file=sys.stderr)


@app.command("emulate")
@guarded
def emulate_command(
    project: Project,
    data: Data,
    emulator: Annotated[EmulatorName, typer.Option("--emulator")] = EmulatorName.unicorn,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=10**9, help="Training steps.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, max=10**6, help="Default: 1.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", parser=parse_rate, metavar="F", help="Default: a good one"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Order of the samples."),
    ] = None,
    compiler: Compiler = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Train in an emulator and report accuracy, memory and instructions."""
    if steps is not None and epochs is not None:
        raise UsageError("--steps and --epochs exclude each other", hint="give one of them")
    from tte.data import load_dataset
    from tte.emulate.run import read_program

    read_program(project)
    _emulate(
        project,
        load_dataset(data),
        quiet,
        json,
        emulator=emulator.value,
        steps=steps,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        compiler=_name(compiler),
    )


@app.command("inspect")
@guarded
def inspect_command(model: Model, json: Json = None, quiet: Quiet = False) -> None:
    """List the layers of a model, their sizes and multiplications."""
    from tte.frontend.load import load_model

    _check_model(model)
    graph = load_model(model)
    layers = []
    for op in graph.ops:
        shape = graph[op.outputs[0]].type.shape
        constants = [graph[name] for name in op.reads if graph[name].data is not None]
        weights = sum(tensor.type.elems for tensor in constants)
        # Each weight of a matrix or kernel meets every output position once.
        positions = math.prod(shape) // shape[-1]
        macs = sum(t.type.elems * positions for t in constants if len(t.type.shape) > 1)
        layers.append(
            {
                "name": op.origin or op.name,
                "kind": op.kind,
                "output": list(shape),
                "parameters": weights,
                "macs": macs,
            }
        )
    inputs = [list(graph[name].type.shape) for name in graph.inputs]
    facts = {"model": graph.name, "inputs": inputs, "layers": layers}
    rows = [
        (
            str(e["name"]),
            str(e["kind"]),
            _times(e["output"]),
            *map(_count, (e["parameters"], e["macs"])),
        )
        for e in layers
    ]
    total = ("total", "", "", *(_count(sum(e[k] for e in layers)) for k in ("parameters", "macs")))
    columns = ("layer", "kind", "output", "#parameters", "#MACs")
    _show_rows(
        f"{graph.name}, input {_times(inputs[0])}", columns, [*rows, total], facts, json, quiet
    )


@app.command("boards")
@guarded
def boards_command(json: Json = None, quiet: Quiet = False) -> None:
    """List the boards."""
    from tte.board import list_boards, load_board

    boards = [load_board(name) for name in list_boards()]
    facts = [
        {
            "name": b.name,
            "core": b.core,
            "sram_bytes": b.sram.size_bytes,
            "flash_bytes": b.flash.size_bytes,
            "emulators": list(b.emulators),
            "description": b.description,
        }
        for b in boards
    ]
    rows = [
        (
            b.name,
            b.core,
            f"{b.sram.size_bytes >> 10} KiB",
            f"{b.flash.size_bytes >> 10} KiB",
            ", ".join(b.emulators),
        )
        for b in boards
    ]
    columns = ("board", "core", "#SRAM", "#flash", "runs on")
    _show_rows("Boards", columns, rows, {"boards": facts}, json, quiet)


@app.command("ops")
@guarded
def ops_command(json: Json = None, quiet: Quiet = False) -> None:
    """List the supported ONNX operators."""
    from tte.ops import FLOAT_OPS

    pairs = sorted((onnx, op.kind) for op in FLOAT_OPS.values() for onnx in op.onnx)
    facts = {"ops": [{"onnx": onnx, "kind": kind} for onnx, kind in pairs]}
    _show_rows("Operators", ("ONNX", "becomes"), pairs, facts, json, quiet)


@app.command("doctor")
@guarded
def doctor_command(json: Json = None, quiet: Quiet = False) -> None:
    """Say what is installed, what is missing and how to get it."""
    from tte.board import list_boards, load_board
    from tte.build import COMPILERS, find_compiler

    checks: list[dict[str, str]] = []

    def check(name: str, found: str, needed: str, remedy: str) -> None:
        state = "ok" if found else needed
        detail = found or " or ".join(remedy.splitlines())
        checks.append({"what": name, "state": state, "detail": detail})

    check("Python", sys.version.split()[0], "missing", "")
    for package, needed, remedy in _PACKAGES:
        check(package, _package_version(package), needed, remedy)
    board = load_board(list_boards()[0])
    compilers = 0
    for name in COMPILERS:
        try:
            version, remedy = find_compiler(board, name).version or "found", ""
            compilers += 1
        except TteError as error:
            version, remedy = "", error.hint
        check(f"compiler {name}", version, "optional", remedy)
    qemu = _first_line("qemu-system-arm", "--version")
    check("qemu-system-arm", qemu, "optional", "sudo apt install qemu-system-arm")
    host = next(
        (line for cc in ("cc", "gcc", "clang") if (line := _first_line(cc, "--version"))), ""
    )
    check("host compiler", host, "optional", "sudo apt install gcc")
    rows = [(c["what"], c["state"], c["detail"]) for c in checks]
    _show_rows("Installation", ("what", "state", "detail"), rows, {"checks": checks}, json, quiet)
    missing = [c["what"] for c in checks if c["state"] == "missing"]
    if missing or not compilers:
        raise TteError(
            "something that tte needs is missing",
            why=", ".join(missing) or "there is no compiler for Arm",
            hint="sudo apt install gcc-arm-none-eabi libnewlib-arm-none-eabi\n"
            "or: pip install ziglang",
        )


@app.command("demo")
@guarded
def demo_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The project folder to write.")
    ] = Path("demo"),
    board: Annotated[str, typer.Option("--board", metavar="B", help="See tte boards.")] = (
        "mps2-an386"
    ),
    emulator: Annotated[EmulatorName, typer.Option("--emulator")] = EmulatorName.unicorn,
    compiler: Compiler = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a digit classifier to a changed sensor: from a source checkout, 2 minutes."""
    import contextlib
    import io
    import runpy
    import tempfile

    from tte.board import load_board
    from tte.data import load_dataset
    from tte.pipeline import CompileOptions, compile_model
    from tte.resources import examples_dir

    example = examples_dir() / "digits"
    if not _package_version("scikit-learn"):
        raise TteError("the demo's digits come with scikit-learn", hint="pip install scikit-learn")
    _check_output(output)
    with tempfile.TemporaryDirectory(prefix="tte-") as folder:
        file = Path(folder) / "digits_shifted.npz"
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(example / "make_data.py"))["main"](file)
        dataset = load_dataset(file)
    options = CompileOptions(board=load_board(board), update=DEMO_UPDATE)
    program = compile_model(example / "digits_cnn.onnx", dataset, options)
    _write_project(program, output, options.board, _name(compiler))
    _emulate(output, dataset, quiet, json, emulator=emulator.value, compiler=_name(compiler))


@app.command("report")
@guarded
def report_command(
    project: Project,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="Ops to list.")] = 12,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Write PNG files.")] = True,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Show the last report of a project, and plot it."""
    from tte.report.schema import read_report

    report = read_report(project)
    _show(report, json, quiet, top)
    if plots:
        if not _package_version("matplotlib"):
            print("no plots: pip install matplotlib", file=sys.stderr)
            return
        from tte.report.plots import write_plots

        for path in write_plots(report, project):
            if not quiet and not _to_stdout(json):
                print(path)


# ---- the project folder -------------------------------------------------------------------

DEMO_UPDATE = "full"


def _check_model(model: Path) -> None:
    if not model.is_file():
        raise TteError(
            "the model does not exist", where=str(model), hint="give an .onnx or .tflite file"
        )


def _check_output(output: Path) -> None:
    """Only an empty folder or an earlier project may be replaced."""
    from tte.emulate.run import PROGRAM_NAME, read_program

    if not os.path.lexists(output):
        return
    hint = "choose another folder with -o, or remove this one"
    if not output.is_dir():
        raise TteError("the output exists and is no folder", where=str(output), hint=hint)
    if output.resolve() == Path.cwd().resolve() or output.resolve() in Path.cwd().resolve().parents:
        raise TteError("the output is the current folder", where=str(output), hint=hint)
    if not any(output.iterdir()):
        return
    if not (output / PROGRAM_NAME).is_file():
        raise TteError(
            "the output folder holds something else", where=str(output),
            why="tte replaces only what it wrote itself", hint=hint,
        )  # fmt: skip
    read_program(output)


def _write_project(
    program: Any, output: Path, board: Board, compiler: str | None
) -> tuple[dict[str, Any], TteError | None]:
    """Writes and builds the project beside its place and moves it there when all went well.

    Where no compiler is installed the project is written all the same, and its error is returned:
    it can still be built elsewhere, or run on the host.
    """
    import json
    import shutil
    import tempfile

    from tte.build import build_firmware, find_compiler
    from tte.codegen.emit import emit_project
    from tte.emulate.run import PROGRAM_NAME, read_program

    output = output.resolve()
    without: TteError | None = None
    firmware: Firmware | None = None
    try:
        found = find_compiler(board, compiler)
    except TteError as error:
        if compiler is not None:
            raise
        found, without = None, error
    folder: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        partial = folder / "new"
        partial.mkdir()
        emit_project(program, partial)
        manifest = read_program(partial)
        if compiler is not None and manifest.get("compiler") != compiler:
            manifest["compiler"] = compiler
            text = json.dumps(manifest, indent=1) + "\n"
            (partial / PROGRAM_NAME).write_text(text, encoding="utf-8")
        if found is not None:
            firmware = build_firmware(partial, board, found)
        if output.is_dir():
            output.rename(folder / "old")
        try:
            partial.rename(output)
        except OSError:
            if (folder / "old").is_dir():
                (folder / "old").rename(output)
            raise
    except OSError as error:
        raise TteError(
            "the project cannot be written", where=str(output), why=error.strerror or str(error)
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return _compile_report(manifest, firmware), without


def _compile_report(manifest: dict[str, Any], firmware: Firmware | None) -> dict[str, Any]:
    from tte.report.schema import build_report, memory_section

    if firmware is None:
        return build_report(manifest, memory=memory_section(manifest))
    memory = memory_section(
        manifest, static_bytes=firmware.static_bytes, flash_bytes=firmware.flash_bytes
    )
    compiler = f"{firmware.compiler_name} {firmware.compiler_version}"
    return build_report(manifest, memory=memory, compiler=compiler)


def _emulate(
    project: Path, dataset: Dataset, quiet: bool, json: Path | None, **options: Any
) -> None:
    """Runs, writes DIR/report.json, shows the report; status 130 where Ctrl-C cut it short."""
    from tte.emulate.run import emulate
    from tte.report.progress import ProgressBar
    from tte.report.schema import REPORT_NAME, write_json
    from tte.report.tables import console

    with ProgressBar(console(stderr=True), enabled=not quiet) as progress:
        report = emulate(project, dataset, progress=progress, **options)
    write_json(project / REPORT_NAME, report)
    _show(report, json, quiet)
    wanted = options.get("steps") or (options.get("epochs") or 1) * len(dataset.x_train)
    if report["training"]["steps"] < wanted:
        raise KeyboardInterrupt


# ---- output -------------------------------------------------------------------------------


def _show(report: dict[str, Any], json: Path | None, quiet: bool, top: int = 12) -> None:
    from tte.report.tables import console, print_report

    _write_json(report, json)
    if not quiet and not _to_stdout(json):
        print_report(report, console(), top)


def _show_rows(
    title: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    facts: dict[str, Any],
    json: Path | None,
    quiet: bool,
) -> None:
    from tte.report.tables import console, plain_table

    _write_json(facts, json)
    if not quiet and not _to_stdout(json):
        console().print(plain_table(title, columns, rows))


def _write_json(facts: dict[str, Any], json: Path | None) -> None:
    from tte.report.schema import to_json, write_json

    if _to_stdout(json):
        sys.stdout.write(to_json(facts))
    elif json is not None:
        write_json(json, facts)


def _to_stdout(json: Path | None) -> bool:
    return json is not None and str(json) == "-"


def _name(choice: Enum | None) -> str | None:
    return None if choice is None else str(choice.value)


def _times(shape: Any) -> str:
    return "×".join(map(str, shape))


def _count(number: Any) -> str:
    return f"{number:,}"


_PACKAGES = (
    ("numpy", "missing", "pip install numpy"),
    ("onnx", "missing", "pip install onnx"),
    ("jinja2", "missing", "pip install jinja2"),
    ("unicorn", "missing", "pip install unicorn"),
    ("pyelftools", "missing", "pip install pyelftools"),
    ("pillow", "optional", "pip install pillow (image folders)"),
    ("matplotlib", "optional", "pip install matplotlib (plots)"),
    ("scikit-learn", "optional", "pip install scikit-learn (demo)"),
)


def _package_version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _first_line(*command: str) -> str:
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    main()
