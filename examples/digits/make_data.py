# SPDX-License-Identifier: Apache-2.0
"""Writes digits_shifted.npz: scikit-learn's handwritten digits, seen by a changed sensor.

The shipped model (train_model.py) knows upright light-on-dark digits. This data is what it meets
in the field: the camera is mounted at an angle, its picture is inverted and noisy. The test part
holds digits that the model has never seen, neither upright nor turned.

    python make_data.py [FILE]          needs numpy and scikit-learn
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SIZE = 16  # the 8x8 scans are enlarged to SIZE x SIZE
ROTATION_DEGREES = 35.0
CONTRAST = 0.8
NOISE = 10.0  # standard deviation, in grey levels
TEST_FRACTION = 0.3
SEED = 2024


def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """(scans [1797,8,8] with values 0..1, labels [1797])."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16.0, digits.target.astype(np.int64)


def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(train, test) indices: the same share of every class, the same split for ever."""
    rng = np.random.default_rng(SEED)
    test = []
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(labels == digit))
        test.append(members[: round(TEST_FRACTION * len(members))])
    test_indices = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), test_indices), test_indices


def render(scans: np.ndarray, degrees: float = 0.0) -> np.ndarray:
    """The scans turned and enlarged to [N,SIZE,SIZE], bilinear, black outside, values 0..1."""
    angle = np.deg2rad(degrees)
    centre = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    y, x = np.meshgrid(centre, centre, indexing="ij")
    row = (np.cos(angle) * y - np.sin(angle) * x + 0.5) * 8 - 0.5
    column = (np.sin(angle) * y + np.cos(angle) * x + 0.5) * 8 - 0.5
    padded = np.pad(scans, ((0, 0), (3, 3), (3, 3)))
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    down, right = row - top, column - left
    corner = [(0, 0, (1 - down) * (1 - right)), (0, 1, (1 - down) * right)]
    corner += [(1, 0, down * (1 - right)), (1, 1, down * right)]
    return sum(w * padded[:, top + 3 + i, left + 3 + j] for i, j, w in corner)


def pixels(images: np.ndarray) -> np.ndarray:
    """uint8 [N,SIZE,SIZE,1] of values 0..1."""
    return np.clip(np.floor(images * 255 + 0.5), 0, 255).astype(np.uint8)[..., None]


def changed_sensor(scans: np.ndarray) -> np.ndarray:
    """What the turned, inverting, noisy camera sees: uint8 [N,SIZE,SIZE,1]."""
    noise = np.random.default_rng(SEED + 1).normal(0, NOISE / 255, (len(scans), SIZE, SIZE))
    return pixels(1 - CONTRAST * render(scans, ROTATION_DEGREES) + noise)


def main(path: Path) -> None:
    scans, labels = load_scans()
    train, test = split(labels)
    images = changed_sensor(scans)
    np.savez_compressed(
        path,
        x_train=images[train],
        y_train=labels[train].astype(np.uint8),
        x_test=images[test],
        y_test=labels[test].astype(np.uint8),
        class_names=np.array([str(digit) for digit in range(10)]),
    )
    print(f"{path}: {len(train)} training and {len(test)} test images of {SIZE}x{SIZE} pixels")


if __name__ == "__main__":
    default = Path(__file__).resolve().parent / "digits_shifted.npz"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
