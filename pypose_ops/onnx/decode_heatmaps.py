"""decode_heatmaps and UDP's combined maps: one peak per map."""

import math
from typing import Any

from ..ops._peak_arguments import COMPATS, REFINES
from . import _graph as g
from ._refine import Maps, gaussian_taps, limited, reflected, step

_OP = "decode_heatmaps"
LOWEST = -3.4028234663852886e38  # below every pixel: OpenVINO returns no index for rows of -inf


def decode_heatmaps(
    heatmaps: Any,
    refine: Any,
    compat: Any,
    kernel_size: Any,
    flipped: Any,
    flip_index: Any,
    flip_shift: Any,
    transform: Any,
    max_offset: Any,
    threshold: Any,
    missing: Any,
    covariance: Any,
    pixels: Any,
) -> Any:
    maps = merged(g.floating(_OP, "heatmaps", heatmaps), flipped, flip_index, flip_shift)
    sizes = g.sizes_of(g.Value(heatmaps, None))
    peak, scores, found = highest(maps, sizes, threshold)
    around = Maps(maps, sizes, *peak)
    moved, spread = step(around, REFINES[refine], COMPATS[compat], kernel_size, max_offset, covariance)
    transform = None if transform is None else g.as_float(transform)
    spread = _covariance(spread, found, transform) if covariance else g.constant([], "f")
    coords = placed(peak, moved, found, transform, missing)
    return coords.value, g.op("Identity", scores).value, spread.value, pixels_of(peak, found, pixels)


def placed(peak: Any, moved: Any, found: Any, transform: Any, missing: Any) -> Any:
    """Coordinates ``(B, P, 2)`` of peaks ``(B, P)``, transformed if an affine is given; ``missing`` without a peak."""
    coords = [g.cast(each, "f") for each in peak]
    if moved is not None:
        coords = [each + more for each, more in zip(coords, moved, strict=True)]
    if transform is not None:
        coords = g.affine(*coords, transform)
    missing = math.nan if missing is None else missing
    return g.stack([g.where(found, each, missing) for each in coords])


def pixels_of(peak: Any, found: Any, wanted: Any) -> Any:
    """The pixels of the peaks, -1 without a peak; empty if not requested."""
    return g.stack([g.where(found, each, -1) for each in peak]).value if wanted else g.constant([], "i").value


def _covariance(spread, found, transform):
    if transform is not None:
        linear = g.linear(transform, 2)
        for _ in range(2):  # A C, then (A C)^T is C A^T: A (A C)^T = A C A^T
            spread = g.reduce("Sum", g.unsqueeze(linear, -1) * g.unsqueeze(spread, -3), [-2])
            spread = g.transpose(spread, 0, 1, 3, 2)
    return g.where(g.unsqueeze(found, -1, -2), spread, float("nan"))


def merged(maps: Any, flipped: Any, flip_index: Any, flip_shift: Any, signs: Any = None) -> Any:
    """The mean of the maps and those of the mirrored images."""
    if flipped is None:
        return maps
    back = g.slices(g.gather(g.as_float(flipped), flip_index, 1), -1, -(2**62), -1, -1)
    if flip_shift:
        back = g.concat([g.slices(back, 0, 1), g.slices(back, 0, -1)])
    if signs is not None:
        back = back * signs
    return maps * 0.5 + back * 0.5


def highest(maps: Any, sizes: Any, threshold: Any) -> Any:
    """The columns and rows ``(B, K)`` of the first highest finite pixels, their values, whether those are above the
    threshold.

    The value is 0 where it is not. The place is looked for in the maxima of the rows, then in one row.
    """
    lines = _row_maxima(maps, sizes)
    y = g.arg_max(lines, keepdims=True)
    value = g.gather_elements(lines, y)
    number = g.reshape(g.arange(sizes[0] * sizes[1]), [*sizes[:2], 1])
    line = g.gather(g.reshape(maps, [-1, sizes[3]]), g.squeeze(number * sizes[2] + y, -1), 0)  # (B, K, W)
    x = g.arg_max(g.cast(line.equals(value), "f"))
    y, value = g.squeeze(y, -1), g.squeeze(value, -1)
    found = value > g.bound(threshold, LOWEST)
    return (x, y), g.where(found, value, 0.0), found


def _usable(pixels):
    return g.where(g.is_finite(pixels), pixels, LOWEST)


def _row_maxima(maps, sizes):
    """The highest finite pixel of every row, ``(B, K, H)``.

    Only maps whose sum is not finite are searched for pixels that are not: for all of them that takes ten times the
    rest. Of an ``If`` around it, or of rows of -inf, OpenVINO gives no index.
    """
    lines = g.reduce("Max", maps, [-1])
    flat = g.reshape(lines, [-1, sizes[2]])
    spoilt = g.nonzero(g.reshape(~g.is_finite(g.reduce("Sum", maps, [-2, -1])), [-1]))
    found = g.reduce("Max", _usable(g.gather(g.reshape(maps, [-1, *sizes[2:]]), spoilt, 0)), [-1])
    return g.reshape(g.op("ScatterND", flat, g.unsqueeze(spoilt, -1), found), sizes[:3])


def decode_offsets(
    heatmaps: Any,
    offsets: Any,
    kernel_size: Any,
    radius: Any,
    flipped: Any,
    flipped_offsets: Any,
    flip_index: Any,
    flip_shift: Any,
    transform: Any,
    max_offset: Any,
    threshold: Any,
    missing: Any,
    pixels: Any,
) -> Any:
    maps = g.floating(_OP, "heatmaps", heatmaps)
    batch, channels, height, width = g.sizes_of(g.Value(heatmaps, None))
    if offsets is None:
        joints = channels // 3
        split = [batch, joints, 3, height, width]
        maps = g.reshape(maps, split)
        if flipped is not None:
            signs = g.constant([[[1.0]], [[-1.0]], [[1.0]]], "f")  # class, x, y: x points the other way
            flipped = g.reshape(g.as_float(flipped), split).value
            maps = merged(maps, flipped, flip_index, flip_shift, signs)
        maps, *ways = (g.pick(maps, part, 2) for part in range(3))
    else:
        joints = channels
        maps = merged(maps, flipped, flip_index, flip_shift)
        signs = g.constant([[[-1.0]], [[1.0]]], "f")
        both = merged(g.as_float(offsets), flipped_offsets, flip_index, flip_shift, signs)
        ways = [g.pick(both, part, 2) for part in range(2)]
    sizes = [batch, joints, height, width]
    blurred = maps if kernel_size is None else _blurred(maps, sizes, gaussian_taps(2 * kernel_size + 1))
    peak, scores, found = highest(blurred, sizes, threshold)
    moved = [Maps(way, sizes, *peak).around((0, 0))[0] * radius for way in ways]
    transform = None if transform is None else g.as_float(transform)
    coords = placed(peak, limited(moved, max_offset), found, transform, missing)
    return coords.value, g.op("Identity", scores).value, pixels_of(peak, found, pixels)


def _blurred(maps, sizes, taps):
    """With borders reflected at the outermost pixels; non-finite pixels count as 0."""
    batch, joints, height, width = sizes
    radius = len(taps) // 2
    planes = g.where(g.is_finite(maps), maps, 0.0)
    planes = g.reshape(planes, [-1, 1, height, width])
    for axis, size in ((2, height), (3, width)):
        index = reflected(g.value(g.arange(size + 2 * radius), "i") - radius, size, "reflect101")
        planes = g.gather(planes, index, axis)
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        planes = g.op("Conv", planes, g.constant(taps.reshape(shape), "f"))
    return g.reshape(planes, sizes)
