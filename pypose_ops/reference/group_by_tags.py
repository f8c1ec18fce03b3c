"""People from peaks and associative embeddings. In plain torch."""

import math

from ..ops.group_by_tags import peak_tags
from .group_people import _people


def group_by_tags(peaks, tags, *, min_score=0.1, max_distance=1.0, joint_order=None, max_people=30):
    """Definition of :func:`pypose_ops.group_by_tags`: Python lists, scipy's assignment."""
    values = peak_tags(peaks, tags).double().cpu().numpy()
    scores, counts = peaks.scores.detach().double().cpu().numpy(), peaks.counts.tolist()
    joints = scores.shape[1]
    pictures = []
    for b in range(len(scores)):
        people = []  # [joint -> peak, tags]
        for k in range(joints) if joint_order is None else joint_order:
            places = range(max(0, min(counts[b][k], scores.shape[2])))
            here = [m for m in places if scores[b, k, m] > min_score and math.isfinite(scores[b, k, m])]
            _assign_by_tags(people, k, here, scores[b, k], values[b, k], max_distance)
        done = [(p, sum(scores[b, k, m] for k, m in p.items()) / joints) for p, _ in people]
        pictures.append(sorted(done, key=lambda person: -person[1]))
    return _people(peaks, pictures, max_people)


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
