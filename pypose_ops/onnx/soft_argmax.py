"""soft_argmax: the mean of a map's softmax."""

import math
from typing import Any

from . import _graph as g

_OP = "soft_argmax"


def soft_argmax(heatmaps: Any, temperature: Any, window: Any, missing: Any) -> Any:
    maps = g.floating(_OP, "heatmaps", heatmaps)
    window = g.static(_OP, "window", window)
    _, _, height, width = g.sizes_of(g.Value(heatmaps, None))
    counted = g.is_finite(maps)
    values = g.where(counted, maps, float("-inf"))
    highest = g.reduce("Max", values, [-2, -1], keepdims=True)
    columns, rows = g.arange(width), g.arange(height)
    if window:
        y = g.arg_max(g.reduce("Max", values, [-1]), -1, keepdims=True)
        on_row = g.unsqueeze(g.unsqueeze(rows, 0, 1).equals(y), -1)
        line = g.reduce("Max", g.where(on_row, values, float("-inf")), [-2])
        x = g.arg_max(line, -1, keepdims=True)
        near_x = _near(columns, x, window // 2)
        near_y = _near(rows, y, window // 2)
        counted = counted & g.unsqueeze(near_x, -2) & g.unsqueeze(near_y, -1)
    exponent = (values - highest) * min(temperature, 2.0**127)
    weights = g.where(counted, g.exp(g.where(counted, exponent, 0.0)), 0.0)
    coords, variance = [], []
    for axis, line in ((-2, columns), (-1, rows)):
        share, place = g.reduce("Sum", weights, [axis]), g.real(line)
        total = g.reduce("Sum", share, [-1])
        found = total > 0.5  # the highest pixel alone has weight 1
        total = g.where(found, total, 1.0)
        # Multiplied and summed: with matrix products, some runtimes would round the coordinates.
        mean = g.reduce("Sum", share * place, [-1]) / total
        away = place - g.unsqueeze(mean, -1)
        coords.append(g.where(found, mean, math.nan if missing is None else missing))
        variance.append(g.reduce("Sum", share * away * away, [-1]) / total)
    unused = g.constant([], "f"), g.constant([], "i")  # only needed for the gradient
    return g.stack(coords).value, g.stack(variance).value, *(v.value for v in unused)


def _near(line, peak, reach):
    away = g.unsqueeze(line, 0, 1) - peak
    return (away <= reach) & (away >= -reach)
