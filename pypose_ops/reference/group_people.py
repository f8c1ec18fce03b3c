"""People from peaks and limb scores. In plain torch."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from ..ops._results import LocalPeaks, LocalPeaksWithPixels, People
from ._arguments import pairs


def group_people(
    peaks: LocalPeaks | LocalPeaksWithPixels,
    limb_scores: torch.Tensor,
    limbs: Sequence[tuple[int, int]],
    *,
    assignment: Literal["optimal", "greedy"] = "optimal",
    min_limb_score: float = 0.0,
    min_joints: int = 3,
    min_score: float = 0.4,
    max_people: int = 32,
    missing: float = math.nan,
) -> People:
    """Definition of :func:`pypose_ops.group_people`: Python lists, scipy's assignment."""
    table = limb_scores.detach().double().cpu().numpy()
    scores, counts = peaks.scores.detach().double().cpu().nan_to_num(0.0, 0.0, 0.0).numpy(), peaks.counts.tolist()
    images = []
    for b in range(len(scores)):
        people = []
        for number, (first, second) in enumerate(pairs(limbs).tolist()):
            here = table[b, number, : max(0, counts[b][first]), : max(0, counts[b][second])]
            for i, j, score in _connections(here, assignment, min_limb_score):
                _connect(people, first, second, i, j, score)
        images.append(_finish(people, scores[b], min_joints, min_score))
    return people_of(peaks, images, max_people, missing)


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
    """(joint -> peak, score, sum of limb scores), in the order in which they were started."""
    done = []
    for peaks, limb_sum in people:
        score = (limb_sum + sum(peak_scores[k, m] for k, m in peaks.items())) / len(peaks)
        if len(peaks) >= min_joints and score >= min_score:
            done.append((peaks, score, limb_sum))
    return done


def people_of(
    peaks: LocalPeaks, images: Sequence[Sequence[tuple[Any, Any, Any]]], max_people: int, missing: float
) -> People:
    """People from lists of (joint -> peak, score, sum of limb scores), one list per image."""
    batch, joints = peaks.coords.shape[:2]
    device, dtype = peaks.coords.device, peaks.scores.dtype
    empty = {"dtype": dtype, "device": device}
    coords = torch.full((batch, max_people, joints, 2), missing, dtype=peaks.coords.dtype, device=device)
    joint_scores = torch.zeros(batch, max_people, joints, **empty)
    scores, limb_scores = (torch.zeros(batch, max_people, **empty) for _ in range(2))
    index = torch.full((batch, max_people, joints), -1, device=device)
    order = torch.full((batch, max_people), -1, device=device)
    for b, people in enumerate(images):
        ranked = sorted(range(len(people)), key=lambda n: -people[n][1])
        for row, number in enumerate(ranked[:max_people]):
            chosen, scores[b, row], limb_scores[b, row] = people[number]
            order[b, row] = number
            for joint, peak in chosen.items():
                index[b, row, joint] = int(peak)
                coords[b, row, joint] = peaks.coords[b, joint, peak]
                joint_scores[b, row, joint] = peaks.scores[b, joint, peak]
    counts = torch.tensor([len(people) for people in images], dtype=torch.int64, device=device)
    return People(coords, joint_scores, scores, (index >= 0).sum(-1), counts, index, limb_scores, order)
