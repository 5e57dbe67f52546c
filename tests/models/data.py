# SPDX-License-Identifier: Apache-2.0
"""Data for the models of the zoo: scanned digits of scikit-learn, signals and pictures made here,
and sets of ../shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.data import Dataset, InputTransform, check_against, load_dataset

Array = NDArray[Any]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

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
    x = np.stack([spectrogram(_call(rng, label, samples)) for label in y])[..., None]
    return _split(x, y, tuple(f"call {k}" for k in range(10)), seed)


def keywords(count: int = 2400, seed: int = 0) -> Dataset:
    """Cepstral coefficients, float32 [N, 49, 10, 1], of the ten calls, of silence, and of two
    calls at a time."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 12, count)
    x = []
    for label in y:
        parts = [label] if label < 10 else rng.integers(0, 9, 2) if label == 11 else []
        signal = rng.normal(0, rng.uniform(0.01, 0.1), 8000)
        x.append(cepstrum(signal + sum(_call(rng, part, 8000) for part in parts)))
    names = (*(f"call {k}" for k in range(10)), "silence", "several")
    return _split(np.stack(x)[..., None], y, names, seed)


def _call(rng: np.random.Generator, label: int, samples: int) -> Array:
    """One call in noise."""
    time = np.arange(samples) / 8000
    start, length = rng.uniform(0.05, 0.35), rng.uniform(0.35, 0.5)
    inside = np.clip((time - start) / length, 0, 1)
    if label == 9:
        tone = rng.normal(size=samples)
    else:
        pitch = (350, 900, 2000)[label // 3] * rng.uniform(0.85, 1.15)
        bend = (0.8 * inside, -0.5 * inside, 0.3 * np.sin(2 * np.pi * 3 * inside))[label % 3]
        phase = 2 * np.pi * np.cumsum(pitch * (1 + bend)) / 8000
        tone = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)
    noise = rng.normal(0, rng.uniform(0.01, 0.1), samples)
    return np.asarray(tone * np.sin(np.pi * inside) + noise)


