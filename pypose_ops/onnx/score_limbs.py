"""score_limbs: line integrals of part affinity fields."""

import math
from typing import Any

import numpy as np

from . import _graph as g

_OP = "score_limbs"
_OPENPOSE, _TRT_POSE = 0, 1


def score_limbs(
    pafs: Any,
    coords: Any,
    counts: Any,
    limbs: Any,
    channels: Any,
    rule: Any,
    samples: Any,
    threshold: Any,
    fraction: Any,
) -> Any:
    fields = g.floating(_OP, "pafs", pafs)
    coords = g.floating(_OP, "peaks.coords", coords)
    batch, _, height, width = g.sizes_of(g.Value(pafs, None))
    peaks = g.sizes_of(coords)[2]
    first, second = g.constant(limbs[::2], "i"), g.constant(limbs[1::2], "i")
    a = [g.unsqueeze(g.gather(g.pick(coords, axis), first, 1), -1) for axis in range(2)]  # (B, L, M, 1)
    b = [g.unsqueeze(g.gather(g.pick(coords, axis), second, 1), -2) for axis in range(2)]
    delta = [q - p for p, q in zip(a, b, strict=True)]
    length = g.sqrt(delta[0] * delta[0] + delta[1] * delta[1])
    divisor = length + 1e-5 if rule == _TRT_POSE else length
    scored = (divisor > 1e-6) & g.is_finite(divisor)
    unit = [g.where(scored, d / divisor, 0.0) for d in delta]
    most = samples or 25
    if samples:
        count = length * 0.0 + float(samples)
    else:
        count = g.floor(g.sqrt(g.maximum(g.absolute(delta[0]), g.absolute(delta[1])) * 5.0) + 0.5)
        count = g.clamp(g.where(g.is_finite(count), count, 5.0), 5.0, 25.0)
    step = 1.0 / (count if rule == _OPENPOSE else count - 1.0)
    number = g.constant(np.arange(most), "f")
    points = [g.unsqueeze(p, -1) + number * g.unsqueeze(d * step, -1) for p, d in zip(a, delta, strict=True)]
    projection, inside = _project(fields, points, unit, channels, (batch, peaks, height, width), most)
    score = _score(projection, inside, number, count, length, (height, width), rule, threshold, fraction)
    exists = g.arange(peaks) < g.unsqueeze(g.as_integer(counts), -1)  # (B, K, M)
    exists = g.unsqueeze(g.gather(exists, first, 1), -1) & g.unsqueeze(g.gather(exists, second, 1), -2)
    scored = exists & scored & g.is_finite(score)
    return g.where(scored, score, float("-inf")).value


def _score(projection, inside, number, count, length, size, rule, threshold, fraction):
    if rule == _TRT_POSE:
        return g.reduce("Sum", g.where(inside, projection, 0.0), [-1]) / count
    if rule != _OPENPOSE:
        ends = g.pick(projection, 0) + g.pick(projection, -1)
        return (g.reduce("Sum", projection, [-1]) - ends * 0.5) / (count - 1.0)
    hit = (number < g.unsqueeze(count, -1)) & (projection > threshold)
    hits = g.reduce("Sum", g.cast(hit, "f"), [-1])
    score = g.reduce("Sum", g.where(hit, projection, 0.0), [-1]) / g.maximum(hits, 1.0)
    side = g.real(size[0]) * g.real(size[1])
    short = length < (g.sqrt(side) if isinstance(side, g.Value) else math.sqrt(side)) / 150.0
    rest = g.where(short, g.constant(0.05 + 1e-6, "f"), float("-inf"))
    return g.where((hits > count * fraction) & (hits > 0.0), score, rest)


def _project(fields, points, unit, channels, sizes, most):
    """The field at the nearest pixels, projected onto the unit vectors; and whether the points are inside the map."""
    batch, peaks, height, width = sizes
    places, inside = [], True
    for point, size in zip(points, (width, height), strict=True):
        place = g.floor(point + 0.5)
        place = g.where(g.op("IsNaN", place, kind="b"), 0.0, place)
        inside = (place >= 0.0) & (place <= g.real(size - 1)) & inside
        places.append(g.cast(g.clamp(place, 0.0, g.real(size - 1)), "i"))
    pixel = places[1] * width + places[0]  # (B, L, M, M, S)
    limbs = len(channels) // 2
    flat = g.reshape(pixel, [batch, limbs, -1])
    total = None
    for i, direction in enumerate(unit):
        field = g.gather(g.op("Reshape", fields, g.constant([0, 0, -1], "i")), g.constant(channels[i::2], "i"), 1)
        values = g.reshape(g.gather_elements(field, flat), [batch, limbs, peaks, peaks, most])
        values = values * g.unsqueeze(direction, -1)
        total = values if total is None else total + values
    return total, inside
