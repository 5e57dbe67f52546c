# SPDX-License-Identifier: Apache-2.0
"""Data sets: an `.npz` file or a folder of images becomes checked NHWC arrays and int8 samples.

A data set is somebody else's file: every size is checked from the headers before memory is
allocated, nothing is unpickled, and each defect is one `TteError` that names it.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tte.errors import TteError

if TYPE_CHECKING:
    from types import ModuleType

MAX_TOTAL_BYTES = 2 << 30
MAX_IMAGE_PIXELS = 1 << 24
MAX_CLASSES = 65536
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MAX_TARGETS = 1 << 20  # elements of one
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

NPZ_HINT = (
    "numpy.savez_compressed(FILE, x_train=.., y_train=.., x_test=.., y_test=..) writes such a "
    "file: x [N,H,W,C], y [N] of integers, or [N,...] of other targets; without y the samples are "
    "their own targets"
)
FOLDER_HINT = "the layout is train/<class>/*.jpg|png and test/<class>/*.jpg|png"


@dataclass(frozen=True)
class Dataset:
    """x is [N,H,W,C], uint8 pixels or any other number type; y is [N], int64 class indices, or
    [N, ...], targets of any number type. Where the samples are their own targets y is x.
    `class_names` is empty for other targets than classes, unless the data names its outputs."""

    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    class_names: tuple[str, ...]

    @property
    def has_labels(self) -> bool:
        """Whether y are class indices."""
        return self.y_train.ndim == 1 and self.y_train.dtype == np.int64

    @property
    def is_autoencoder(self) -> bool:
        """Whether the samples are their own targets."""
        return self.y_train is self.x_train

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one sample."""
        height, width, channels = self.x_train.shape[1:]
        return height, width, channels


