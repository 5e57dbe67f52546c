# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tte import data
from tte.data import Dataset, InputTransform, check_against, load_dataset, sample_order
from tte.errors import TteError

Save = Callable[..., Path]


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    content = {
        "x_train": rng.integers(0, 256, (6, 4, 5, 3)).astype(np.uint8),
        "y_train": np.arange(6) % 3,
        "x_test": rng.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8),
        "y_test": np.arange(3),
        "class_names": np.array(["ant", "bee", "cow"]),
    }
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(**changes: Any) -> Path:
        np.savez(tmp_path / "d.npz", **arrays(**changes))
        return tmp_path / "d.npz"

    return write


def fails(path: Path, what: str) -> TteError:
    with pytest.raises(TteError) as caught:
        load_dataset(path)
    assert re.search(what, str(caught.value)), str(caught.value)
    assert caught.value.exit_status == 1
    return caught.value


# ---- .npz ---------------------------------------------------------------------------------


def test_npz(save: Save) -> None:
    dataset = load_dataset(save())
    assert dataset.class_names == ("ant", "bee", "cow")
    assert dataset.classes == 3
    assert dataset.sample_shape == (4, 5, 3)
    assert dataset.x_train.dtype == np.uint8
    assert dataset.y_train.dtype == np.int64
    np.testing.assert_array_equal(dataset.x_train, arrays()["x_train"])


def test_class_names_default_to_numbers(save: Save) -> None:
    assert load_dataset(save(class_names=None)).class_names == ("0", "1", "2")


def test_class_names_lose_control_characters(save: Save) -> None:
    names = np.array(["a\x1b[31m", "b", "c"])
    assert load_dataset(save(class_names=names)).class_names[0] == "a?[31m"


