# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer

from tests.tflite_models import RELU, TfNet
from tte import __version__, cli
from tte.cli import options
from tte.cli.options import CalibrationName
from tte.errors import FirmwareFault
from tte.report import tables
from tte.report.progress import ProgressBar


@dataclass
class Result:
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def tte(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["tte", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that the example's model takes."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    x = np.random.default_rng(0).integers(0, 256, (80, 16, 16, 1)).astype(np.uint8)
    y = np.arange(80) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, digits_model: Path, data: Path) -> Path:
    """The example's model, compiled."""
    folder = tmp_path_factory.mktemp("project") / "digits"
    command = [sys.executable, "-m", "tte", "compile", digits_model, "--board", "mps2-an386"]
    command += ["--data", data, "--update", "last:2", "-o", folder, "--quiet"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return folder


# ---- usage --------------------------------------------------------------------------------

COMPILE = ("compile", "m.onnx", "--board", "mps2-an386", "--data", "d.npz", "-o", "out")
USAGE_ERRORS: list[tuple[str, ...]] = [
    ("bogus",),
    ("compile",),
    ("compile", "m.onnx", "--board", "mps2-an386", "-o", "out"),
    (*COMPILE, "--bogus"),
    (*COMPILE, "--sram", "12Q"),
    (*COMPILE, "--sram", "0"),
    (*COMPILE, "--sram", "-5"),
    (*COMPILE, "--flash", "1.5M"),
    (*COMPILE, "--classes", "1"),
    (*COMPILE, "--classes", "ten"),
    (*COMPILE, "--seed", "-1"),
    (*COMPILE, "--mean", "1,,2"),
    (*COMPILE, "--mean", "nan"),
    (*COMPILE, "--std", "0"),
    (*COMPILE, "--std", "1,-2"),
    (*COMPILE, "--compiler", "tcc"),
    (*COMPILE, "--calibration", "median"),
    ("emulate", "out"),
    ("emulate", "out", "--data", "d", "--steps", "0"),
    ("emulate", "out", "--data", "d", "--steps", "1.5"),
    ("emulate", "out", "--data", "d", "--epochs", "-1"),
    ("emulate", "out", "--data", "d", "--steps", "5", "--epochs", "1"),
    ("emulate", "out", "--data", "d", "--emulator", "bochs"),
    ("emulate", "out", "--data", "d", "--learning-rate", "0"),
    ("emulate", "out", "--data", "d", "--learning-rate", "inf"),
    ("report", "out", "--top", "0"),
    ("boards", "extra"),
]


@pytest.mark.parametrize("arguments", USAGE_ERRORS, ids=" ".join)
def test_wrong_usage(
    tte: Run, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = tte(*arguments)
    assert (result.status, result.out) == (2, "")
    assert "rror" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("262144", 262144), ("256KiB", 262144), ("256K", 262144), ("1M", 1 << 20), ("2MiB", 2 << 20)],
)
def test_bytes(text: str, expected: int) -> None:
    assert options.parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "K", "1 K", "1k", "1KB", "0x10", "1e3", "²", "1" * 13])
