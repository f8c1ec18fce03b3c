"""oks: how alike two poses are."""

import sys
from typing import Any

import numpy as np

from . import _graph as g

_EPSILON = sys.float_info.epsilon  # MATLAB's and COCO's eps


def finite_points(points: Any) -> Any:
    finite = g.is_finite(points)
    return g.pick(finite, 0) & g.pick(finite, 1)


def similarity(dx: Any, dy: Any, area: Any, sigmas: Any) -> Any:
    """exp(-d^2 / (2 (2 sigma)^2 (area + eps))) of offsets (..., K); 0 where they are not finite."""
    finite = g.is_finite(dx) & g.is_finite(dy)
    dx, dy = g.where(finite, dx, 0.0), g.where(finite, dy, 0.0)
    scale = g.constant(8 * np.asarray(sigmas, np.float64) ** 2, "f")
    return g.where(finite, g.exp(-((dx * dx + dy * dy) / (scale * (area + _EPSILON)))), 0.0)


def usable(area: Any) -> Any:
    return g.where(area > 0.0, area, 0.0)


def oks(pred: Any, target: Any, area: Any, visible: Any, boxes: Any, sigmas: Any) -> Any:
    pred, target = g.floating("oks", "pred", pred), g.floating("oks", "target", target)
    area = usable(g.floating("oks", "area", area))
    counted = finite_points(target)
    if visible is not None:
        counted = counted & g.as_bool(visible)
    low = [g.where(counted, g.pick(target, axis), 0.0) for axis in range(2)]
    high = low
    if boxes is not None:
        nobody = ~g.some(counted, [-1], keepdims=True)
        boxes = g.floating("oks", "boxes", boxes)
        corners = [g.unsqueeze(g.pick(boxes, i), -1) for i in range(4)]
        high = [g.where(nobody, b * 2.0 - a, v) for a, b, v in zip(corners[:2], corners[2:], high, strict=True)]
        low = [g.where(nobody, a * 2.0 - b, v) for a, b, v in zip(corners[:2], corners[2:], low, strict=True)]
        counted = counted | nobody
    counted = g.unsqueeze(counted, 1)
    offsets, known = [], True
    for axis in range(2):
        point = g.unsqueeze(g.pick(pred, axis), 2)  # (B, D, 1, K)
        first, last = g.unsqueeze(low[axis], 1), g.unsqueeze(high[axis], 1)  # (B, 1, G, K)
        offsets.append(point - g.where(point < first, first, g.where(point > last, last, point)))
        known = ~(g.op("IsNaN", first + last, kind="b")) & known
    value = similarity(*offsets, g.unsqueeze(area, 1, -1), sigmas)
    total = g.reduce("Sum", g.where(counted & known, value, 0.0), [-1])
    return (total / g.maximum(g.reduce("Sum", g.cast(counted, "f"), [-1]), 1.0)).value
