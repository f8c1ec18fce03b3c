"""oks_nms: suppression of duplicate people."""

from typing import Any

from . import _graph as g
from .oks import finite_points, similarity, usable


def oks_nms(
    keypoints: Any, scores: Any, area: Any, visible: Any, sigmas: Any, threshold: Any, soft: Any, max_people: Any
) -> Any:
    points, scores = g.floating("oks_nms", "keypoints", keypoints), g.floating("oks_nms", "scores", scores)
    area = usable(g.floating("oks_nms", "area", area))
    counted = finite_points(points)
    if visible is not None:
        counted = counted & g.as_bool(visible)
    both = g.unsqueeze(counted, 1) & g.unsqueeze(counted, 2)
    offsets = [g.unsqueeze(g.pick(points, axis), 1) - g.unsqueeze(g.pick(points, axis), 2) for axis in range(2)]
    mean = (g.unsqueeze(area, 1) + g.unsqueeze(area, 2)) * 0.5
    values = g.where(both, similarity(*offsets, g.unsqueeze(mean, -1), sigmas), 0.0)
    values = g.reduce("Sum", values, [-1]) / g.maximum(g.reduce("Sum", g.cast(both, "f"), [-1]), 1.0)  # (B, N, N)
    number = g.unsqueeze(g.arange(g.sizes_of(g.Value(keypoints, None))[1]), 0)

    def left_over(left):
        return g.some(left)

    def body(_, left, kept, current):
        best = g.arg_max(g.where(left, current, float("-inf")), -1, keepdims=True)
        chosen = number.equals(best) & left
        # One row of the table: that of the selected person, or none if no people are left.
        row = g.reduce("Sum", g.where(g.unsqueeze(chosen, -1), values, 0.0), [1])
        left = left & ~chosen
        if soft:
            current = g.where(left, current * g.exp(row * row * (-1.0 / threshold)), current)
        else:
            left = left & (row <= threshold)
        return left_over(left), left, kept | chosen, current

    finite = g.is_finite(scores)
    none = finite & ~finite
    times = g.Value(max_people, "i") if isinstance(max_people, g.ir.Value) else g.constant(max_people, "i")
    _, kept, current = g.loop(body, [finite, none, scores], times=times, condition=left_over(finite))
    return kept.value, current.value