def test_no_bytes(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.parse_bytes(text)


def test_numbers() -> None:
    assert options.parse_numbers("128") == (128.0,)
    assert options.parse_numbers("1,2.5,-3") == (1.0, 2.5, -3.0)


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "onnx", "jinja2", "unicorn", "rich", "elftools", "matplotlib", "tte.board")
    text = (
        "import sys; sys.argv = ['tte', '--help']\n"
        "import tte.cli\n"
        "try: tte.cli.main()\n"
        f"finally: print('loaded', [name for name in {heavy!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compile" in done.stdout
    assert done.stdout.endswith("loaded []\n")


@pytest.mark.parametrize("command", [(), ("weights",)])
def test_lists_of_commands_are_not_cut_off(
    command: tuple[str, ...], tte: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = tte(*command, "--help").out.partition("Commands:")[2]
    assert commands and "..." not in commands


def test_version(tte: Run) -> None:
    assert tte("--version").out == f"tte {__version__}\n"


# ---- errors -------------------------------------------------------------------------------


def test_an_unknown_board_lists_the_boards(tte: Run, digits_model: Path, data: Path) -> None:
    result = tte("compile", digits_model, "--board", "nope", "--data", data, "-o", "out")
    assert (result.status, result.out) == (1, "")
    assert "no board 'nope'" in result.err
    assert "mps2-an386" in result.err


def test_a_missing_model(tte: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = tte("compile", tmp_path / "m", "--board", "mps2-an386", "--data", data, "-o", out)
    assert result.status == 1
    assert "model does not exist" in result.err
    assert not out.exists()


def test_no_project(tte: Run, tmp_path: Path, data: Path) -> None:
    assert "no compiled project" in tte("emulate", tmp_path, "--data", data).err
    assert "no report yet" in tte("report", tmp_path).err
    (tmp_path / "program.json").write_text('{"schema": "other"}')
    assert "not written by this version" in tte("emulate", tmp_path, "--data", data).err
    (tmp_path / "program.json").write_text("{")
    assert "cannot be read" in tte("emulate", tmp_path, "--data", data).err


def test_exit_status_of_errors(tte: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: BaseException) -> Callable[[], list[str]]:
        def list_boards() -> list[str]:
            raise error

        return list_boards

    for error, status, text in (
        (FirmwareFault("it stopped"), 4, "error: it stopped\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (ZeroDivisionError("oops"), 1, "internal error: ZeroDivisionError: oops\n"),
        (MemoryError(), 1, "too little memory"),
    ):
        monkeypatch.setattr("tte.board.list_boards", raising(error))
        result = tte("boards")
        assert result.status == status
        assert text in result.err


def test_debug_shows_the_traceback() -> None:
    command = [sys.executable, "-m", "tte", "report", "nowhere"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "TTE_DEBUG": "1"}
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "there is no report yet" in done.stderr


def test_a_closed_pipe_is_no_internal_error() -> None:
    command = f"{sys.executable} -m tte ops --json - | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


# ---- lists --------------------------------------------------------------------------------


def test_lists(tte: Run, digits_model: Path, tmp_path: Path) -> None:
    boards = json.loads(tte("boards", "--json", "-").out)["boards"]
    assert {"mps2-an386", "mps2-an500"} <= {board["name"] for board in boards}
    assert "Conv" in tte("ops").out
    assert tte("ops", "--quiet", "--json", tmp_path / "ops.json").out == ""
    assert json.loads((tmp_path / "ops.json").read_text())["ops"]
    layers = json.loads(tte("inspect", digits_model, "--json", "-").out)["layers"]
    assert sum(layer["macs"] for layer in layers) == 269_376


def test_doctor(tte: Run) -> None:
    result = tte("doctor")
    assert result.status in (0, 1)
    assert "numpy" in result.out


# ---- compile ------------------------------------------------------------------------------


def compile_to(tte: Run, model: Path, data: Path, out: Path, *more: object) -> Result:
    options = ("--board", "mps2-an386", "--data", data, "--update", "head", "-o", out)
    return tte("compile", model, *options, *more)


def test_calibration(tte: Run, digits_model: Path, data: Path, tmp_path: Path) -> None:
    """Each way to choose ranges gives scales of its own; biases can be left alone."""
    out = tmp_path / "out"
    ways = [("--calibration", method.value) for method in CalibrationName]
    scales, constants = set(), set()
    for way in [*ways, ("--no-bias-correction",)]:
        dump = tmp_path / way[-1]
        assert compile_to(tte, digits_model, data, out, *way, "--dump", dump, "-q").status == 0
        scales.add((dump / "3-quantize.txt").read_text(encoding="utf-8"))
        constants.add((out / "src" / "data.c").read_text(encoding="utf-8"))
    assert len(scales) == len(CalibrationName)
    assert len(constants) == len(CalibrationName) + 1


def test_nothing_else_is_overwritten(
    tte: Run, digits_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    assert "is no folder" in compile_to(tte, digits_model, data, file).err
    assert "holds something else" in compile_to(tte, digits_model, data, folder).err
    monkeypatch.chdir(folder)
    assert "current folder" in compile_to(tte, digits_model, data, Path(".")).err
    assert "current folder" in compile_to(tte, digits_model, data, Path("..")).err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "mine.txt"]


def test_an_earlier_project_is_replaced(
    tte: Run, digits_model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    first = compile_to(tte, digits_model, data, out, "--json", "-")
    assert first.status == 0, first.err
    (out / "left.txt").write_text("from before")
    report = json.loads(first.out)
    assert report["schema"] == "tte-report/1"
    assert report["memory"]["flash_bytes"] > 1000
    second = compile_to(tte, digits_model, data, out, "--quiet")
    assert (second.status, second.out) == (0, "")
    assert not (out / "left.txt").exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_tflite_model(tte: Run, data: Path, tmp_path: Path) -> None:
    net = TfNet((1, 16, 16, 1))
    y = net.mean(net.conv(net.x, 8, stride=2, activation=RELU))
    model = net.save(tmp_path, net.dense(y, 10))
    layers = json.loads(tte("inspect", model, "--json", "-").out)["layers"]
    assert layers[0]["macs"] == 8 * 8 * 8 * 9
    first = compile_to(tte, model, data, tmp_path / "out", "--quiet")
    assert (first.status, first.err) == (0, "")
    emulated = tte("emulate", tmp_path / "out", "--data", data, "--steps", 2, "--json", "-")
    assert json.loads(emulated.out)["instructions"]["train_step"] > 1000


def test_what_does_not_fit_leaves_nothing(
    tte: Run, digits_model: Path, data: Path, tmp_path: Path
) -> None:
    result = compile_to(tte, digits_model, data, tmp_path / "out", "--sram", "8K")
    assert (result.status, result.out) == (3, "")
    assert "8192" in result.err
    assert not list(tmp_path.iterdir())
    # The linker notices this one, after the files were written.
    result = compile_to(tte, digits_model, data, tmp_path / "out", "--flash", "16K")
    assert result.status == 3
    assert not list(tmp_path.iterdir())


def test_data_that_does_not_fit_the_model(
    tte: Run, digits_model: Path, data: Path, tmp_path: Path
) -> None:
    x = np.zeros((4, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=[0, 1, 0, 1], x_test=x, y_test=[0, 1, 0, 1])
    result = compile_to(tte, digits_model, tmp_path / "d.npz", tmp_path / "out")
    assert result.status == 1
    assert "8×8×1" in result.err
    assert "16×16×1" in result.err


# ---- emulate and report -------------------------------------------------------------------

REPORT_KEYS = {
    "": "schema model board cpu compiler emulator memory plan instructions training state_sha256",
    "memory": "arena_bytes trainable_bytes static_bytes stack_bytes sram_bytes flash_bytes "
    "sram_limit_bytes flash_limit_bytes",
    "instructions": "inference train_step by_op",
    "training": "steps learning_rate loss accuracy_before accuracy_after metric saturations "
    "loss_function optimizer",
}


@pytest.mark.parametrize("emulator", ["host", "unicorn"])
def test_emulate(tte: Run, project: Path, data: Path, emulator: str) -> None:
    arguments = ("--data", data, "--steps", 5, "--emulator", emulator, "--json", "-")
    result = tte("emulate", project, *arguments)
    assert result.status == 0, result.err
    report = json.loads(result.out)
    for section, keys in REPORT_KEYS.items():
        assert set(report[section] if section else report) == set(keys.split())
    assert report == json.loads((project / "report.json").read_text())
    training = report["training"]
    assert (training["steps"], len(training["loss"])) == (5, 5)
    assert 0 <= training["accuracy_before"] <= 1
    assert 0 <= training["accuracy_after"] <= 1
    assert len(report["state_sha256"]) == 64
    instructions = report["instructions"]
    if emulator == "host":
        assert instructions == {"inference": None, "train_step": None, "by_op": []}
    else:
        counted = sum(op["instructions"] for op in instructions["by_op"])
        assert 0.99 < counted / instructions["train_step"] <= 1
        assert instructions["inference"] < instructions["train_step"]
        assert report["memory"]["sram_bytes"] < 262_144
        shown = tte("report", project)
        assert shown.status == 0, shown.err
        assert "Instructions" in shown.out
        tables = [line for line in shown.out.splitlines() if line.startswith(("│", "┃", "┏", "└"))]
        assert max(map(len, tables)) <= 100


def test_an_optimizer_is_compiled_in_and_reported(
    tte: Run, digits_model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--momentum", 0.9, "--batch", 4, "--weight-decay", 0.01, "--lr-schedule", "linear")
    result = compile_to(tte, digits_model, data, out, *options)
    assert result.status == 0, result.err
    expected = {"momentum": 0.9, "batch": 4, "weight_decay": 0.01, "schedule": "linear"}
    program = json.loads((out / "program.json").read_text())
    assert program["optimizer"] == expected
    assert program["learning_rate"] == pytest.approx(0.002 * 0.1 * 4)
    arguments = ("--data", data, "--steps", 9, "--emulator", "host")
    result = tte("emulate", out, *arguments)
    assert result.status == 0, result.err
    text = "SGD, momentum 0.9, batch 4, weight decay 0.01, learning rate linear"
    assert f"loss cross-entropy; {text}" in result.out
    assert "velocities" in result.out
    states = set()
    for schedule in ("constant", "linear", "cosine"):
        tte("emulate", out, *arguments, "--lr-schedule", schedule, "--quiet")
        report = json.loads((out / "report.json").read_text())
        assert report["training"]["optimizer"] == {**expected, "schedule": schedule}
        states.add(report["state_sha256"])
    assert len(states) == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [("--momentum", 1), ("--momentum", "x"), ("--batch", 0), ("--batch", 4097),
     ("--weight-decay", -0.1), ("--lr-schedule", "step")],
)  # fmt: skip
def test_an_optimizer_that_is_none(
    tte: Run, digits_model: Path, data: Path, tmp_path: Path, option: str, value: object
) -> None:
    result = compile_to(tte, digits_model, data, tmp_path / "out", option, value)
    assert result.status == 2
    assert option in result.err


def test_losses_have_four_digits() -> None:
    assert tables._loss_text([1.66, 1.929]) == "1.660 → 1.929"
    assert tables._loss_text([12345.6, 2.0]) == "1.235e+04 → 2.000"
    assert tables._loss_text([1234.5]) == "1234 → 1234"


def test_equal_runs_are_equal(tte: Run, project: Path, data: Path) -> None:
    arguments = ("emulate", project, "--data", data, "--emulator", "host", "--json", "-")
    first, second = (tte(*arguments, "--steps", 7).out for _ in range(2))
    assert first == second
    assert tte(*arguments, "--steps", 7, "--seed", 9).out != first


def test_an_interrupt_still_gives_the_report(
    tte: Run, project: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0
    # A job in the background may have been started with the signal ignored.
    before = signal.getsignal(signal.SIGINT)

    def advance(bar: ProgressBar, loss: float | None = None) -> None:
        nonlocal done
        done += loss is not None
        if done == 3 and loss is not None:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "advance", advance)
    result = tte("emulate", project, "--data", data, "--emulator", "host", "--epochs", 2)
    assert result.status == 130
    assert "stopped after 3 of 160 steps" in result.err
    training = json.loads((project / "report.json").read_text())["training"]
    assert training["steps"] == 3
    assert training["accuracy_after"] is not None
    assert signal.getsignal(signal.SIGINT) is before


def test_other_classes_are_refused(tte: Run, project: Path, data: Path, tmp_path: Path) -> None:
    with np.load(data) as archive:
        content = dict(archive)
    names = np.array([f"digit {i}" for i in range(10)])
    np.savez(tmp_path / "named.npz", **content, class_names=names)
    run = ("--board", "mps2-an386", "--update", "head", "-o", tmp_path / "out", "-q")
    model = Path(__file__).parent.parent / "examples" / "digits" / "digits_cnn.onnx"
    assert tte("compile", model, "--data", tmp_path / "named.npz", *run).status == 0
    content["class_names"] = names[::-1]
    np.savez(tmp_path / "other.npz", **content)
    result = tte("emulate", tmp_path / "out", "--data", tmp_path / "other.npz")
    assert result.status == 1
    assert "classes are not those" in result.err
