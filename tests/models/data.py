# SPDX-License-Identifier: Apache-2.0
"""Data for the models of the zoo: scanned digits of scikit-learn, and signals made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.data import Dataset, InputTransform

Array = NDArray[Any]

MOTIONS = ("still", "walking", "running", "climbing", "shaking")
FRAME, HOP, BANDS, FRAMES = 512, 256, 32, 30


def digits() -> Dataset:
    """8x8 scans of digits as 28x28x1 uint8; a fifth is the test part."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.asarray(scans.images) * (255 / 16)
    # Bilinear, from pixel centres; 24x24 with a margin of 2.
    place = (np.arange(24) + 0.5) / 3 - 0.5
    low = np.clip(np.floor(place).astype(int), 0, 6)
    part = np.clip(place - low, 0, 1)
    rows = images[:, low] * (1 - part)[:, None] + images[:, low + 1] * part[:, None]
    both = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    x = np.pad(both, ((0, 0), (2, 2), (2, 2))).round().astype(np.uint8)[..., None]
    return _split(x, np.asarray(scans.target), tuple("0123456789"), seed=0)


def motions(count: int = 1500, seed: int = 0) -> Dataset:
    """64 samples of three axes at 26 Hz, in g, float32 [N, 1, 64, 3]: gravity from any side, and
    what a body does to it."""
    rng = np.random.default_rng(seed)
    time = np.arange(64) / 26
    y = rng.integers(0, len(MOTIONS), count)
    x = np.empty((count, 1, 64, 3), np.float32)
    for i, label in enumerate(y):
        gravity = rng.normal(size=3)
        gravity /= np.linalg.norm(gravity)
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        rate = (0.0, 1.8, 2.8, 1.2, 5.5)[label] * rng.uniform(0.85, 1.15)
        size = (0.02, 0.3, 0.9, 0.3, 0.8)[label] * rng.uniform(0.7, 1.3)
        phase = rng.uniform(0, 2 * np.pi, 3)
        wave = np.sin(2 * np.pi * rate * time + phase[0])
        wave += (0.6 if label in (1, 2) else 0.2) * np.sin(4 * np.pi * rate * time + phase[1])
        signal = gravity + size * wave[:, None] * direction
        if label == 3:  # a slow lean
            signal += 0.4 * np.sin(2 * np.pi * 0.3 * time + phase[2])[:, None] * gravity[::-1]
        x[i, 0] = signal + rng.normal(0, 0.05, (64, 3))
    return _split(x, y, MOTIONS, seed)


def calls(count: int = 1500, seed: int = 0) -> Dataset:
    """Spectrograms, uint8 [N, 32, 30, 1], of ten kinds of animal-like calls at 8 kHz: rising,
    falling or warbling tones, at three pitches, and noise bursts."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, count)
    samples = HOP * (FRAMES - 1) + FRAME
    time = np.arange(samples) / 8000
    x = np.empty((count, BANDS, FRAMES, 1), np.uint8)
    for i, label in enumerate(y):
        start, length = rng.uniform(0.05, 0.35), rng.uniform(0.35, 0.5)
        inside = np.clip((time - start) / length, 0, 1)
        if label == 9:
            tone = rng.normal(size=samples)
        else:
            pitch = (350, 900, 2000)[label // 3] * rng.uniform(0.85, 1.15)
            bend = (0.8 * inside, -0.5 * inside, 0.3 * np.sin(2 * np.pi * 3 * inside))[label % 3]
            phase = 2 * np.pi * np.cumsum(pitch * (1 + bend)) / 8000
            tone = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)
        signal = tone * np.sin(np.pi * inside) + rng.normal(0, rng.uniform(0.01, 0.1), samples)
        x[i, ..., 0] = spectrogram(signal)
    return _split(x, y, tuple(f"call {k}" for k in range(10)), seed)


def spectrogram(signal: Array) -> Array:
    """Log power in 32 bands (low ones narrower) by 30 frames, uint8."""
    starts = np.linspace(0, len(signal) - FRAME, FRAMES).astype(int)
    frames = np.stack([signal[s : s + FRAME] for s in starts]) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.geomspace(4, FRAME // 2, 64).astype(int))
    edges = edges[np.linspace(0, len(edges) - 1, BANDS + 1).astype(int)]
    bands = np.stack([power[:, a:b].mean(axis=1) for a, b in pairwise(edges)])
    level = np.log10(bands + 1e-9)
    level -= level.max()
    image: Array = np.clip(255 * (level + 5) / 5, 0, 255).astype(np.uint8)
    return image


def patterns(shape: tuple[int, int, int], classes: int, seed: int = 0) -> Dataset:
    """A random coarse picture per class, under noise: for models without data of their own."""
    rng = np.random.default_rng(seed)
    y = np.arange(96) % classes
    coarse = rng.integers(40, 216, (classes, *(-(-size // 8) for size in shape[:2]), shape[2]))
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]]
    x = np.clip(pictures[y] + rng.normal(0, 25, (len(y), *shape)), 0, 255).astype(np.uint8)
    return Dataset(x[:80], y[:80], x[80:], y[80:], tuple(map(str, range(classes))))


@dataclass(frozen=True)
class Pretrained:
    """What a model of this folder was trained with (pretrain.py), and its accuracy then."""

    dataset: Callable[[], Dataset]
    accuracy: float
    input_rank: int


PRETRAINED = {
    "lenet_5": Pretrained(digits, 0.99, 4),
    "accelerometer_cnn": Pretrained(motions, 0.95, 3),
    "spectrogram_cnn": Pretrained(calls, 0.99, 4),
}


def model_input(x: Array, rank: int) -> Array:
    """Samples [N, H, W, C] as an ONNX file takes them: uint8 as (x - 128) / 127.5, channels first,
    [N, C, W] or [N, W] for lower ranks."""
    real = InputTransform(1.0, 0).to_float(x).transpose(0, 3, 1, 2)
    if rank < 4:
        real = real.squeeze(2)
    return np.ascontiguousarray(real.reshape(len(x), -1) if rank == 2 else real)


def _split(x: Array, y: Array, names: tuple[str, ...], seed: int) -> Dataset:
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order], y[order].astype(np.int64)
    cut = len(x) * 4 // 5
    return Dataset(x[:cut], y[:cut], x[cut:], y[cut:], names)