@pytest.mark.parametrize(
    ("shape", "expected"), [((6, 7), (1, 1, 7)), ((6, 8, 9), (8, 9, 1)), ((6, 4, 5, 3), (4, 5, 3))]
)
def test_samples_get_their_missing_axes(
    save: Save, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    x = np.zeros(shape, np.float32)
    assert load_dataset(save(x_train=x, x_test=x[:3])).sample_shape == expected


def test_foreign_byte_order_is_converted(save: Save) -> None:
    x = np.arange(6, dtype=">i2").reshape(6, 1)
    dataset = load_dataset(save(x_train=x, x_test=x[:3]))
    assert dataset.x_train.dtype.isnative
    assert dataset.x_train.ravel().tolist() == [0, 1, 2, 3, 4, 5]


BAD_ARRAYS: list[tuple[dict[str, Any], str]] = [
    ({"x_test": None}, "lacks x_test"),
    (
        {"x_train": np.zeros((0, 4, 5, 3), np.uint8), "y_train": np.zeros(0, int)},
        "x_train is empty",
    ),
    ({"x_train": np.zeros((6, 0, 5, 3), np.uint8)}, "x_train is empty"),
    ({"x_train": np.zeros(6, np.uint8)}, "1 dimensions"),
    ({"x_train": np.zeros((6, 1, 4, 5, 3), np.uint8)}, "5 dimensions"),
    ({"x_train": np.zeros((6, 4, 5, 3), complex)}, "must hold numbers"),
    ({"x_train": np.zeros((6, 4, 5, 3), bool)}, "must hold numbers"),
    ({"x_train": np.array([["a"] * 4] * 6)}, "must hold numbers"),
    ({"x_train": np.zeros((6, 4, 5, 3), np.float32)}, "x_train is float32 but x_test is uint8"),
    ({"x_train": np.zeros((6, 4, 6, 3), np.uint8)}, "different samples: 4×6×3 and 4×5×3"),
    ({"y_train": np.arange(5)}, "5 labels for 6 samples"),
    ({"y_train": np.arange(6) - 1}, "negative label -1"),
    ({"y_train": np.arange(6) * 1.5}, "y_train is float64 of shape"),
    ({"y_train": np.eye(6, dtype=int)}, "y_train is int64 of shape"),
    ({"y_train": np.array(["a"] * 6)}, "must hold numbers"),
    ({"y_train": np.zeros((6, 1, 1, 1, 1))}, "has the shape"),
    ({"y_train": np.zeros((6, 0))}, "has the shape"),
    ({"y_train": np.full((6, 2), np.nan)}, "not finite"),
    ({"y_train": None}, "lacks y_train"),
    ({"y_train": np.full(6, 2**64 - 1, np.uint64)}, "has the label 18446744073709551615"),
    ({"y_train": np.full(6, 3)}, "label 3, but only 3 class names"),
    ({"class_names": np.array([1, 2, 3])}, "array of strings"),
    ({"class_names": np.array(["a", "b"])}, "label 2, but only 2 class names"),
]


@pytest.mark.parametrize(("changes", "what"), BAD_ARRAYS, ids=[what for _, what in BAD_ARRAYS])
def test_bad_arrays(save: Save, changes: dict[str, Any], what: str) -> None:
    fails(save(**changes), what)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(save: Save, value: float) -> None:
    x = np.zeros((6, 4, 5, 3), np.float32)
    x[2, 0, 0, 0] = value
    assert "x_train[2]" in fails(save(x_train=x, x_test=x[:2], y_test=np.arange(2)), "finite").where


def test_pickles_are_never_loaded(save: Save) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("unpickled",)

    fails(save(x_train=np.array([Bomb()] * 6, dtype=object)), "Python objects")


def member(shape: str, descr: str = "'|u1'", body: bytes = b"") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"
    header = text.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


HOSTILE = {
    "announces 4 TiB": (member("(4194304, 1048576)"), "too large"),
    "announces more than 64 bits": (member(f"({2**40}, {2**40})"), "too large"),
    "negative size": (member("(-1, 5)"), "shape"),
    "no data": (member("(6, 4, 5, 3)"), "cannot be read"),
    "objects": (member("(6,)", "'|O'"), "Python objects"),
    "no header": (b"", "cannot be read"),
    "not an array": (b"hello world, this is text", "cannot be read"),
    "code in the header": (member("__import__('os')"), "cannot be read"),
    "wrong version": (b"\x93NUMPY\x07\x00" + b"\0" * 64, "cannot be read"),
    "bad type": (member("(6,)", "'zz9'"), "cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members(tmp_path: Path, name: str) -> None:
    content, what = HOSTILE[name]
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            archive.writestr(f"{key}.npy", content if key == "x_train" else buffer.getvalue())
    fails(path, what)


def test_the_limit_counts_all_members(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save()
    monkeypatch.setattr(data, "MAX_TOTAL_BYTES", 700)
    fails(path, "too large")


def test_a_missing_file(tmp_path: Path) -> None:
    fails(tmp_path / "none.npz", "does not exist")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + b"\0" * 40, b"\x93NUMPY"])
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    fails(path, "cannot be read")


@given(st.data())
def test_damaged_archives_give_one_error(draw: st.DataObject) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays())
    content = bytearray(buffer.getvalue())
    for _ in range(draw.draw(st.integers(1, 8))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    del content[draw.draw(st.integers(0, len(content))) + len(content) // 2 :]
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.npz"
        path.write_bytes(bytes(content))
        try:
            load_dataset(path)
        except TteError as error:
            assert str(path) in error.where


# ---- folders ------------------------------------------------------------------------------


def picture(path: Path, size: tuple[int, int] = (5, 4), mode: str = "RGB", value: int = 0) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new(mode, size, value if mode in ("L", "1", "I;16") else (value,) * len(mode)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for value, name in enumerate(("bee", "ant")):
            for index in range(2):
                picture(tmp_path / part / name / f"{index}.png", value=100 * value + index)
    return tmp_path


def test_folder(folder: Path) -> None:
    (folder / "sources.csv").write_text("file,source\n")
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "ant" / "notes.txt").write_text("no image")
    dataset = load_dataset(folder)
    assert dataset.class_names == ("ant", "bee")
    assert dataset.x_train.shape == (4, 4, 5, 3)
    assert dataset.y_train.tolist() == [0, 0, 1, 1]
    assert dataset.x_train[:, 0, 0, 0].tolist() == [100, 101, 0, 1]
    assert dataset.x_test.shape == (4, 4, 5, 3)


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    for part in ("train", "test"):
        picture(tmp_path / part / "a" / "0.png", mode="L", value=7)
    dataset = load_dataset(tmp_path)
    assert dataset.sample_shape == (4, 5, 1)
    assert (dataset.x_test == 7).all()


def test_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a" / "0.png", mode="L", value=7)
    picture(tmp_path / "test" / "a" / "0.png", mode="RGBA", value=7)
    assert load_dataset(tmp_path).sample_shape == (4, 5, 3)


def test_other_size(folder: Path) -> None:
    picture(folder / "test" / "bee" / "2.png", size=(6, 4))
    error = fails(folder, "one size: this one is 6×4, the first one is 5×4")
    assert error.where.endswith("2.png")


def test_broken_images(folder: Path) -> None:
    whole = (folder / "test" / "bee" / "1.png").read_bytes()
    for content in (b"", b"no image", whole[:40], whole[:-30]):
        (folder / "test" / "bee" / "1.png").write_bytes(content)
        assert fails(folder, "cannot be read").where.endswith("1.png")


def test_sixteen_bits_are_refused(folder: Path) -> None:
    picture(folder / "test" / "bee" / "1.png", mode="I;16")
    fails(folder, "only 8 bits")


def test_a_bomb_is_not_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_IMAGE_PIXELS", 19)
    fails(folder, "image is too large: 5×4")


def test_too_many_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_TOTAL_BYTES", 8 * 4 * 5 * 3 - 1)
    fails(folder, "data set is too large")


def test_bad_folders(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    fails(empty, "no 'train' folder")
    (empty / "train").mkdir()
    fails(empty, "no class folders")
    (folder / "test" / "cow").mkdir()
    fails(folder, "'cow' has no images")
    picture(folder / "test" / "cow" / "0.png")
    fails(folder, "'cow' has test images but no training images")


def test_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install pillow" in fails(folder, "needs pillow").hint


# ---- fitting ------------------------------------------------------------------------------


def dataset(shape: tuple[int, ...], labels: int = 3) -> Dataset:
    x = np.zeros((6, *shape), np.uint8)
    y = np.arange(6) % labels
    return Dataset(x, y, x, y, tuple(map(str, range(labels))))


def test_data_that_fits_is_returned_as_it_is() -> None:
    given_data = dataset((4, 5, 3))
    assert check_against(given_data, (4, 5, 3), 3) is given_data


@pytest.mark.parametrize(
    ("found", "wanted"), [((8, 6, 1), (1, 8, 6)), ((8, 6, 1), (8, 1, 6)), ((1, 1, 9), (9, 1, 1))]
)
def test_axes_of_one_may_move(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    assert check_against(dataset(found), wanted, 3).sample_shape == wanted


@pytest.mark.parametrize(
    ("found", "wanted", "hint"),
    [
        ((3, 20, 1), (1, 20, 3), r"store x.transpose\(0, 2, 1\)"),
        ((3, 8, 9), (8, 9, 3), "NCHW"),
        ((8, 9, 3), (4, 4, 3), "resize"),
        ((8, 9, 1), (8, 9, 3), "numpy.repeat"),
        ((8, 9, 4), (8, 9, 3), r"\[N,8,9,3\]"),
    ],
)
def test_other_shapes(found: tuple[int, ...], wanted: tuple[int, ...], hint: str) -> None:
    with pytest.raises(TteError, match="samples are") as caught:
        check_against(dataset(found), wanted, 3)
    assert re.search(hint, caught.value.hint)


def test_too_many_labels() -> None:
    with pytest.raises(TteError, match="label 2, but the model has only 2 outputs") as caught:
        check_against(dataset((4, 5, 3)), (4, 5, 3), 2)
    assert "--classes 3" in caught.value.hint


# ---- InputTransform -----------------------------------------------------------------------


def test_default_pixels_are_shifted_by_128() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    codes = InputTransform(1 / 127.5, 0).quantize(pixels)
    np.testing.assert_array_equal(codes, pixels.astype(int) - 128)
    assert codes.dtype == np.int8


def test_one_value_per_channel() -> None:
    transform = InputTransform(0.5, 3, (0.0, 10.0), (1.0, 2.0))
    x = np.array([[[4, 30]]], np.uint8)
    assert transform.quantize(x).tolist() == [[[11, 23]]]
    assert transform.to_float(x).tolist() == [[[4.0, 10.0]]]


def test_half_is_rounded_up_and_the_rest_is_clamped() -> None:
    x = np.array([0.5, 1.5, -0.5, -1.5, 1e30, -1e30, 126.4])
    assert InputTransform(1.0, 1).quantize(x).tolist() == [2, 3, 1, 0, 127, -128, 127]


def test_other_integers_enter_as_they_are() -> None:
    x = np.array([-300, 2, 300], np.int16)
    assert InputTransform(2.0, 0).quantize(x).tolist() == [-128, 1, 127]
    assert InputTransform(2.0, 0).to_float(x).tolist() == [-300, 2, 300]


def test_wrong_number_of_channels() -> None:
    with pytest.raises(TteError, match="mean has 2 values, but the data has 3 channels"):
        InputTransform(1.0, 0, (1.0, 2.0)).quantize(np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize(
    "arguments",
    [(0.0, 0), (float("nan"), 0), (1.0, 200), (1.0, 0, ()), (1.0, 0, (0.0,), (0.0,))],
)
def test_bad_transforms(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TteError):
        InputTransform(*arguments)


# ---- sample_order -------------------------------------------------------------------------


def test_every_epoch_is_a_permutation() -> None:
    order = sample_order(10, 25, seed=3)
    assert len(order) == 25
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10].tolist() != order[10:20].tolist()
    np.testing.assert_array_equal(order[:12], sample_order(10, 12, seed=3))
    assert order.tolist() != sample_order(10, 25, seed=4).tolist()


def test_shared_data(shared_data: Path) -> None:
    assert load_dataset(shared_data / "flowers5_128").x_train.shape == (500, 128, 128, 3)
    assert load_dataset(shared_data / "har_mobile_st.npz").sample_shape == (64, 3, 1)
