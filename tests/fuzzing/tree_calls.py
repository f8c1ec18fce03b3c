"""Calls of the exact inference on trees of joints."""

import numpy as np
import torch

from .calls import Call, operator
from .draws import COORDINATE_DTYPES, MAP_DTYPES, NOT_FINITE


def tree_of(draw, joints):
    """A random tree, its edges in any order and direction."""
    edges = [(draw.integer(0, k - 1), k) for k in range(1, joints)]
    edges = [edge if draw.chance(0.5) else edge[::-1] for edge in edges]
    names = draw.random.permutation(joints)
    return [(int(names[a]), int(names[b])) for a, b in (edges[int(i)] for i in draw.random.permutation(len(edges)))]


def tree_call(draw, name):
    dtype = draw.pick(MAP_DTYPES)
    joints, size = draw.integer(1, 5), draw.size(9)
    edges = tree_of(draw, joints)
    # Continuous scores: of two poses that are equally good but for rounding either is right.
    unary = draw.spoil(draw.random.normal(size=(draw.count(3), joints, *size)), kinds=NOT_FINITE)
    mean = 1.5 * draw.random.normal(size=(len(edges), 2))
    weight = draw.pick((0.3, 0.3, 40.0, 1e-3)) * (0.5 + draw.random.random((len(edges), 2)))
    springs = draw.spoil(np.concatenate([mean, weight], -1), kinds=(*NOT_FINITE, -1.0, 0.0, 1e3))
    arguments = {
        "unary": draw.tensor(unary, dtype),
        "edges": edges,
        "deformation": draw.tensor(springs, draw.pick(COORDINATE_DTYPES)),
        "root": draw.integer(0, joints - 1),
    }
    grad = () if draw.strange else tuple(n for n in ("unary", "deformation") if draw.chance(0.3))
    # A score is a difference of costs and has their rounding: a weight of 1e3 and a mean 1e3 pixels away cost 1e9.
    finite = np.where(np.isfinite(springs), np.abs(springs), 0.0)
    cost = float((finite[:, 2:] * (finite[:, :2] + max(size)) ** 2).max(initial=0.0)) * max(joints - 1, 1)
    lost = 8 * cost * (2.0**-53 if dtype == torch.float64 else 2.0**-24)
    return Call(name, arguments, grad, dtype, {"unary": 0.0, "deformation": 0.0}, lost=lost)


@operator("max_product", whole="all")
def max_product(draw):
    return tree_call(draw, "max_product")


@operator("sum_product")
def sum_product(draw):
    return tree_call(draw, "sum_product")
