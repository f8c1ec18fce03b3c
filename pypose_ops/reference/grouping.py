"""From joints to people, in plain torch; assignments by scipy."""

import math

import torch

from .. import grouping as op
from .._arguments import choice


def score_limbs(pafs, peaks, limbs, *, samples=10, rule="openpose", channels=None, threshold=0.05, fraction=0.95):
    """Definition of :func:`pypose_ops.score_limbs`: all samples of all pairs in memory at once."""
    limbs = torch.tensor(op.flat_limbs("score_limbs", "limbs", limbs), device=pafs.device).view(-1, 2).long()
    channels = torch.arange(limbs.numel()) if channels is None else torch.tensor(channels)
    channels = channels.to(pafs.device).view(-1, 2).long()
    choice("score_limbs", "rule", rule, op._RULES)
    acc = torch.float64 if pafs.dtype == torch.float64 else torch.float32
    coords = peaks.coords.to(acc)
    a, b = coords[:, limbs[:, 0], :, None], coords[:, limbs[:, 1], None]  # (B, L, M, 1, 2), (B, L, 1, M, 2)
    delta = b - a
    length = delta.norm(dim=-1)
    divisor = length + 1e-5 if rule == "trt_pose" else length
    scored = (divisor > 1e-6) & divisor.isfinite()
    unit = torch.where(scored[..., None], delta / divisor[..., None], 0.0)
    if samples is None:
        count = torch.floor(torch.sqrt(5 * delta.abs().amax(-1)) + 0.5).nan_to_num(5.0).clamp(5, 25)
    else:
        count = torch.full_like(length, samples)
    step = 1 / (count if rule == "openpose" else count - 1)
    number = torch.arange(25 if samples is None else samples, device=pafs.device)  # (S,)
    # (B, L, M, M, S, 2), in the order of operations of the kernels: pixels are rounded from it.
    points = a[..., None, :] + number[:, None].to(acc) * (delta * step[..., None])[..., None, :]
    used = number < count[..., None]
    projection, inside = _project(pafs.to(acc), points, unit, channels)
    if rule == "openpose":
        hit = used & (projection > threshold)
        hits = hit.sum(-1)
        score = projection.where(hit, 0.0).sum(-1) / hits
        short = length < math.sqrt(pafs.shape[-1] * pafs.shape[-2]) / 150
        rest = torch.full_like(length, -math.inf).masked_fill(short, 0.05 + 1e-6)
        score = torch.where((hits > fraction * count) & (hits > 0), score, rest)
    elif rule == "trt_pose":
        score = projection.where(inside, 0.0).sum(-1) / count
    else:
        score = (projection.sum(-1) - (projection[..., 0] + projection[..., -1]) / 2) / (count - 1)
    index = torch.arange(coords.shape[2], device=pafs.device)
    exists = index < peaks.counts[..., None]
    exists = exists[:, limbs[:, 0], :, None] & exists[:, limbs[:, 1], None]
    return score.where(exists & scored & (score > -math.inf), -math.inf)


def _project(pafs, points, unit, channels):
    """The field at the nearest pixels, projected on the unit vectors; and whether the points are in the map."""
    height, width = pafs.shape[-2:]
    x, y = torch.floor(points + 0.5).nan_to_num(0.0, 2.0**30, -(2.0**30)).unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    pixel = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
    fields = [pafs.flatten(2)[:, channels[:, i]] for i in (0, 1)]
    values = [field.gather(2, pixel.flatten(2)).view(pixel.shape) for field in fields]
    return values[0] * unit[..., None, 0] + values[1] * unit[..., None, 1], inside


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
    choice("group_people", "assignment", assignment, op._ASSIGNMENTS)
    flat = op.flat_limbs("group_people", "limbs", limbs)
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
    return op.gather_people(peaks, index, scores, (index >= 0).sum(-1), counts)


def group_by_tags(peaks, tags, *, min_score=0.1, max_distance=1.0, joint_order=None, max_people=30):
    """Definition of :func:`pypose_ops.group_by_tags`: Python lists, scipy's assignment."""
    values = op.peak_tags(peaks, tags).double().cpu().numpy()
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
