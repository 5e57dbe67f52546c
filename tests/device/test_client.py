# SPDX-License-Identifier: Apache-2.0
"""The C client does what the Python one does: on good lines, on bad ones, with hostile devices, and
its example with an emulated board."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.device.served import BAUD, board
from tests.device.simulator import ROOT, Board, Line
from tests.device.test_fuzz import HostileDevice
from tests.device.test_link import IMAGE_BYTES, samples, trained
from tests.kernel_library import host_compiler
from tte.data import Dataset, InputTransform, sample_order
from tte.device.client import factor
from tte.device.port import SerialStream
from tte.device.run import read_program
from tte.device.train import open_board
from tte.emulate.run import emulate

CLIENT, LINK = ROOT / "runtime_c" / "client", ROOT / "runtime_c" / "link"
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", f"-I{LINK}", f"-I{CLIENT}")
SILENT, LOST, BROKEN, MISMATCH = -1, -2, -3, -4
MODEL_ID = bytes(range(1, 17))
WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
READ = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
)


class CLine(ctypes.Structure):
    _fields_ = (("write", WRITE), ("read", READ), ("context", ctypes.c_void_p))


class Metrics(ctypes.Structure):
    _fields_ = (
        ("loss", ctypes.c_int32),
        *((name, ctypes.c_uint32) for name in
          ("steps", "instructions", "stack_bytes", "checkpoint", "samples", "run_steps")),
    )  # fmt: skip


NUMBERS = ("input_bytes", "target_bytes", "output_bytes", "settings_bytes", "state_bytes",
           "saturation_count", "steps", "checkpoint_slots", "checkpoint", "sample_capacity",
           "samples")  # fmt: skip


class CClient(ctypes.Structure):
    """The front of tte_client, and room for the rest."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("baud", "window_frames", "retry_ms", "limit_ms")),
        ("model_id", ctypes.c_ubyte * 16),
        *((name, ctypes.c_uint32) for name in NUMBERS),
        ("frames_again", ctypes.c_uint32),
        ("rest", ctypes.c_uint64 * 1024),
    )


@functools.cache
def library() -> Any:
    path = Path(tempfile.mkdtemp(prefix="tte-client-")) / "client.so"
    flags = ("-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC")
    sources = [CLIENT / "tte_client.c", LINK / "tte_frame.c"]
    subprocess.run([host_compiler(), *FLAGS, *flags, *sources, "-o", path], check=True)
    return ctypes.CDLL(str(path))


