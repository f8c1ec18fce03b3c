"""crop_patches: batched affine crops."""

from typing import Any

import numpy as np

from . import _graph as g

_OP = "crop_patches"
_NEAREST, _BICUBIC, _CONSTANT, _BORDER, _REFLECT = 1, 2, 0, 1, 2
_MOST_SAMPLES = 32


def crop_patches(
    images: Any,
    transforms: Any,
    height: Any,
    width: Any,
    image_index: Any,
    mode: Any,
    padding: Any,
    fill: Any,
    mean: Any,
    std: Any,
    antialias: Any,
    mask: Any,
    dtype: Any,
) -> Any:
    if g.ir.DataType.DOUBLE in (dtype, images[0].dtype):
        raise g.ExportError(f"{_OP}: images and dtype must not be float64 for ONNX")
    if mode == _BICUBIC and antialias:
        raise g.ExportError(f"{_OP}: mode='bicubic' with antialias=True has no ONNX translation; use mode='bilinear'")
    height, width = (g.Value(n, "i") if isinstance(n, g.ir.Value) else n for n in (height, width))
    affine = g.as_float(transforms)
    rows = [[g.unsqueeze(g.pick(g.pick(affine, r, 1), c, 1), -1, -2) for c in range(3)] for r in range(2)]  # (N, 1, 1)
    finite = True
    for entry in rows[0] + rows[1]:
        finite = g.is_finite(entry) & finite
    rows = [[g.where(finite, entry, 0.0) for entry in row] for row in rows]
    count = g.sizes_of(affine)[0]
    index = None if image_index is None else g.as_integer(image_index)
    crop = _Crop(rows, finite, (height, width), mode, padding, antialias)
    fill = _per_channel(fill)
    if len(images) == 1:
        patches = crop.of_batch(images[0], index, count, fill)
    else:
        patches = crop.of_list(images, index, count, fill)
    out = patches
    if any(mean):
        out = out - _per_channel(mean)
    if any(each != 1 for each in std):
        out = out / _per_channel(std)
    out = g.transpose(out, 0, 3, 1, 2)
    if mask is not None:
        u, v = crop.positions(0.0, 0.0)
        box = [g.unsqueeze(g.pick(g.as_float(mask), i), -1, -2) for i in range(4)]
        inside = (u >= box[0]) & (u <= box[2]) & (v >= box[1]) & (v <= box[3]) & finite
        out = g.concat([out, g.unsqueeze(g.cast(inside, "f"), 1)], 1)
    if dtype == g.ir.DataType.UINT8:
        out = g.where(g.op("IsNaN", out, kind="b"), 0.0, out)
        out = g.floor(g.clamp(out, 0.0, 255.0) + 0.5)
    return g.written_as(out, dtype)


def _per_channel(numbers):
    """One number, or one per channel; channels are the last axis here."""
    return g.constant(np.asarray(numbers), "f")


