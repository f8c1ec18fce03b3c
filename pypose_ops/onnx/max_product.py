"""max_product: the best pose of a tree of joints, and every joint's max-marginals."""

from typing import Any

from . import _graph as g
from ._trees import Tree


def max_product(unary: Any, edges: Any, deformation: Any, root: Any, keep_steps: Any) -> Any:
    steps = {}

    def best(values, key):
        steps[key] = g.arg_max(values)  # the first of equals
        return g.reduce("Max", values, [-1])

    tree = Tree("max_product", unary, edges, deformation, best)
    batch, joints, height, width = tree.sizes
    maps = g.stack([tree.belief(k) for k in range(joints)], 1)
    maps = g.where(g.is_finite(maps), maps, float("-inf"))
    flat = [batch, -1]
    at_root = g.reshape(g.pick(maps, root, 1), flat)
    places, pending = {root: g.arg_max(at_root, -1, keepdims=True)}, [root]  # (B, 1)
    for joint in pending:
        for child in tree.neighbours(joint):
            if child not in places:
                x, y = places[joint] % width, places[joint] // width
                row = g.gather_elements(g.reshape(steps[child, joint, 1], flat), x * height + y)
                column = g.gather_elements(g.reshape(steps[child, joint, 0], flat), row * width + x)
                places[child] = row * width + column
                pending.append(child)
    highest = g.reduce("Max", g.reshape(g.pick(maps, 0, 1), flat), [-1], keepdims=True)
    found = highest > float("-inf")
    place = g.concat([places[k] for k in range(joints)])
    values = [g.gather_elements(g.reshape(u, flat), places[k]) for k, u in enumerate(tree.unary)]
    scores = g.where(found, g.concat(values), 0.0)
    coords = g.stack([g.cast(place % width, "f"), g.cast(place // width, "f")])
    coords = g.where(g.unsqueeze(found, -1), coords, float("nan"))
    return maps.value, coords.value, scores.value, g.constant([], "i").value  # the steps are for the gradient
