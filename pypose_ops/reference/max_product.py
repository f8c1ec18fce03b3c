"""The best pose of a tree of joints with quadratic springs, exactly. In plain torch."""

from collections.abc import Sequence

import torch

from ..ops._results import BestPose, Peaks


class _Tree:
    """The messages of a tree. ``reduce(values, key)`` is over the last axis, the sources."""

    def __init__(self, unary, edges, deformation, reduce):
        acc = torch.float64 if unary.dtype == torch.float64 else torch.float32
        self.edges = edges.tolist() if hasattr(edges, "tolist") else edges
        unary = unary.to(acc)
        self.unary = torch.where(unary.isfinite(), unary, -torch.inf)
        mean, weight = deformation.to(acc).split(2, dim=1)
        usable = mean.isfinite() & (weight >= torch.finfo(acc).tiny) & weight.isfinite()
        self.mean, self.weight = (torch.where(usable, t, 0.0) for t in (mean, weight))
        self.reduce, self.known = reduce, {}

    def neighbours(self, joint):
        return [a if b == joint else b for a, b in self.edges if joint in (a, b)]

    def belief(self, joint, without=None):
        out = self.unary[:, joint]
        for other in self.neighbours(joint):
            if other != without:
                out = out + self.message(other, joint)
        # Two infinities of different signs would be NaN.
        return out.nan_to_num(-torch.inf, torch.finfo(out.dtype).max, -torch.inf)

    def message(self, source, target):
        if (source, target) not in self.known:
            edge = next(e for e, pair in enumerate(self.edges) if set(pair) == {source, target})
            sign = 1 if self.edges[edge][1] == source else -1
            values = self.belief(source, without=target)
            for axis in (0, 1):
                values = self.reduce(values.unsqueeze(-2) - self.cost(values, edge, sign, axis), (source, target, axis))
                values = values.transpose(-1, -2)
            self.known[source, target] = values
        return self.known[source, target]

    def cost(self, values, edge, sign, axis):
        """(targets, sources)."""
        n = torch.arange(values.shape[-1], dtype=values.dtype, device=values.device)
        return self.weight[edge, axis] * (n - n[:, None] - sign * self.mean[edge, axis]) ** 2


def max_product(
    unary: torch.Tensor, edges: Sequence[tuple[int, int]] | torch.Tensor, deformation: torch.Tensor, *, root: int = 0
) -> BestPose:
    """Definition of :func:`pypose_ops.max_product`."""
    steps = {}

    def best(values, key):
        steps[key] = values.argmax(-1, keepdim=True)  # the first of equals
        return values.gather(-1, steps[key]).squeeze(-1)

    tree = _Tree(unary, edges, deformation, best)
    joints, height, width = unary.shape[1:]
    maps = torch.stack([tree.belief(k) for k in range(joints)], 1)
    # What is impossible has no gradient.
    maps = torch.where(maps.isfinite(), maps, -torch.inf)
    image = torch.arange(unary.shape[0], device=unary.device)
    places = {root: maps[:, root].flatten(1).argmax(1)}
    pending = [root]
    for joint in pending:
        for child in tree.neighbours(joint):
            if child not in places:
                y, x = places[joint] // width, places[joint] % width
                row = steps[child, joint, 1][image, x, y, 0]
                places[child] = row * width + steps[child, joint, 0][image, row, x, 0]
                pending.append(child)
    place = torch.stack([places[k] for k in range(joints)], 1)
    found = maps[:, :1].flatten(1).amax(1, keepdim=True) > -torch.inf
    coords = torch.where(found[..., None], torch.stack([place % width, place // width], -1).to(maps.dtype), torch.nan)
    scores = tree.unary.flatten(2).gather(2, place[..., None]).squeeze(2)
    return BestPose(Peaks(coords, torch.where(found, scores, 0.0)), maps)
