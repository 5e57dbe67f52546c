# SPDX-License-Identifier: Apache-2.0
"""A window sliding over an NHWC map: the geometry that convolutions and pooling share.

Output size per axis: (in + pad_begin + pad_end - dilation * (kernel - 1) - 1) // stride + 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tte.ir import TensorType
from tte.ops import params
from tte.ops.spec import Array, Importer, OnnxNode

MAX_WINDOW_ELEMS = 2**27  # of the padded map, and of all windows of it side by side


@dataclass(frozen=True, slots=True)
class WindowAttrs:
    """Sizes as (height, width); `pads` is (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    def out_size(self, in_h: int, in_w: int) -> tuple[int, int]:
        """Height and width of the output map."""
        top, left, bottom, right = self.pads
        (kernel_h, kernel_w), (dil_h, dil_w) = self.kernel, self.dilation
        return (
            (in_h + top + bottom - dil_h * (kernel_h - 1) - 1) // self.stride[0] + 1,
            (in_w + left + right - dil_w * (kernel_w - 1) - 1) // self.stride[1] + 1,
        )

    def with_ceil(self, in_h: int, in_w: int) -> WindowAttrs:
        """With as much more padding at the end as makes the output size round up; a window that
        would begin in that padding is left out (ONNX since operator set 19, and PyTorch)."""
        pads = list(self.pads)
        for axis, size in enumerate((in_h, in_w)):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            stride = self.stride[axis]
            steps = -(-(size + pads[axis] + pads[axis + 2] - span) // stride)
            if steps * stride >= size + pads[axis]:
                steps -= 1
            pads[axis + 2] = max(pads[axis + 2], steps * stride + span - size - pads[axis])
        return replace(self, pads=(pads[0], pads[1], pads[2], pads[3]))

    def span(self, out_h: int, out_w: int) -> tuple[int, int]:
        """Rows and columns of the padded input that the outputs look at."""
        return (
            (out_h - 1) * self.stride[0] + self.dilation[0] * (self.kernel[0] - 1) + 1,
            (out_w - 1) * self.stride[1] + self.dilation[1] * (self.kernel[1] - 1) + 1,
        )

    def params(self, x: TensorType, y: TensorType, in_c: int | None = None) -> params.Window:
        """The C struct for input x and output y, both NHWC or [1, C]."""
        in_h, in_w, channels = hwc(x)
        out_h, out_w, out_c = hwc(y)
        return params.Window(
            in_h=in_h,
            in_w=in_w,
            in_c=channels if in_c is None else in_c,
            out_h=out_h,
            out_w=out_w,
            out_c=out_c,
            kernel_h=self.kernel[0],
            kernel_w=self.kernel[1],
            stride_h=self.stride[0],
            stride_w=self.stride[1],
            dilation_h=self.dilation[0],
            dilation_w=self.dilation[1],
            pad_top=self.pads[0],
            pad_left=self.pads[1],
            groups=self.groups,
        )


def hwc(tensor: TensorType) -> tuple[int, int, int]:
    """Height, width, channels of an activation type; [1, C] is a 1x1 map."""
    if len(tensor.shape) == 2:
        return 1, 1, tensor.shape[1]
    return tensor.shape[1], tensor.shape[2], tensor.shape[3]


def as_map(x: Array) -> Array:
    """[N, C] as [N, 1, 1, C]; NHWC as it is."""
    return x.reshape(x.shape[0], 1, 1, x.shape[1]) if x.ndim == 2 else x


def pad_map(x: Array, window: WindowAttrs, value: float = 0.0) -> Array:
    """NHWC map with the window's padding around it."""
    top, left, bottom, right = window.pads
    if not any(window.pads):
        return x
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(x, widths, constant_values=value)


def patches(padded: Array, window: WindowAttrs) -> Array:
    """Strided view [N, out_h, out_w, kernel_h, kernel_w, C] of a padded NHWC map."""
    (kernel_h, kernel_w), (dil_h, dil_w) = window.kernel, window.dilation
    extent = (dil_h * (kernel_h - 1) + 1, dil_w * (kernel_w - 1) + 1)
    view = sliding_window_view(padded, extent, axis=(1, 2))
    view = view[:, :: window.stride[0], :: window.stride[1], :, ::dil_h, ::dil_w]
    return view.transpose(0, 1, 2, 4, 5, 3)


def taps(window: WindowAttrs, out_h: int, out_w: int) -> list[tuple[int, int, slice, slice]]:
    """For each kernel element (i, j) the rows and columns of the padded map it touches."""
    found = []
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            row, col = i * window.dilation[0], j * window.dilation[1]
            rows = slice(row, row + (out_h - 1) * window.stride[0] + 1, window.stride[0])
            cols = slice(col, col + (out_w - 1) * window.stride[1] + 1, window.stride[1])
            found.append((i, j, rows, cols))
    return found


def unpad(padded: Array, window: WindowAttrs, in_h: int, in_w: int) -> Array:
    """The inside of a padded map."""
    top, left = window.pads[:2]
    return padded[:, top : top + in_h, left : left + in_w]


def spatial_rank(node: OnnxNode, importer: Importer) -> int:
    """1 or 2: the spatial dimensions of the node's input, [N, C, ...] in the file."""
    rank = len(importer.layout(node.inputs[0]).shape)
    if rank not in (3, 4):
        raise importer.fail(
            f"its input has {rank} dimensions; [batch, channels, length] and "
            "[batch, channels, height, width] are supported"
        )
    return rank - 2


def spatial(
    node: OnnxNode, importer: Importer, name: str, rank: int, default: int
) -> tuple[int, int]:
    """An attribute of one number per spatial dimension, as (height, width)."""
    values = tuple(node.attrs.get(name, (default,) * rank))
    if len(values) != rank:
        dimensions = "one spatial dimension" if rank == 1 else "two spatial dimensions"
        raise importer.fail(f"its {name} {list(values)} do not fit {dimensions}")
    return values if rank == 2 else (1, *values)


def window_from_onnx(node: OnnxNode, importer: Importer, kernel: tuple[int, ...]) -> WindowAttrs:
    """Stride, dilation, padding and groups of a convolution or pooling node in one or two
    dimensions; one dimension becomes the width.

    auto_pad as in the ONNX specification of Conv; ceil_mode becomes padding at the end.
    """
    attrs = node.attrs
    rank = spatial_rank(node, importer)
    if len(kernel) != rank:
        raise importer.fail(f"its kernel {list(kernel)} does not fit {rank} spatial dimensions")
    x = importer.type_of(node.inputs[0])
    size = (kernel if rank == 2 else (1, *kernel))[:2]
    stride = spatial(node, importer, "strides", rank, 1)
    dilation = spatial(node, importer, "dilations", rank, 1)
    pads = tuple(attrs.get("pads", (0,) * (2 * rank)))
    if len(pads) != 2 * rank:
        raise importer.fail(f"its pads {list(pads)} do not fit {rank} spatial dimensions")
    pads = pads if rank == 2 else (0, pads[0], 0, pads[1])
    if min(stride) < 1 or min(dilation) < 1 or min(pads) < 0 or min(size) < 1:
        raise importer.fail("strides, dilations, pads and kernel must not be negative or zero")
    if max(*stride, *dilation, *pads, *size) > 0xFFFF:
        raise importer.fail("strides, dilations, pads and kernel go up to 65535")
    auto_pad = attrs.get("auto_pad", "NOTSET")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
            for size, s, d, k in zip(x.shape[1:3], stride, dilation, size, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*small, *large) if auto_pad == "SAME_UPPER" else (*large, *small)
    elif auto_pad == "VALID":
        pads = (0, 0, 0, 0)
    elif auto_pad != "NOTSET":
        raise importer.fail(f"auto_pad {auto_pad!r} is unknown")
    window = WindowAttrs((size[0], size[1]), stride, dilation, pads, int(attrs.get("group", 1)))
    _, in_h, in_w, channels = x.shape
    if attrs.get("ceil_mode", 0):
        window = window.with_ceil(in_h, in_w)
    out_h, out_w = window.out_size(in_h, in_w)
    if min(out_h, out_w) < 1:
        raise importer.fail(f"its {size[0]}x{size[1]} window does not fit the input {x}")
    padded = (in_h + pads[0] + pads[2]) * (in_w + pads[1] + pads[3])
    if max(padded, out_h * out_w * size[0] * size[1]) * channels > MAX_WINDOW_ELEMS:
        raise importer.fail("its padded input or its windows are too large for a microcontroller")
    return window
