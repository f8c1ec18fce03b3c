"""sum_product: every joint's marginals on a tree."""

from typing import Any

from . import _graph as g
from ._trees import Tree


def _log_sum(values, key=None, axes=(-1,)):
    highest = g.reduce("Max", values, axes, keepdims=True)
    highest = g.where(g.is_finite(highest), highest, 0.0)
    total = g.reduce("Sum", g.exp(values - highest), axes)
    log = g.squeeze(highest, *axes) + g.log(g.where(total > 0.0, total, 1.0))
    return g.where(total > 0.0, log, float("-inf"))


def sum_product(unary: Any, edges: Any, deformation: Any, root: Any, keep_messages: Any) -> Any:
    tree = Tree("sum_product", unary, edges, deformation, _log_sum)
    beliefs = g.stack([tree.belief(k) for k in range(tree.sizes[1])], 1)
    total = _log_sum(beliefs, axes=(-2, -1))
    safe = g.unsqueeze(g.where(g.is_finite(total), total, 0.0), -1, -2)
    maps = g.where(g.is_finite(beliefs), beliefs - safe, float("-inf"))
    return maps.value, g.pick(total, root, 1).value, g.constant([], "f").value  # the messages are for the gradient