class _Crop:
    """The image coordinates of every patch pixel, ``(N, h, w)``."""

    def __init__(self, rows, finite, size, mode, padding, antialias):
        self.rows, self.finite, self.size = rows, finite, size
        self.mode, self.padding, self.antialias = mode, padding, antialias

    def positions(self, dx, dy):
        """Image coordinates of the patch pixels, shifted by a fraction of a pixel."""
        x = g.real(g.arange(self.size[1])) + dx
        y = g.unsqueeze(g.real(g.arange(self.size[0])), -1) + dy
        return tuple(a * x + b * y + c for a, b, c in self.rows)

    def of_batch(self, image, index, count, fill):
        sizes = g.sizes_of(g.Value(image, None))
        if len(sizes) == 3:
            sizes = [1, *sizes]
        batch, channels, height, width = sizes
        if index is None and isinstance(batch, int) and batch == 1:
            first, used = None, self.finite
        else:
            # Without an index, patch n is cropped from image n, or all patches from the only image.
            last = batch - 1 if isinstance(batch, g.Value) else g.constant(batch - 1, "i")
            index = g.minimum(g.arange(count), last) if index is None else index
            inside = (index >= 0) & (index <= last)
            first = g.unsqueeze(g.where(inside, index, 0), -1, -2) * (height * width)
            used = g.unsqueeze(inside, -1, -2) & self.finite
        order = (1, 2, 0) if len(image.shape) == 3 else (0, 2, 3, 1)
        pixels = g.reshape(g.transpose(g.Value(image, None), *order), [-1, channels])
        return self._mean(pixels, image, first, (height, width), used, fill)

    def of_list(self, images, index, count, fill):
        if index is None:
            index = g.arange(count)
        out = None
        for number, image in enumerate(images):
            channels, height, width = g.sizes_of(g.Value(image, None))
            pixels = g.reshape(g.transpose(g.Value(image, None), 1, 2, 0), [-1, channels])
            mine = g.unsqueeze(index.equals(number), -1, -2)
            patches = self._mean(pixels, image, None, (height, width), mine & self.finite, fill)
            out = patches if out is None else g.where(g.unsqueeze(mine, -1), patches, out)
        return out

    def _mean(self, pixels, image, first, size, used, fill):
        """The mean of the samples of each patch pixel, ``(N, h, w, C)``."""
        used = g.unsqueeze(used, -1)

        def sample(dx, dy):
            return self._sample(pixels, image, first, size, dx, dy, used, fill)

        if not self.antialias:
            return sample(0.0, 0.0)
        counts = []
        for column in range(2):
            length = g.sqrt(self.rows[0][column] * self.rows[0][column] + self.rows[1][column] * self.rows[1][column])
            number = g.clamp(g.op("Ceil", length - 1e-3), 1.0, float(_MOST_SAMPLES))
            counts.append(number)
        one = g.constant([1.0], "f")  # for no patches
        most = [g.concat([g.reshape(n, [-1]), one]) for n in counts]
        most = [g.cast(g.op("ReduceMax", n, keepdims=0), "i") for n in most]

        def body(number, total):
            along, down = g.cast(number % most[0], "f"), g.cast(number // most[0], "f")
            taken = (along < counts[0]) & (down < counts[1])
            offsets = [(i * 2.0 + 1.0 - n) / (n * 2.0) for i, n in zip((along, down), counts, strict=True)]
            value = sample(*offsets)
            return g.constant(True), total + g.where(g.unsqueeze(taken, -1), value, 0.0)

        start = sample(0.0, 0.0) * 0.0
        (total,) = g.loop(body, [g.where(g.is_finite(start), start, 0.0)], times=most[0] * most[1])
        return total / g.unsqueeze(counts[0] * counts[1], -1)

    def _sample(self, pixels, image, first, size, dx, dy, used, fill):
        u, v = self.positions(dx, dy)
        value = covered = None
        for row, weight_y in self._taps(v, size[0]):
            for column, weight_x in self._taps(u, size[1]):
                weight = g.unsqueeze(weight_y * weight_x, -1)
                place = row * size[1] + column
                pixel = g.gather(pixels, place if first is None else place + first, 0)
                if image.dtype != g.ir.DataType.FLOAT:
                    pixel = g.op("Cast", pixel, kind="f", to=g.ir.DataType.FLOAT.value)
                pixel.kind = "f"
                if image.dtype.is_floating_point():  # a pixel with weight 0 counts as 0, even when it is NaN
                    pixel = g.where(weight.equals(0.0) & ~g.is_finite(pixel), 0.0, pixel)
                part = weight * pixel
                value, covered = (part, weight) if value is None else (value + part, covered + weight)
        return g.where(used, value + fill * (1.0 - covered), fill)

    def _taps(self, u, size):
        """The pixels around each coordinate, two or four, and their weights, 0 outside the image."""
        if self.mode == _BICUBIC:
            yield from self._cubic_taps(u, size)
            return
        last = g.real(size - 1)
        if self.padding == _REFLECT:
            period = g.maximum(2.0 * last, 1.0)
            u = u - g.floor(u / period) * period
            u = g.where(u > last, period - u, u)
        if self.padding != _CONSTANT:
            u = g.clamp(u, 0.0, last)
        if self.mode == _NEAREST:
            u = g.floor(u + 0.5)
        below = g.floor(u)
        if self.padding != _CONSTANT:
            below = g.minimum(below, g.real(g.maximum(size - 2, 0)))
        for index, weight in ((below, 1.0 - (u - below)), (below + 1.0, u - below)):
            inside = (index >= 0.0) & (index <= last)
            yield g.cast(g.clamp(index, 0.0, last), "i"), g.where(inside, weight, 0.0)

    def _cubic_taps(self, u, size):
        """Keys's kernel, a = -0.75."""
        last, a = g.real(size - 1), -0.75
        if self.padding == _BORDER:
            u = g.clamp(u, -3.0, last + 3.0)
        period = g.maximum(2.0 * last, 1.0)
        if self.padding == _REFLECT:
            u = u - g.floor(u / period) * period
        first = g.floor(u) - 1.0
        for k in range(4):
            index = first + float(k)
            z = g.absolute(index - u)
            if k in (0, 3):
                weight = (((z - 5.0) * z + 8.0) * z - 4.0) * a
            else:
                weight = ((a + 2) * z - (a + 3)) * z * z + 1.0
            if self.padding == _CONSTANT:
                weight = g.where((index >= 0.0) & (index <= last), weight, 0.0)
            if self.padding == _REFLECT:
                index = index - g.floor(index / period) * period
                index = g.where(index > last, 2.0 * last - index, index)
            yield g.cast(g.clamp(index, 0.0, last), "i"), weight
