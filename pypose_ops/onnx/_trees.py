"""Messages along the edges of a tree of joints with quadratic springs."""

import numpy as np

from . import _graph as g

_TINY, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


class Tree:
    """The messages of a tree. ``reduce(values, key)`` is over the last axis, the sources."""

    def __init__(self, op, unary, edges, deformation, reduce):
        maps = g.floating(op, "unary", unary)
        self.sizes = g.sizes_of(g.Value(unary, None))
        self.edges = list(zip(edges[::2], edges[1::2], strict=True))
        maps = g.where(g.is_finite(maps), maps, float("-inf"))
        self.unary = [g.pick(maps, k, 1) for k in range(g.static(op, "K", self.sizes[1]))]
        springs = g.as_float(deformation)
        mean, weight = g.slices(springs, 0, 2), g.slices(springs, 2, 4)
        usable = g.is_finite(mean) & (weight >= _TINY) & g.is_finite(weight)
        self.mean, self.weight = (g.where(usable, t, 0.0) for t in (mean, weight))
        self.reduce, self.known = reduce, {}

    def neighbours(self, joint):
        return [a if b == joint else b for a, b in self.edges if joint in (a, b)]

    def belief(self, joint, without=None):
        out = self.unary[joint]
        for other in self.neighbours(joint):
            if other != without:
                out = out + self.message(other, joint)
        # Two infinities of different signs would be NaN.
        return g.minimum(g.where(g.op("IsNaN", out, kind="b"), float("-inf"), out), _LARGEST)

    def message(self, source, target):
        if (source, target) not in self.known:
            edge = next(e for e, pair in enumerate(self.edges) if set(pair) == {source, target})
            sign = 1.0 if self.edges[edge][1] == source else -1.0
            values = self.belief(source, without=target)
            for axis in (0, 1):
                cost = self.cost(edge, sign, axis)
                values = self.reduce(g.unsqueeze(values, -2) - cost, (source, target, axis))
                values = g.transpose(values, 0, 2, 1)
            self.known[source, target] = values
        return self.known[source, target]

    def cost(self, edge, sign, axis):
        """``(targets, sources)``."""
        n = g.real(g.arange(self.sizes[3 - axis]))
        mean, weight = (g.pick(g.pick(t, edge, 0), axis) for t in (self.mean, self.weight))
        away = g.unsqueeze(n, 0) - g.unsqueeze(n, 1) - mean * sign
        return weight * (away * away)
