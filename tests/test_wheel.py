# SPDX-License-Identifier: Apache-2.0
"""The package as a user gets it: sdist, then wheel, then a clean environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

PLACES = {"tte/": "tte/", "codegen/": "tte/codegen/", "runtime_c/": "tte/runtime_c/",
          "boards/": "tte/boards/"}  # fmt: skip


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def files(root: Path) -> list[str]:
    """The files of the checkout, as git sees them."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("needs a git checkout")
    options = ("--cached", "--others", "--exclude-standard")
    names = run("git", "ls-files", *options, cwd=root).splitlines()
    return [name for name in names if (root / name).is_file()]


@pytest.fixture(scope="module")
def wheel(root: Path, files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of those files alone, by way of the sdist."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, cwd=source)
    (built,) = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def tte(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, installed in an environment of its own; it borrows the other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file adds the packages there, but not the editable tte among them.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "tte"


def test_the_wheel_holds_every_file_and_no_other(wheel: Path, files: list[str]) -> None:
    expected = {
        place + name[len(folder) :]
        for name in files
        for folder, place in PLACES.items()
        if name.startswith(folder)
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected


def test_only_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tte"}


def test_it_runs_from_another_folder(tte: Path, tmp_path: Path) -> None:
    assert "compile" in run(tte, "--help", cwd=tmp_path)
    assert "mps2-an386" in run(tte, "boards", cwd=tmp_path)
    text = "import tte.codegen.project as p, tte.resources as r; print(p.__file__, r.runtime_dir())"
    for place in run(tte.parent / "python", "-c", text, cwd=tmp_path).split():
        assert Path(place).is_relative_to(tte.parent.parent.resolve())


def test_it_compiles_a_model(tte: Path, digits_model: Path, tmp_path: Path) -> None:
    text = (
        "import numpy as np\n"
        "x = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 1)).astype(np.uint8)\n"
        "y = np.arange(64) % 10\n"
        "np.savez('d.npz', x_train=x, y_train=y, x_test=x, y_test=y)\n"
    )
    run(sys.executable, "-c", text, cwd=tmp_path)
    arguments = ("--board", "mps2-an386", "--data", "d.npz", "-o", "project")
    run(tte, "compile", digits_model, *arguments, cwd=tmp_path)
    assert (tmp_path / "project" / "program.json").is_file()
