# SPDX-License-Identifier: Apache-2.0
"""How int8 and int32 codes stand for real numbers: real = scale * (q - zero_point)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class QuantParams:
    """Affine quantisation, per tensor (one scale) or per channel along `axis`.

    `zero_point` is the true one: it is subtracted. Per-channel tensors have zero_point 0.
    """

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None

    @property
    def per_tensor_scale(self) -> float:
        """The only scale; ValueError where there are several."""
        if len(self.scale) != 1:
            raise ValueError(f"expected one scale, got {len(self.scale)}")
        return self.scale[0]

    def scales(self, channels: int) -> NDArray[np.float64]:
        """One scale per channel, float64[channels]."""
        return np.broadcast_to(np.asarray(self.scale, np.float64), (channels,)).copy()

    def quantize(self, real: NDArray[np.floating]) -> NDArray[np.int8]:
        """Real values to the nearest codes, halves up, per tensor."""
        steps = np.floor(real.astype(np.float64) / self.per_tensor_scale + 0.5) + self.zero_point
        codes: NDArray[np.int8] = steps.clip(-128, 127).astype(np.int8)
        return codes

    def dequantize(self, data: NDArray[np.generic]) -> NDArray[np.float64]:
        """Codes to real values, float64, same shape."""
        scale = np.asarray(self.scale, np.float64)
        if self.axis is not None:
            shape = [1] * data.ndim
            shape[self.axis] = -1
            scale = scale.reshape(shape)
        return (data.astype(np.float64) - self.zero_point) * scale
