"""People from peaks and limb scores. In plain torch."""

import torch

from ..ops._arguments import choice
from ..ops.group_people import _ASSIGNMENTS, gather_people
from ..ops.score_limbs import flat_limbs


def group_people(
    peaks,
    limb_scores,
    limbs,
    *,
    assignment="optimal",
    min_limb_score=0.0,
    min_joints=3,
    min_score=0.4,
    max_people=32,
):
    """Definition of :func:`pypose_ops.group_people`: Python lists, scipy's assignment."""
    choice("group_people", "assignment", assignment, _ASSIGNMENTS)
    flat = flat_limbs("group_people", "limbs", limbs)
    limbs = list(zip(flat[::2], flat[1::2], strict=True))
    table = limb_scores.detach().double().cpu().numpy()
    scores, counts = peaks.scores.detach().double().cpu().nan_to_num(0.0, 0.0, 0.0).numpy(), peaks.counts.tolist()
    pictures = []
    for b in range(len(scores)):
        people = []
        for number, (first, second) in enumerate(limbs):
            here = table[b, number, : max(0, counts[b][first]), : max(0, counts[b][second])]
            for i, j, score in _connections(here, assignment, min_limb_score):
                _connect(people, first, second, i, j, score)
        pictures.append(_finish(people, scores[b], min_joints, min_score))
    return _people(peaks, pictures, max_people)


def _connections(table, assignment, lowest):
    """(row, column, score), best first."""
    import numpy as np  # here: they would double the time that importing pypose_ops takes
    from scipy.optimize import linear_sum_assignment

    usable = np.isfinite(table) & (table > lowest)
    profit = np.where(usable, table, 0.0)
    if assignment == "optimal":
        rows, columns = linear_sum_assignment(profit, maximize=True)
        chosen = [(i, j) for i, j in zip(rows, columns, strict=True) if usable[i, j]]
    else:
        chosen = []
        for i, j in sorted(zip(*np.nonzero(usable), strict=True), key=lambda ij: (-table[ij], ij)):
            if all(i != row and j != column for row, column in chosen):
                chosen.append((i, j))
    return [(i, j, table[i, j]) for i, j in sorted(chosen, key=lambda ij: (-table[ij], ij))]


def _connect(people, a, b, i, j, score):
    """people: [joint -> peak, sum of limb scores]."""
    first = next((p for p in people if p[0].get(a) == i), None)
    second = next((p for p in people if p[0].get(b) == j), None)
    if first is None and second is None:
        people.append([{a: i, b: j}, score])
    elif first is second:
        first[1] += score
    elif second is None:
        if b not in first[0]:
            first[0][b] = j
            first[1] += score
    elif first is None:
        if a not in second[0]:
            second[0][a] = i
            second[1] += score
    elif not first[0].keys() & second[0].keys():
        first[0].update(second[0])
        first[1] += second[1] + score
        people.remove(second)


def _finish(people, peak_scores, min_joints, min_score):
    """(joint -> peak, score), best first."""
    done = []
    for peaks, limb_sum in people:
        score = (limb_sum + sum(peak_scores[k, m] for k, m in peaks.items())) / len(peaks)
        if len(peaks) >= min_joints and score >= min_score:
            done.append((peaks, score))
    return sorted(done, key=lambda person: -person[1])


def _people(peaks, pictures, max_people):
    """The tensors of People from the lists of every picture."""
    batch, joints = peaks.coords.shape[:2]
    index = torch.full((batch, max_people, joints), -1)
    scores = torch.zeros(batch, max_people, dtype=torch.float64)
    for b, people in enumerate(pictures):
        for p, (chosen, score) in enumerate(people[:max_people]):
            scores[b, p] = score
            for joint, peak in chosen.items():
                index[b, p, joint] = int(peak)
    counts = torch.tensor([min(len(people), max_people) for people in pictures], dtype=torch.int64)
    return gather_people(peaks, index, scores, (index >= 0).sum(-1), counts)
