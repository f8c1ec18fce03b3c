"""box_vote: windows vote for joints."""

from typing import Any

from . import _graph as g


def box_vote(boxes: Any, weights: Any, height: Any, width: Any) -> Any:
    single = len(weights.shape) == 2
    height, width = (g.Value(n, "i") if isinstance(n, g.ir.Value) else n for n in (height, width))
    corners = [g.unsqueeze(g.pick(g.floating("box_vote", "boxes", boxes), i), -1) for i in range(4)]  # (..., P, 1)
    dtype = weights.dtype
    weights = g.floating("box_vote", "weights", weights)
    counted = g.where(g.is_finite(weights), weights, 0.0)
    x, y = g.real(g.arange(width)), g.real(g.arange(height))
    columns = g.cast((corners[0] <= x) & (corners[2] >= x), "f")  # (..., P, W)
    rows = g.cast((corners[1] <= y) & (corners[3] >= y), "f")
    rows = g.unsqueeze(g.transpose(counted, *((1, 0) if single else (0, 2, 1))), -1) * g.unsqueeze(rows, -3)
    maps = g.matmul(g.transpose(rows, *((0, 2, 1) if single else (0, 1, 3, 2))), g.unsqueeze(columns, -3))
    return g.written_as(maps, dtype)