def load_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Reads an `.npz` file or an image folder."""
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        return _load_npz(path)
    raise TteError("the data set does not exist", where=str(path), hint=NPZ_HINT)


def check_against(
    dataset: Dataset, input_shape: Sequence[int], classes: int | None = None
) -> Dataset:
    """The data set in the model's sample shape (H, W, C), or the reason why it cannot be; labels
    must be below `classes`.

    Shapes that differ only in axes of size 1 are the same data: a series stored as [N,T,C] enters
    a model of [1,T,C] as well as one of [T,1,C], and grey images may leave out their channel.
    """
    wanted = tuple(int(size) for size in input_shape)
    found = dataset.sample_shape
    if found != wanted:
        if _without_ones(found) != _without_ones(wanted):
            raise TteError(
                f"the data's samples are {_shape_text(found)}, "
                f"but the model's input is {_shape_text(wanted)} (H×W×C)",
                hint=_shape_hint(found, wanted),
            )
        train, test = (x.reshape((-1, *wanted)) for x in (dataset.x_train, dataset.x_test))
        y_train, y_test = dataset.y_train, dataset.y_test
        if dataset.is_autoencoder:
            y_train, y_test = train, test
        dataset = replace(dataset, x_train=train, y_train=y_train, x_test=test, y_test=y_test)
    if classes is None or not dataset.has_labels:
        return dataset
    largest = int(max(dataset.y_train.max(), dataset.y_test.max()))
    if largest >= classes:
        raise TteError(
            f"the data has the label {largest}, but the model has only {classes} outputs",
            why=f"labels must be 0..{classes - 1}",
            hint=f"--classes {max(dataset.classes, largest + 1)} replaces the classifier",
        )
    return dataset


@dataclass(frozen=True)
class InputTransform:
    """How a sample enters the model: real = (pixel - mean) / std for uint8, itself otherwise.

    `mean` and `std` hold one value, or one per channel. The int8 value is
    clamp(floor(real / scale + 0.5) + zero_point): round half up, as everywhere in tte.
    """

    scale: float
    zero_point: int
    mean: tuple[float, ...] = (128.0,)
    std: tuple[float, ...] = (127.5,)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise TteError(f"the input scale must be a positive number, not {self.scale}")
        if not -128 <= self.zero_point <= 127:
            raise TteError(f"the input zero point must be in -128..127, not {self.zero_point}")
        if not self.mean or not np.isfinite(self.mean).all():
            raise TteError(f"the mean must be one or more finite numbers, not {self.mean}")
        if not self.std or not (np.isfinite(self.std).all() and np.min(self.std) > 0):
            raise TteError(f"the std must be one or more positive numbers, not {self.std}")

    def quantize(self, x: NDArray[Any]) -> NDArray[np.int8]:
        """int8 samples of the same shape; the last axis is the channel."""
        if x.dtype != np.uint8:
            return self._round(x.astype(np.float64))
        table = self._round(self._pixel_values(x.shape[-1]))
        return table[x, np.arange(x.shape[-1])]

    def to_float(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """The samples as the float model sees them."""
        if x.dtype != np.uint8:
            return x.astype(np.float32)
        table = self._pixel_values(x.shape[-1]).astype(np.float32)
        return table[x, np.arange(x.shape[-1])]

    def _pixel_values(self, channels: int) -> NDArray[np.float64]:
        """[256, channels]: the real value of each pixel value."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise TteError(
                    f"{name} has {len(values)} values, but the data has {channels} channels",
                    hint=f"--{name} takes one value, or one per channel",
                )
        pixels = np.arange(256, dtype=np.float64)[:, None]
        values = (pixels - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(np.broadcast_to(values, (256, channels)))

    def _round(self, real: NDArray[np.float64]) -> NDArray[np.int8]:
        steps = np.floor(real / self.scale + 0.5) + self.zero_point
        return np.clip(steps, -128, 127).astype(np.int8)


def sample_order(n: int, steps: int, seed: int, first: int = 0) -> NDArray[np.int64]:
    """The training samples of the steps from `first` on, `steps` of them: a new seeded permutation
    of all `n` each epoch."""
    rng = np.random.default_rng(seed)
    for _ in range(first // n):
        rng.permutation(n)
    first %= n
    epochs = max(1, -(-(first + steps) // n))
    order = np.concatenate([rng.permutation(n) for _ in range(epochs)])
    return order[first : first + steps].astype(np.int64)


# --- .npz ---------------------------------------------------------------------------------------


def _load_npz(path: Path) -> Dataset:
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_arrays(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise TteError(
            "the data set cannot be read", where=str(path), why=str(error), hint=NPZ_HINT
        ) from error
    names = arrays.pop("class_names", None)
    return _checked(str(path), arrays, None if names is None else _class_names(path, names))


def _read_arrays(path: Path, archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    members = set(archive.namelist())
    own = not members & {"y_train.npy", "y_test.npy"}  # the samples are the targets
    wanted = [key for key in ARRAYS if not (own and key.startswith("y"))]
    missing = [key for key in wanted if f"{key}.npy" not in members]
    if missing:
        raise TteError(
            f"the data set lacks {', '.join(missing)}",
            where=str(path),
            why="it holds " + (_printable(", ".join(sorted(members)))[:200] or "nothing"),
            hint=NPZ_HINT,
        )
    keys = [key for key in (*wanted, "class_names") if f"{key}.npy" in members]
    total_bytes = 0
    for key in keys:
        info = archive.getinfo(f"{key}.npy")
        total_bytes += max(_header_bytes(path, archive, key), info.file_size)
        if total_bytes > MAX_TOTAL_BYTES:
            raise _too_large(path, total_bytes)
    arrays = {}
    for key in keys:
        with _open_member(path, archive, key) as member:
            try:
                arrays[key] = npy.read_array(member, allow_pickle=False)
            except (ValueError, MemoryError) as error:
                raise _bad_array(path, key, str(error)) from error
    return arrays


def _header_bytes(path: Path, archive: zipfile.ZipFile, key: str) -> int:
    """The size of the array that the header of member `key` announces."""
    with _open_member(path, archive, key) as member:
        try:
            version = npy.read_magic(member)
            if version == (1, 0):
                shape, _, dtype = npy.read_array_header_1_0(member)
            elif version == (2, 0):
                shape, _, dtype = npy.read_array_header_2_0(member)
            else:
                raise ValueError(f"format version {version} is not supported")
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise _bad_array(path, key, str(error)) from error
    if dtype.hasobject:
        raise _bad_array(path, key, "it holds Python objects, which are never unpickled")
    if any(size < 0 for size in shape):
        raise _bad_array(path, key, f"its shape is {shape}")
    count = 1
    for size in shape:  # in Python integers: numpy's product may wrap
        count *= size
    return count * dtype.itemsize


def _open_member(path: Path, archive: zipfile.ZipFile, key: str) -> IO[bytes]:
    try:
        return archive.open(f"{key}.npy")
    except RuntimeError as error:  # encrypted
        raise _bad_array(path, key, str(error)) from error


def _class_names(path: Path, names: NDArray[Any]) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise TteError(
            "class_names must be a one-dimensional array of strings",
            where=str(path),
            why=f"it is {names.dtype} of shape {names.shape}",
            hint='class_names=numpy.array(["cat", "dog"])',
        )
    texts = (n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)
    return tuple(_printable(text)[:100] for text in texts)


# --- image folders ------------------------------------------------------------------------------


def _load_folder(path: Path) -> Dataset:
    files = {part: _image_files(path, part) for part in ("train", "test")}
    names = tuple(sorted(files["train"]))
    strange = sorted(set(files["test"]) - set(names))
    if strange:
        raise TteError(
            f"the class {_printable(strange[0])!r} has test images but no training images",
            where=str(path / "test" / strange[0]),
            hint=FOLDER_HINT,
        )
    image_module = _pillow()
    paths = [f for part in ("train", "test") for name in names for f in files[part].get(name, ())]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        headers = list(pool.map(lambda file: _image_header(image_module, file), paths))
        (size, _), first = headers[0], paths[0]
        for (other, _), file in zip(headers, paths, strict=True):
            if other != size:
                raise TteError(
                    f"all images must have one size: this one is {other[0]}×{other[1]}, "
                    f"the first one is {size[0]}×{size[1]} (width×height)",
                    where=str(file),
                    why=f"the first one is {first}",
                    hint="resize the images to the model's input",
                )
        grey = all(mode in ("L", "1") for _, mode in headers)
        channels = 1 if grey else 3
        total_bytes = len(paths) * size[0] * size[1] * channels
        if total_bytes > MAX_TOTAL_BYTES:
            raise _too_large(path, total_bytes)
        images = np.empty((len(paths), size[1], size[0], channels), np.uint8)

        def decode(index: int) -> None:
            images[index] = _image_pixels(image_module, paths[index], "L" if grey else "RGB", size)

        for _ in pool.map(decode, range(len(paths))):
            pass
    counts = {part: [len(files[part].get(name, ())) for name in names] for part in files}
    train_count = sum(counts["train"])
    arrays: dict[str, NDArray[Any]] = {
        "x_train": images[:train_count],
        "y_train": np.repeat(np.arange(len(names)), counts["train"]),
        "x_test": images[train_count:],
        "y_test": np.repeat(np.arange(len(names)), counts["test"]),
    }
    return _checked(str(path), arrays, tuple(_printable(name)[:100] for name in names))


def _image_files(path: Path, part: str) -> dict[str, list[Path]]:
    """{class name: sorted image files} of one part; a class folder without an image is an error."""
    folder = path / part
    if not folder.is_dir():
        raise TteError(
            f"the image folder has no {part!r} folder", where=str(path), hint=FOLDER_HINT
        )
    files = {}
    try:
        for child in sorted(folder.iterdir()):
            if child.name.startswith(".") or not child.is_dir():
                continue
            images = (f for f in child.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
            files[child.name] = sorted(f for f in images if not f.name.startswith("."))
            if not files[child.name]:
                raise TteError(
                    f"the class {_printable(child.name)!r} has no images",
                    where=str(child),
                    hint=FOLDER_HINT,
                )
    except OSError as error:
        raise TteError(
            "the image folder cannot be read", where=str(folder), why=str(error)
        ) from error
    if not files:
        raise TteError(f"{part!r} has no class folders", where=str(folder), hint=FOLDER_HINT)
    return files


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise TteError(
            "reading image folders needs pillow, which is not installed",
            hint="pip install pillow",
        ) from error
    return Image


def _image_header(image_module: ModuleType, file: Path) -> tuple[tuple[int, int], str]:
    """((width, height), mode), without decoding a pixel."""
    with _opened(image_module, file) as image:
        if image.mode not in IMAGE_MODES:
            raise ValueError(
                f"pixels of type {image.mode} are not supported, only 8 bits a channel"
            )
        width, height = image.size
        if width * height > MAX_IMAGE_PIXELS:
            raise TteError(
                f"the image is too large: {width}×{height}",
                where=str(file),
                why=f"at most {MAX_IMAGE_PIXELS} pixels are read",
            )
        return (width, height), image.mode


def _image_pixels(
    image_module: ModuleType, file: Path, mode: str, size: tuple[int, int]
) -> NDArray[np.uint8]:
    with _opened(image_module, file) as image:
        if image.size != size:  # the file was changed since its header was read
            raise ValueError("its size changed while it was read")
        pixels = np.asarray(image.convert(mode), np.uint8)
    return pixels.reshape(size[1], size[0], -1)


@contextmanager
def _opened(image_module: ModuleType, file: Path) -> Iterator[Any]:
    """The image, its pixels still undecoded; whatever pillow raises names the file."""
    try:
        with image_module.open(file, formats=("JPEG", "PNG")) as image:
            yield image
    except TteError:
        raise
    except Exception as error:  # pillow raises many kinds on a corrupt file
        raise TteError(
            "the image cannot be read",
            where=str(file),
            why=_printable(str(error)) or type(error).__name__,
            hint="remove the file or save it again as JPEG or PNG",
        ) from error


# --- checks -------------------------------------------------------------------------------------


def _checked(where: str, arrays: dict[str, NDArray[Any]], names: tuple[str, ...] | None) -> Dataset:
    x_train, x_test = (_samples(where, part, arrays[part]) for part in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise TteError(
            f"x_train and x_test hold different samples: {_shape_text(x_train.shape[1:])} "
            f"and {_shape_text(x_test.shape[1:])}",
            where=where,
        )
    if x_train.dtype != x_test.dtype:
        raise TteError(
            f"x_train is {x_train.dtype} but x_test is {x_test.dtype}",
            where=where,
            why="uint8 pixels and other numbers enter the model differently",
            hint="store both with one type",
        )
    if "y_train" not in arrays:
        return Dataset(x_train, x_train, x_test, x_test, names or ())
    y_train = _targets(where, "y_train", arrays["y_train"], len(x_train))
    y_test = _targets(where, "y_test", arrays["y_test"], len(x_test))
    if y_train.shape[1:] != y_test.shape[1:] or (y_train.dtype == np.int64) != (
        y_test.dtype == np.int64
    ):
        raise TteError(
            f"y_train is {y_train.dtype} of shape {list(y_train.shape)}, but y_test is "
            f"{y_test.dtype} of shape {list(y_test.shape)}",
            where=where,
        )
    if y_train.ndim > 1 or y_train.dtype != np.int64:
        if _equal(x_train, y_train) and _equal(x_test, y_test):
            y_train, y_test = x_train, x_test
        return Dataset(x_train, y_train, x_test, y_test, names or ())
    largest = int(max(y_train.max(), y_test.max()))
    if names is None:
        names = tuple(str(i) for i in range(largest + 1))
    elif largest >= len(names):
        raise TteError(
            f"the data has the label {largest}, but only {len(names)} class names",
            where=where,
            hint="class_names needs one name per class, labels start at 0",
        )
    return Dataset(x_train, y_train, x_test, y_test, names)


def _equal(x: NDArray[Any], y: NDArray[Any]) -> bool:
    """Whether targets are the samples themselves."""
    same = x.dtype == y.dtype and _without_ones(x.shape) == _without_ones(y.shape)
    return same and bool((x.reshape(-1) == y.reshape(-1)).all())


def _samples(where: str, key: str, x: NDArray[Any]) -> NDArray[Any]:
    """[N,H,W,C]: [N,H,W] gets one channel, [N,F] becomes [N,1,1,F]."""
    if x.dtype.kind not in "uif":
        raise TteError(f"{key} must hold numbers, not {x.dtype}", where=where, hint=NPZ_HINT)
    if not 2 <= x.ndim <= 4:
        raise TteError(
            f"{key} has {x.ndim} dimensions",
            where=where,
            why="samples first: [N,H,W,C]",
            hint=NPZ_HINT,
        )
    if x.size == 0:
        raise TteError(f"{key} is empty", where=where, why=f"its shape is {x.shape}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
        raise TteError(
            f"{key} holds a value that is not finite (NaN or infinity)",
            where=f"{where}, {key}[{bad}]",
            hint="remove or repair the sample",
        )
    x = np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False))
    if x.ndim == 2:
        return x[:, None, None, :]
    return x[..., None] if x.ndim == 3 else x


def _targets(where: str, key: str, y: NDArray[Any], samples: int) -> NDArray[Any]:
    """int64 class indices [N], or targets [N, ...] in their own type."""
    if y.dtype.kind not in "uifb":
        raise TteError(f"{key} must hold numbers, not {y.dtype}", where=where, hint=NPZ_HINT)
    if y.ndim == 0 or len(y) != samples:
        count = len(y) if y.ndim else "no"
        raise TteError(
            f"{key} has {count} labels for {samples} samples", where=where, hint=NPZ_HINT
        )
    if y[0].size == 0 or y[0].size > MAX_TARGETS or y.ndim > 4:
        raise TteError(
            f"{key} has the shape {list(y.shape)}",
            where=where,
            why=f"a target has 1 to {MAX_TARGETS} numbers, in one to three dimensions",
            hint=NPZ_HINT,
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        bad = int(np.argmin(np.isfinite(y).reshape(len(y), -1).all(axis=1)))
        raise TteError(
            f"{key} holds a value that is not finite (NaN or infinity)",
            where=f"{where}, {key}[{bad}]",
            hint="remove or repair the sample",
        )
    y = y.astype(np.uint8) if y.dtype.kind == "b" else y
    if y.ndim > 1:
        return np.ascontiguousarray(y.astype(y.dtype.newbyteorder("="), copy=False))
    if y.dtype.kind == "f":
        return np.ascontiguousarray(y.astype(np.float64))[:, None]
    smallest, largest = int(y.min()), int(y.max())
    if smallest < 0:
        raise TteError(
            f"{key} has the negative label {smallest}",
            where=where,
            hint=f"{key}.astype(float) if the values are no class indices",
        )
    if largest >= MAX_CLASSES:
        raise TteError(
            f"{key} has the label {largest}",
            where=where,
            why=f"labels are class indices below {MAX_CLASSES}",
            hint=f"{key}.astype(float) if the values are no class indices",
        )
    return y.astype(np.int64)


def _shape_hint(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if (found[1], found[2], found[0]) == wanted:
        return "the data looks like NCHW: store x.transpose(0, 2, 3, 1)"
    if found[2] == 1 and found[1::-1] == _without_ones(wanted):
        return "the model's channels come last in data: store x.transpose(0, 2, 1)"
    if found[2] == wanted[2]:
        return f"resize the samples to {wanted[0]}×{wanted[1]}, or export the model for this size"
    if (found[2], wanted[2]) == (1, 3):
        return "the model wants colour: numpy.repeat(x, 3, axis=3) turns grey into it"
    return f"store samples of shape [N,{wanted[0]},{wanted[1]},{wanted[2]}]"


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _shape_text(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _printable(text: str) -> str:
    """`text` without control characters: names from files end up on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _too_large(path: Path, total_bytes: int) -> TteError:
    return TteError(
        f"the data set is too large: {total_bytes / 2**30:.1f} GiB unpacked",
        where=str(path),
        why=f"at most {MAX_TOTAL_BYTES / 2**30:.0f} GiB are read",
        hint="use fewer or smaller samples; fine-tuning rarely needs more than a few thousand",
    )


def _bad_array(path: Path, key: str, why: str) -> TteError:
    return TteError(
        f"{key} in the data set cannot be read",
        where=str(path),
        why=_printable(why.splitlines()[0] if why else ""),
        hint=NPZ_HINT,
    )