def _band_powers(signal: Array, frames: int, bands: int) -> Array:
    """[bands, frames]: mean power in bands, low ones narrower."""
    starts = np.linspace(0, len(signal) - FRAME, frames).astype(int)
    windows = np.stack([signal[s : s + FRAME] for s in starts]) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(windows)) ** 2
    edges = np.unique(np.geomspace(4, FRAME // 2, 2 * bands).astype(int))
    edges = edges[np.linspace(0, len(edges) - 1, bands + 1).astype(int)]
    return np.stack([power[:, a:b].mean(axis=1) for a, b in pairwise(edges)])


def spectrogram(signal: Array) -> Array:
    """Log power in 32 bands by 30 frames, uint8."""
    level = np.log10(_band_powers(signal, FRAMES, BANDS) + 1e-9)
    level -= level.max()
    image: Array = np.clip(255 * (level + 5) / 5, 0, 255).astype(np.uint8)
    return image


def cepstrum(signal: Array) -> Array:
    """The first 10 cosine coefficients of the log power in 32 bands, 49 frames, float32."""
    level = np.log10(_band_powers(signal, 49, BANDS) + 1e-6)
    place = (np.arange(BANDS) + 0.5) / BANDS
    cosines = np.cos(np.pi * np.arange(10)[:, None] * place) / BANDS
    return np.asarray((cosines @ level).T, np.float32)


# ---- pictures -----------------------------------------------------------------------------

TEXTURES = ("stripes", "checks", "dots", "clouds")
SHAPES = ("disc", "square", "triangle", "cross")


def textures(count: int = 4000, seed: int = 0) -> Dataset:
    """Stripes, checks, dots or clouds of any two colours, width and angle, 48x48x3 uint8."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(TEXTURES), count)
    x = np.empty((count, 48, 48, 3), np.uint8)
    for i, label in enumerate(y):
        angle, width = rng.uniform(0, 2 * np.pi), rng.uniform(6, 14)
        rows, columns = np.indices((48, 48)) * (2 * np.pi / width)
        a = np.sin(rows * np.cos(angle) + columns * np.sin(angle) + rng.uniform(0, 6))
        b = np.sin(columns * np.cos(angle) - rows * np.sin(angle) + rng.uniform(0, 6))
        if label == 3:
            coarse = rng.uniform(0, 1, (13, 13)).repeat(4, axis=0).repeat(4, axis=1)
            part = sum(np.roll(coarse, (k, -k), (0, 1)) for k in range(4))[:48, :48] / 4
        else:
            part = (a + 1, np.sign(a * b) + 1, 2 * (a + b > 0.8))[label] / 2
        colours = rng.uniform(0, 255, (2, 3))
        while np.abs(colours[0] - colours[1]).max() < 80:
            colours = rng.uniform(0, 255, (2, 3))
        image = colours[0] + (colours[1] - colours[0]) * part[..., None]
        x[i] = (image + rng.normal(0, 15, image.shape)).clip(0, 255)
    return _split(x, y, TEXTURES, seed)


def masks(count: int = 1500, seed: int = 0) -> Dataset:
    """Two shapes before a slope under noise, 24x24x1 uint8; the target is 1 inside, 0 outside."""
    rng = np.random.default_rng(seed)
    x = np.empty((count, 24, 24, 1), np.uint8)
    y = np.empty((count, 24, 24, 1), np.uint8)
    for i in range(count):
        inside = _inside(rng, str(rng.choice(SHAPES)), 24) | _inside(rng, "disc", 24)
        rows, columns = np.indices((24, 24)) / 24
        image = 90 + 60 * (rows * rng.uniform(-1, 1) + columns * rng.uniform(-1, 1))
        image = image + rng.uniform(50, 100) * inside + rng.normal(0, 20, image.shape)
        x[i, ..., 0], y[i, ..., 0] = image.clip(0, 255), inside
    cut = count * 4 // 5
    return Dataset(x[:cut], y[:cut], x[cut:], y[cut:], ())


def _inside(rng: np.random.Generator, shape: str, size: int) -> Array:
    """Which pixels a shape at a random place, size and angle covers."""
    radius = size * rng.uniform(0.14, 0.3)
    centre = rng.uniform(radius, size - radius, 2)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.indices((size, size)) + 0.5 - centre[:, None, None]
    a = (rows * np.cos(angle) + columns * np.sin(angle)) / radius
    b = (columns * np.cos(angle) - rows * np.sin(angle)) / radius
    if shape == "disc":
        return np.asarray(a**2 + b**2 <= 1)
    if shape == "square":
        return np.asarray(np.maximum(np.abs(a), np.abs(b)) <= 0.8)
    if shape == "triangle":
        return np.asarray((b >= -0.5) & (b <= 1 - np.abs(a) * np.sqrt(3)))
    return np.asarray((np.minimum(np.abs(a), np.abs(b)) <= 0.25) & (np.abs([a, b]).max(0) <= 1))


# ---- machines -----------------------------------------------------------------------------


def engines(count: int = 2400, seed: int = 0) -> Dataset:
    """Five frames of log power in 128 bands of a running machine, float32 [N, 1, 1, 640], mean 0.
    The training part is healthy; so is the first half of the test part, and the other half knocks,
    whistles or runs unevenly."""
    rng = np.random.default_rng(seed)
    bands = np.arange(128)
    healthy = count * 5 // 6
    x = np.empty((count, 5, 128), np.float32)
    for i in range(count):
        rate = rng.uniform(6, 10)
        fault = rng.integers(1, 4) if i >= healthy else 0
        level = np.full((5, 128), -1.5) - bands / 90
        for k in range(1, 9):
            place = rate * k * (1 + 0.02 * rng.normal(size=5) * (6 if fault == 3 else 1))
            height = 2.2 / k**0.5 + 0.1 * rng.normal()
            level += height * np.exp(-0.5 * ((bands - place[:, None]) / 1.5) ** 2)
        if fault == 1:
            level[rng.integers(0, 5)] += 0.8
        if fault == 2:
            level += 1.2 * np.exp(-0.5 * ((bands - rng.uniform(90, 120)) / 1.5) ** 2)
        x[i] = level + rng.normal(0, 0.15, level.shape)
    x = x.reshape(count, 1, 1, 640) + np.float32(1.8)
    cut = healthy - (count - healthy)
    return Dataset(x[:cut], x[:cut], x[cut:], x[cut:], ())


# ---- ../shared ----------------------------------------------------------------------------


def fashion() -> Dataset:
    """fashion_mnist as 32x32x3."""
    found = load_dataset(SHARED / "fashion_mnist.npz")

    def large(x: Array) -> Array:
        return np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, axis=3)

    return replace(found, x_train=large(found.x_train), x_test=large(found.x_test))


def persons() -> Dataset:
    """person_128 as 96x96x3."""
    from PIL import Image

    found = load_dataset(SHARED / "person_128")
    x_train, x_test = (
        np.stack([np.asarray(Image.fromarray(image).resize((96, 96))) for image in x])
        for x in (found.x_train, found.x_test)
    )
    return replace(found, x_train=x_train, x_test=x_test)


def spoken_digits() -> Dataset:
    """fsdd_digits_8k as spectrograms, uint8 [N, 32, 30, 1]."""
    return _spoken(spectrogram)


def spoken_keywords() -> Dataset:
    """fsdd_digits_8k as cepstral coefficients, float32 [N, 49, 10, 1]."""
    return _spoken(cepstrum)


def _spoken(features: Callable[[Array], Array]) -> Dataset:
    found = load_dataset(SHARED / "fsdd_digits_8k.npz")
    x_train, x_test = (
        np.stack([features(signal.reshape(-1) / 8192) for signal in x])[..., None]
        for x in (found.x_train, found.x_test)
    )
    return replace(found, x_train=x_train, x_test=x_test)


def recorded_motions() -> Dataset:
    """har_mobile_st, in g, float32 [N, 1, 64, 3]."""
    return check_against(load_dataset(SHARED / "har_mobile_st.npz"), (1, 64, 3))


def patterns(shape: tuple[int, int, int], classes: int, seed: int = 0) -> Dataset:
    """A random coarse picture per class, under noise: for models without data of their own."""
    rng = np.random.default_rng(seed)
    y = np.arange(96) % classes
    coarse = rng.integers(40, 216, (classes, *(-(-size // 8) for size in shape[:2]), shape[2]))
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]]
    x = np.clip(pictures[y] + rng.normal(0, 25, (len(y), *shape)), 0, 255).astype(np.uint8)
    return Dataset(x[:80], y[:80], x[80:], y[80:], tuple(map(str, range(classes))))


@dataclass(frozen=True)
class Training:
    """What pretrain.py trains: a model of the zoo on data, for so many epochs, with pictures moved
    and mirrored if `vary`. `score`: what the float model reaches at least (see measure.py)."""

    model: str
    dataset: Callable[[], Dataset]
    score: float
    epochs: int = 15
    vary: bool = False


# Those whose ONNX file is in this folder, by its name.
PRETRAINED = {
    "lenet_5": Training("lenet_5", digits, 0.99),
    "accelerometer_cnn": Training("accelerometer_cnn", motions, 0.95),
    "spectrogram_cnn": Training("spectrogram_cnn", calls, 0.99),
    "ds_cnn": Training("ds_cnn", keywords, 0.95),
    "mobilenet_v3_like": Training("mobilenet_v3_like", textures, 0.9, 40, vary=True),
    "u_net_like": Training("u_net_like", masks, 0.95),
    "resnet_8": Training("resnet_8", fashion, 0.90, 20, vary=True),
}
# Those that the measurements train anew.
TRAINED = {
    "mobilenet_v1_0.25": Training("mobilenet_v1_0.25", persons, 0.7, 150, vary=True),
    "autoencoder": Training("autoencoder", engines, 0.9, 30),
    "accelerometer_cnn-har": Training("accelerometer_cnn", recorded_motions, 0.95, 30),
    "spectrogram_cnn-fsdd": Training("spectrogram_cnn", spoken_digits, 0.95, 40),
    "ds_cnn-fsdd": Training("ds_cnn", spoken_keywords, 0.95),
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
