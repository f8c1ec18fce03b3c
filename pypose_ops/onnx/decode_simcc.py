"""decode_simcc: coordinates from SimCC's vectors."""

from typing import Any

import numpy as np

from . import _graph as g
from ._refine import gaussian_taps, limited
from .decode_heatmaps import LOWEST, placed

_OP = "decode_simcc"
_EPSILON = 2.0**-23


def decode_simcc(
    x: Any,
    y: Any,
    split_ratio: Any,
    dark: Any,
    compat: Any,
    kernel_x: Any,
    kernel_y: Any,
    max_offset: Any,
    transform: Any,
    threshold: Any,
    missing: Any,
) -> Any:
    peaks, steps, scores, both = [], [], [], []
    for name, rows, size in (("x", x, kernel_x), ("y", y, kernel_y)):
        bins = g.sizes_of(g.Value(rows, None))[-1]
        peak, step, score, found = _axis(
            g.floating(_OP, name, rows), bins, size or 1, dark, compat, threshold
        )  # 0: no blur
        peaks.append(g.cast(peak, "f") / split_ratio)
        steps.append(step / split_ratio)
        scores.append(score)
        both.append(found)
    found = both[0] & both[1]
    score = g.where(found, g.minimum(*scores), 0.0)
    transform = None if transform is None else g.as_float(transform)
    coords = placed(peaks, limited(steps, max_offset), found, transform, missing)
    return coords.value, g.op("Identity", score).value


def _axis(rows, bins, kernel_size, dark, compat, threshold):
    usable = g.where(g.is_finite(rows), rows, LOWEST)
    highest, peak = g.reduce("Max", usable, [-1]), g.arg_max(usable)
    found = highest > g.bound(threshold, LOWEST)
    score = g.where(found, highest, 0.0)
    nothing = score * 0.0
    if not dark or (not compat and not isinstance(bins, g.Value) and bins < 5):
        return peak, nothing, score, found
    h, center = (_logs_of_mmpose if compat else _logs_inside)(rows, peak, score, bins, kernel_size)
    h = [g.pick(h, i) for i in range(5)]
    slope = (h[3] - h[1]) * 0.5
    curvature = (h[4] - h[2] * 2.0 + h[0]) * 0.25
    if compat:
        curvature = curvature + 1e-9
    step = g.cast(center - peak, "f") - slope / curvature
    valid = g.is_finite(step)
    if not compat:
        valid = valid & (curvature < -((g.absolute(h[2]) + 1.0) * (64 * _EPSILON)))
        if isinstance(bins, g.Value):
            valid = valid & (bins >= 5)
    return peak, g.where(valid, step, 0.0), score, found


def _distance(radius):
    """Offsets of the pixels of a window from each of the five outputs: ``(5, n)``."""
    return np.arange(-radius - 2, radius + 3) - np.arange(-2, 3)[:, None]


def _blurred(rows, index, weights):
    """``(B, K, 5)``; NaN if a bin with non-zero weight is not finite."""
    values = g.unsqueeze(g.gather_elements(rows, index), -2)
    blurred = g.reduce("Sum", g.where(weights > 0.0, values, 0.0) * weights, [-1])
    return g.where(g.is_finite(blurred), blurred, float("nan"))


def _logs_inside(rows, peak, score, bins, kernel_size):
    """At the centre closest to the peak whose differences stay in the row; the blur is narrowed until it does, too."""
    radius = kernel_size // 2
    distance = _distance(radius)
    taps = gaussian_taps(kernel_size)[(distance + radius).clip(0, kernel_size - 1)]
    table = g.constant(np.stack([np.where(np.abs(distance) <= room, taps, 0) for room in range(radius + 1)]), "f")
    center = g.minimum(g.maximum(peak, 2), bins - 3)
    room = g.clamp(g.minimum(center - 2, (bins - 3) - center), 0, radius)
    away = g.constant(np.arange(-radius - 2, radius + 3), "i")
    index = g.clamp(g.unsqueeze(center, -1) + away, 0, bins - 1)
    blurred = _blurred(rows, index, g.gather(table, room, 0))
    return _log(blurred, 1e-10), center


def _logs_of_mmpose(rows, peak, score, bins, kernel_size):
    """Blurred with zero padding and scaled back to the height of the peak; the ends are repeated."""
    radius = kernel_size // 2
    distance = _distance(radius)
    taps = gaussian_taps(kernel_size)[(distance + radius).clip(0, kernel_size - 1)]
    table = g.constant(np.where(np.abs(distance) <= radius, taps, 0), "f")
    away = g.constant(np.arange(-radius - 2, radius + 3), "i")
    index = g.unsqueeze(peak, -1) + away
    inside = g.unsqueeze((index >= 0) & (index <= bins - 1), -2)
    blurred = _blurred(rows, g.clamp(index, 0, bins - 1), g.where(inside, table, 0.0))
    around = g.unsqueeze(peak, -1) + g.constant(np.arange(-2, 3), "i")
    blurred = g.gather_elements(blurred, g.clamp(around, 0, bins - 1) - g.unsqueeze(peak, -1) + 2)
    top = g.reduce("Max", g.where(g.is_finite(blurred), blurred, 0.0), [-1], keepdims=True)
    return _log(blurred * (g.unsqueeze(score, -1) / g.maximum(top, 0.0)), 1e-3, 50.0), peak


def _log(blurred, low, high=None):
    known = ~g.op("IsNaN", blurred, kind="b")
    clamped = g.maximum(g.where(known, blurred, 1.0), low)
    return g.where(known, g.log(clamped if high is None else g.minimum(clamped, high)), float("nan"))