class Client:
    """A C client at the end of a Stream."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._out, self._in = bytearray(), bytearray()
        self._kept = WRITE(self._write), READ(self._read)
        self.memory = CClient()
        library().tte_client_init(ctypes.byref(self.memory), CLine(*self._kept, None))
        self.memory.baud = stream.bits_per_s

    def _write(self, _: Any, data: int, size: int) -> int:
        if self.stream is None:
            return 1
        self._out += ctypes.string_at(data, size)
        if len(self._out) > 1 and self._out.endswith(b"\0"):
            self.stream.send(bytes(self._out))  # a whole frame
            self._out.clear()
        return 0

    def _read(self, _: Any, data: int, size: int, timeout_ms: int) -> int:
        if self.stream is None:
            return -1
        self._in += (self._in and b"") or self.stream.receive(timeout_ms / 1000)
        part = bytes(self._in[:size])
        del self._in[:size]
        ctypes.memmove(data, part, len(part))
        return len(part)

    def call(self, name: str, *arguments: Any) -> int:
        function = library()[f"tte_client_{name}"]
        return int(function(ctypes.byref(self.memory), *arguments))

    def hello(self, nonce: int = 1, model_id: bytes | None = MODEL_ID) -> int:
        return self.call("hello", ctypes.c_uint32(nonce), model_id)

    def rate(self, value: float) -> int:
        return self.call("set_learning_rate", ctypes.c_double(value))

    def train(self, sample: np.ndarray, label: int) -> int:
        loss = ctypes.c_int32()
        target = label.to_bytes(4, "little")
        assert self.call("train", sample.tobytes(), target, ctypes.byref(loss)) == 0
        return loss.value

    def state(self) -> bytes:
        state = ctypes.create_string_buffer(self.memory.state_bytes)
        assert self.call("read_state", state) == 0
        return state.raw

    def metrics(self) -> Metrics:
        metrics = Metrics()
        assert self.call("metrics", ctypes.byref(metrics)) == 0
        return metrics


@pytest.mark.parametrize("faults", [0.0, 0.01, 0.1, 0.4])
@pytest.mark.parametrize(("input_bytes", "steps"), [(8, 200), (5000, 30)])
def test_it_trains_like_the_python_client(faults: float, input_bytes: int, steps: int) -> None:
    (losses, output, state, _, _), _ = trained(0.0, input_bytes, steps)
    board = Board(TTE_INPUT_BYTES=input_bytes, TTE_LINK_PAYLOAD_BYTES=512)
    client = Client(Line(board, latency_s=0.002, faults=faults, seed=round(100 * faults)))
    assert client.hello() == 0 and client.memory.input_bytes == input_bytes
    assert client.rate(0.5) == 0
    x = samples(steps, input_bytes)
    assert [client.train(x[i], i % 3) * 2.0**-16 for i in range(steps)] == losses
    found = (ctypes.c_int32 * 3)()
    assert client.call("infer", x[0].tobytes(), found) == 0
    assert list(found) == output
    assert client.state() == state
    assert client.metrics().steps == client.memory.steps == steps
    assert (client.memory.frames_again > 0) == (faults > 0)


def test_many_refused_writes_fill_no_window() -> None:
    """More frames than the window holds: each refusal also says that its frame has arrived."""
    client = Client(Line(Board(TTE_LINK_PAYLOAD_BYTES=512), latency_s=0.002))
    assert client.hello() == 0
    client.memory.state_bytes = 50_000
    assert client.call("write_state", bytes(50_000)) == 4
    assert client.metrics().steps == 0
    assert client.memory.frames_again == 0


def test_a_full_window_gets_an_answer_where_those_to_it_were_lost() -> None:
    """The last frame of a window asks for no answer by itself; sent again it does."""

    class LosesAnswers(Line):
        deaf = False

        def receive(self, timeout_s: float | None) -> bytes:
            data = super().receive(timeout_s)
            while self.deaf and data:
                data = super().receive(timeout_s)
            if timeout_s:
                self.deaf = False  # after a pause
            return data

    line = LosesAnswers(Board(TTE_INPUT_BYTES=IMAGE_BYTES, TTE_LINK_PAYLOAD_BYTES=512))
    client = Client(line)
    assert client.hello() == client.rate(0.5) == 0
    client.memory.limit_ms = 5000
    line.deaf = True
    client.train(samples(1, IMAGE_BYTES)[0], 0)
    assert client.memory.frames_again > 0


@pytest.mark.parametrize("latency_s", [0.0, 0.004, 0.016])
def test_images_use_nine_tenths_of_the_line(latency_s: float) -> None:
    line = Line(Board(TTE_INPUT_BYTES=IMAGE_BYTES, TTE_LINK_PAYLOAD_BYTES=512), latency_s=latency_s)
    client = Client(line)
    assert client.hello() == client.rate(0.5) == 0
    x = samples(3, IMAGE_BYTES)
    start_s, start_bytes = line.now_s, line.sent_bytes
    for image in x:
        client.train(image, 0)
    assert 3 * IMAGE_BYTES * 10 / 921_600 / (line.now_s - start_s) >= 0.9
    assert 3 * IMAGE_BYTES / (line.sent_bytes - start_bytes) >= 0.95
    assert client.memory.frames_again == 0


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.002, 0.1, 0.5, 1.0, 1.999999999999, 7.3])
def test_learning_rates_are_those_of_the_python_client(rate: float) -> None:
    board = Board()
    client = Client(Line(board))
    assert client.hello() == client.rate(rate) == 0
    settings = (ctypes.c_int32 * 5).in_dll(board.c, "tte_running_schedule")
    assert tuple(settings) == (*factor(rate), 0, 0, 0)  # constant
    for wrong in (-1.0, float("nan"), float("inf"), 1e-60):
        assert client.rate(wrong) == 4


def test_what_stays_on_the_device() -> None:
    board = Board(SIM_SPARE_BYTES=4096, SIM_SECTORS=6)
    line = Line(board)
    client = Client(line)
    assert client.hello() == client.rate(0.5) == 0
    x = samples(4, 8)
    for i in range(4):
        assert client.call("store", x[i].tobytes(), i.to_bytes(4, "little")[:4]) == (4 * (i == 3))
    assert client.memory.samples == client.metrics().samples == 3
    assert client.call("run", 10) == 0
    assert client.metrics().run_steps == 0 and client.memory.steps == 10
    state = client.state()
    assert client.call("save") == 0 and client.memory.checkpoint == 1
    assert client.call("write_state", bytes(36)) == 0
    assert client.state() == bytes(36)
    assert client.call("restart", 0) == 0
    line.board = Board(board.flash, SIM_SPARE_BYTES=4096, SIM_SECTORS=6)
    assert client.call("save") == LOST
    assert client.hello(2) == 0 and client.memory.steps == 10
    assert client.state() == state
    assert client.call("clear") == 0
    assert client.call("run", 1) == 5  # there is nothing to train on


def test_what_goes_wrong() -> None:
    client = Client(Line(Board()))
    assert client.hello(1, bytes(16)) == MISMATCH
    assert client.hello(2) == 0
    loss = ctypes.c_int32()
    bad = (9).to_bytes(4, "little")
    assert client.call("train", bytes(8), bad, ctypes.byref(loss)) == 4
    client.memory.steps = 7  # not the step that is due
    assert client.call("train", bytes(8), bytes(4), ctypes.byref(loss)) == 5
    client.memory.state_bytes = 40
    assert client.call("write_state", bytes(40)) == 4  # a WRITE is refused
    assert client.metrics().steps == 0  # and the conversation goes on
    client.stream = None
    assert client.call("save") == BROKEN

    class Nobody:
        bits_per_s = 921_600

        def send(self, data: bytes) -> None: ...

        def receive(self, timeout_s: float) -> bytes:
            return b""

    assert Client(Nobody()).hello() == SILENT


@pytest.mark.parametrize("seed", range(40))
def test_a_hostile_device_gets_an_error_and_nothing_else(seed: int) -> None:
    client = Client(HostileDevice(seed))
    client.memory.limit_ms, client.memory.retry_ms = 300, 30
    if client.hello():
        return
    loss, metrics = ctypes.c_int32(), Metrics()
    memory = ctypes.create_string_buffer(4096)
    client.memory.state_bytes = client.memory.output_bytes = 4096
    for name, *arguments in (
        ("train", bytes(1 << 16), bytes(4), ctypes.byref(loss)),
        ("infer", bytes(1 << 16), memory),
        ("read_state", memory),
        ("metrics", ctypes.byref(metrics)),
        ("save",),
        ("write_state", memory),
    ):
        client.memory.input_bytes, client.memory.target_bytes = 8, 4
        client.call(name, *arguments)


def test_hosts_in_cpp_can_use_it(tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    (tmp_path / "host.cpp").write_text(
        '#include "tte_client.h"\nint main() { static tte_client c; return tte_client_save(&c); }\n'
    )
    command = [compiler, "-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    command += [f"-I{LINK}", f"-I{CLIENT}", str(tmp_path / "host.cpp")]
    assert subprocess.run(command).returncode == 0


def test_the_example_trains_an_emulated_board(
    project: Path,
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    """The copy in the project, built as its first lines say."""
    program = tmp_path / "train"
    command = (CLIENT / "example.c").read_text().split("*   cc ")[1].split("\n")[0].split()
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", *FLAGS[1:6]]
    arguments = [*command[:-1], str(program), *flags]
    done = subprocess.run([host_compiler(), *arguments], cwd=project, capture_output=True)
    assert done.returncode == 0, done.stderr
    steps = 25
    told = {"learning_rate": 0.002, "schedule": "constant"}  # as the example does
    expected = emulate(project, dataset, "host", steps=steps, **told)  # type: ignore[arg-type]
    manifest = read_program(project)
    entry = manifest["input"]
    transform = InputTransform(
        entry["scale"], entry["zero_point"], tuple(entry["mean"]), tuple(entry["std"])
    )
    order = sample_order(len(dataset.x_train), steps, manifest["seed"])
    (tmp_path / "samples.bin").write_bytes(
        b"".join(
            int(dataset.y_train[i]).to_bytes(4, "little")
            + transform.quantize(dataset.x_train[i]).tobytes()
            for i in order
        )
    )
    with board(project) as port:
        done = subprocess.run(
            [program, port, tmp_path / "samples.bin", str(steps)], capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        losses = [int(line.split()[-1]) for line in done.stdout.splitlines()]
        scale = manifest["loss"]["scale"]
        assert [loss * scale for loss in losses] == expected["training"]["loss"]
        with SerialStream(port, BAUD) as stream:
            _, hello = open_board(stream, manifest)
            assert (hello.steps, hello.checkpoint) == (steps, 1)
    done = subprocess.run([program, "/dev/null", "x", "1"], capture_output=True)
    assert done.returncode == 2 and b"usage" in done.stderr
