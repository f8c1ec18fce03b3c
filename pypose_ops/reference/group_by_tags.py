"""People from peaks and associative embeddings. In plain torch."""

import math
from collections.abc import Sequence

import torch

from ..ops._results import LocalPeaks, LocalPeaksWithPixels, People
from .group_people import people_of


def group_by_tags(
    peaks: LocalPeaks | LocalPeaksWithPixels,
    tags: torch.Tensor,
    *,
    min_score: float = 0.1,
    max_distance: float = 1.0,
    joint_order: Sequence[int] | None = None,
    max_people: int = 30,
    missing: float = math.nan,
) -> People:
    """Definition of :func:`pypose_ops.group_by_tags`: Python lists, scipy's assignment."""
    maps = (tags.unsqueeze(2) if tags.dim() == 4 else tags).detach().double().cpu().numpy()
    coords = peaks.coords.detach().double().cpu().tolist()
    scores, counts = peaks.scores.detach().double().cpu().numpy(), peaks.counts.tolist()
    joints = scores.shape[1]
    images = []
    for b in range(len(scores)):
        people = []  # [joint -> peak, tags]
        for k in range(joints) if joint_order is None else joint_order:
            places = range(max(0, min(counts[b][k], scores.shape[2])))
            here = [m for m in places if scores[b, k, m] > min_score and math.isfinite(scores[b, k, m])]
            values = {m: _tag(maps[b, k], *coords[b][k][m]) for m in here}
            _assign_by_tags(people, k, here, scores[b, k], values, max_distance)
        images.append([(p, sum(scores[b, k, m] for k, m in p.items()) / joints, 0.0) for p, _ in people])
    return people_of(peaks, images, max_people, missing)


def _tag(maps, x, y):
    """The tag ``(T,)`` at the pixel nearest to a place; coordinates that are not finite are those of the border."""
    height, width = maps.shape[-2:]
    return maps[:, _nearest(y, height), _nearest(x, width)]


def _nearest(value, size):
    if math.isnan(value):
        return 0
    return math.floor(min(max(value + 0.5, 0), size - 1))


def _assign_by_tags(people, joint, candidates, scores, tags, max_distance):
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    cost = np.full((len(candidates), max(len(candidates), len(people))), 1e7)
    distance = cost.copy()
    for r, m in enumerate(candidates):
        for c, (_, own) in enumerate(people):
            value = np.linalg.norm(tags[m] - np.mean(own, axis=0))
            if value < 1e4:
                distance[r, c], cost[r, c] = value, np.round(value) * 100 - scores[m] + value**2 / 1000
    for r, c in zip(*linear_sum_assignment(cost), strict=True):
        if distance[r, c] < max_distance:
            people[c][0][joint] = candidates[r]
            people[c][1].append(tags[candidates[r]])
        else:
            people.append(({joint: candidates[r]}, [tags[candidates[r]]]))
