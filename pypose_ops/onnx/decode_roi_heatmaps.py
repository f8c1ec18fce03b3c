"""decode_roi_heatmaps: every map resized to its box, one box after the other."""

from typing import Any

from . import _graph as g
from .decode_heatmaps import LOWEST

_OP, _LARGEST, _SLOPE = "decode_roi_heatmaps", 32768.0, 0.75


def decode_roi_heatmaps(heatmaps: Any, boxes: Any) -> Any:
    maps, boxes = g.floating(_OP, "heatmaps", heatmaps), g.as_float(boxes)
    batch, _, height, width = g.sizes_of(g.Value(heatmaps, None))
    low, high = g.slices(boxes, 0, 2), g.slices(boxes, 2, 4)
    extents = g.maximum(high - low, 1.0)
    fits = g.is_finite(low) & g.is_finite(high) & (extents <= _LARGEST)  # (B, 2)
    usable = g.pick(fits, 0) & g.pick(fits, 1)
    extents = g.where(g.unsqueeze(usable, -1), extents, 1.0)
    sizes = g.op("Ceil", extents)
    whole = g.cast(sizes, "i")

    def body(number, pixels, scores):
        """Appends those of one box."""
        columns, rows = (g.pick(g.gather(whole, number), axis) for axis in (0, 1))
        lines = _resized(g.gather(maps, number), 2, width, columns)
        large = g.op("Flatten", _resized(lines, 1, height, rows), axis=1)
        large = g.where(g.is_finite(large), large, LOWEST)
        place = g.arg_max(large)  # (K,)
        pixel = g.stack([place % columns, place // columns])
        return (
            g.constant(True),
            g.concat([pixels, g.unsqueeze(pixel, 0)], 0),
            g.concat([scores, g.unsqueeze(g.reduce("Max", large, [-1]), 0)], 0),
        )

    # No boxes yet: the state begins with none.
    some = g.op("Slice", maps, *(g.constant(n, "i") for n in ([0, 0, 0], [0, 1, 1], [0, 2, 3])))
    scores = g.reduce("Max", some, [-2, -1])
    pixels = g.cast(g.stack([scores, scores]), "i")
    pixels, scores = g.loop(body, [pixels, scores], times=batch)
    found = (scores > LOWEST) & g.unsqueeze(usable, -1)  # (B, K)
    at = (g.cast(pixels, "f") + 0.5) * g.unsqueeze(extents / sizes, 1) + g.unsqueeze(low, 1)
    return g.where(g.unsqueeze(found, -1), at, float("nan")).value, g.where(found, scores, 0.0).value


def _resized(maps, axis, size, count):
    """``(K, H, W)`` with ``count`` pixels instead of ``size`` along an axis."""
    at = (g.real(g.arange(count)) + 0.5) * (g.real(size) / g.real(count)) - 0.5
    below = g.minimum(g.floor(at), g.real(size - 1))
    t = at - below
    index = g.cast(below, "i")
    taps = [g.gather(maps, g.clamp(index + k, 0, size - 1), axis) for k in (-1, 0, 1, 2)]
    s = 1.0 - t
    weights = [
        t * s * s * -_SLOPE,
        t * ((t * (_SLOPE - 2.0) + (3.0 - 2.0 * _SLOPE)) * t + _SLOPE),
        t * t * s * -_SLOPE,
    ]
    if axis == 1:
        weights = [g.unsqueeze(w, -1) for w in weights]
    pixel = taps.pop(1)
    moved = [w * (p - pixel) for w, p in zip(weights, taps, strict=True)]
    return pixel + (moved[0] + moved[1] + moved[2])
