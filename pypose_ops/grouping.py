"""From joints to people: part affinity fields, associative embedding."""

import operator
from typing import NamedTuple

import torch

from ._arguments import check_tensor, choice
from ._autograd import call

_ops = torch.ops.pypose_ops

# In the order of the enumerations in csrc/grouping.
_RULES = ("openpose", "trt_pose", "trapezoid")
_ASSIGNMENTS = ("optimal", "greedy")


class People(NamedTuple):
    """Up to P people a picture, best first; what is not filled is coordinate -1 and score 0.

    Attributes:
        coords: (B, P, K, 2), ``(x, y)`` as in the peaks; joints that a person lacks are -1.
        joint_scores: (B, P, K), the peaks' scores; 0 for joints that a person lacks.
        scores: (B, P), of the people.
        joints: (B, P) int64, how many joints a person has.
        counts: (B,) int64, how many people there are.
    """

    coords: torch.Tensor
    joint_scores: torch.Tensor
    scores: torch.Tensor
    joints: torch.Tensor
    counts: torch.Tensor


# Part affinity fields -------------------------------------------------------------------------------------------------


def flat_limbs(op, name, limbs, count=None):
    """Pairs of integers as one flat list."""
    limbs = limbs.tolist() if hasattr(limbs, "tolist") else limbs
    try:
        flat = [operator.index(k) for pair in limbs for k in pair]
        pairs = all(len(pair) == 2 for pair in limbs)
    except TypeError:
        raise ValueError(f"{op}: {name} must be pairs of integers, got {limbs!r}") from None
    if not pairs or (count is not None and len(flat) != 2 * count):
        raise ValueError(f"{op}: {name} must be {'pairs' if count is None else f'{count} pairs'}, got {limbs!r}")
    return flat


def check_peaks(op, peaks):
    """A PeakSet, or anything that has its three tensors."""
    coords, scores, counts = (
        check_tensor(op, f"peaks.{name}", getattr(peaks, name, None)) for name in ("coords", "scores", "counts")
    )
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        raise TypeError(f"{op}: peaks.counts must be integers, got {counts.dtype}")
    return coords, scores


def check_whole_peaks(op, peaks):
    """The same, of which the coordinates are gathered here."""
    coords, scores = check_peaks(op, peaks)
    if not coords.is_floating_point():
        raise TypeError(f"{op}: peaks.coords must be float32 or float64, got {coords.dtype}")
    if coords.dim() != 4 or coords.shape[-1] != 2:
        raise ValueError(f"{op}: peaks.coords must be (B, K, M, 2), got shape {tuple(coords.shape)}")
    if scores.shape != coords.shape[:-1]:
        raise ValueError(f"{op}: peaks.scores must be {tuple(coords.shape[:-1])}, got shape {tuple(scores.shape)}")


def score_limbs(pafs, peaks, limbs, *, samples=10, rule="openpose", channels=None, threshold=0.05, fraction=0.95):
    """Scores every pair of candidates of every limb by the line integral of its part affinity field.

    Cao et al. (CVPR 2017), equation 10: the field is read at points between the two joints, at the nearest pixel, and
    projected on the direction from one to the other.

    Args:
        pafs (Tensor): ``(B, C, H, W)``, float16, bfloat16, float32 or float64.
        peaks (PeakSet): of :func:`pypose_ops.find_peaks`, in pixels of ``pafs``: ``coords`` (B, K, M, 2) and ``counts``
            (B, K).
        limbs (sequence of L pairs): joint indices ``(a, b)``; the field points from a to b.
        samples (int or None): points read along a limb; None: as many as OpenPose takes, ``round(sqrt(5 max(|dx|,
            |dy|)))`` from 5 to 25.
        rule (str): ``"openpose"``: points from a on, without b itself; the mean of the projections above ``threshold``
            where more than ``fraction`` of all are; a limb shorter than 1/150 of ``sqrt(H W)`` scores 0.05 otherwise.
            ``"trt_pose"``: both ends are points; the mean of all, points outside of the map count 0 (there: 7 samples).
            ``"trapezoid"``: both ends are points; the trapezoid rule over the limb's length (DeepLabCut).
        channels (sequence of L pairs, optional): of the x and the y component of each limb; default ``(2 l, 2 l + 1)``.
        threshold, fraction (float): of ``rule="openpose"``; the paper has a fraction of 0.8.

    Returns:
        Tensor: ``(B, L, M, M)``, float32 (float64 for float64 maps): entry ``[b, l, i, j]`` is the limb from peak i of
        joint a to peak j of joint b; minus infinity where they are no limb: a peak that does not exist (at or past its
        count), too few samples above the threshold, no direction, NaN. Not differentiable.

    Example:
        >>> pafs = torch.zeros(1, 2, 9, 9)
        >>> pafs[:, 0] = 1  # pointing to the right everywhere
        >>> peaks = PeakSet(torch.tensor([[[[1.0, 4.0]], [[7.0, 4.0]]]]), torch.ones(1, 2, 1), torch.ones(1, 2).long())
        >>> score_limbs(pafs, peaks, [(0, 1)]).item()
        1.0
    """
    limbs = flat_limbs("score_limbs", "limbs", limbs)
    check_tensor("score_limbs", "pafs", pafs)
    check_peaks("score_limbs", peaks)
    if channels is None:
        channels = list(range(len(limbs)))
    else:
        channels = flat_limbs("score_limbs", "channels", channels, len(limbs) // 2)
    rule = choice("score_limbs", "rule", rule, _RULES)
    if samples is None:
        samples = 0
    elif not isinstance(samples, int) or samples < 1:
        raise ValueError(f"score_limbs: samples must be positive or None, got {samples}")
    return call(
        _ops.score_limbs.default,
        (),
        pafs.detach(),
        peaks.coords.detach(),
        peaks.counts.to(torch.int64),
        limbs,
        channels,
        rule,
        samples,
        threshold,
        fraction,
    )


@torch.library.register_fake("pypose_ops::score_limbs")
def _(pafs, coords, counts, limbs, channels, rule, samples, threshold, fraction):
    torch._check(coords.dim() == 4, lambda: "score_limbs: peaks.coords must be (B, K, M, 2)")
    dtype = torch.float64 if pafs.dtype == torch.float64 else torch.float32
    return pafs.new_empty((pafs.shape[0], len(limbs) // 2, coords.shape[2], coords.shape[2]), dtype=dtype)


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
    """Puts joints together to people: an assignment per limb, then the limbs in the order of the list.

    Limbs that share a joint become one person, two parts of a person are merged when they have no joint in common, and
    a limb that closes a circle adds to the score. A limb that contradicts those before it is left out, so the more
    reliable limbs belong first.

    The grouping itself runs on the host. From a GPU it takes the scores and counts, in one copy, and nothing else.

    Args:
        peaks (PeakSet): of :func:`pypose_ops.find_peaks`: ``coords`` (B, K, M, 2), ``scores`` (B, K, M), ``counts``
            (B, K).
        limb_scores (Tensor): (B, L, M, M), of :func:`score_limbs`.
        limbs (sequence of L pairs): joint indices, as given to :func:`score_limbs`.
        assignment (str): ``"optimal"``: the largest sum of scores; ``"greedy"``: the best limb first, as OpenPose.
        min_limb_score (float): limbs must score more, at least 0; what is not finite is no limb.
        min_joints (int): people with fewer are dropped.
        min_score (float): people with less are dropped. A person's score is the sum of the scores of its joints and
            limbs over the number of its joints, OpenPose's rule.
        max_people (int): rows P of the result; the best P people are returned.

    Returns:
        People: on the device of the peaks; static shapes.

    Example:
        >>> people = group_people(peaks, score_limbs(pafs, peaks, limbs), limbs)  # doctest: +SKIP
        >>> people.coords[0, : people.counts[0]]  # doctest: +SKIP
    """
    limbs = flat_limbs("group_people", "limbs", limbs)
    check_whole_peaks("group_people", peaks)
    check_tensor("group_people", "limb_scores", limb_scores)
    scores, counts, limb_scores = _on_host(peaks, limb_scores.detach())
    index = call(
        _ops.group_people.default,
        (),
        scores,
        counts,
        limb_scores,
        limbs,
        choice("group_people", "assignment", assignment, _ASSIGNMENTS),
        min_limb_score,
        min_joints,
        min_score,
        max_people,
    )
    return gather_people(peaks, *index)


def _on_host(peaks, table):
    """Scores and counts of the peaks, and a table with their dtype: on the CPU, by one copy."""
    scores, counts = peaks.scores.detach().to(table.dtype), peaks.counts
    if table.device.type == "cpu":
        return scores, counts.to(torch.int64), table
    parts = (scores, counts.to(table.dtype), table)
    flat = torch.cat([part.flatten() for part in parts]).cpu()
    scores, counts, table = (
        values.view(part.shape) for values, part in zip(flat.split([p.numel() for p in parts]), parts, strict=True)
    )
    return scores, counts.to(torch.int64), table


def gather_people(peaks, index, scores, joints, counts):
    """The peaks with these indices (B, P, K), -1 for none, as People on the peaks' device."""
    device = peaks.coords.device
    index, scores, joints, counts = (v.to(device, non_blocking=True) for v in (index, scores, joints, counts))
    if peaks.coords.shape[2] == 0:  # no peak at all to gather
        coords = peaks.coords.new_full((*index.shape, 2), -1)
        return People(coords, peaks.scores.new_zeros(index.shape), scores.to(peaks.scores.dtype), joints, counts)
    present = index >= 0
    joints_each, peak_count = peaks.scores.shape[1:]
    place = (index.clamp(min=0) + peak_count * torch.arange(joints_each, device=device)).flatten(1)
    coords = peaks.coords.detach().flatten(1, 2).gather(1, place.unsqueeze(-1).expand(*place.shape, 2))
    joint_scores = peaks.scores.detach().flatten(1).gather(1, place)
    coords, joint_scores = coords.view(*index.shape, 2), joint_scores.view(index.shape)
    return People(
        coords.where(present.unsqueeze(-1), -1.0),
        joint_scores.where(present, 0.0),
        scores.to(peaks.scores.dtype),
        joints,
        counts,
    )


@torch.library.register_fake("pypose_ops::group_people")
def _(peak_scores, counts, limb_scores, limbs, assignment, min_limb_score, min_joints, min_score, max_people):
    return _fake_people(peak_scores, max_people)


def _fake_people(peak_scores, max_people):
    batch, joints = peak_scores.shape[:2]
    long = {"dtype": torch.int64}
    return (
        peak_scores.new_empty((batch, max_people, joints), **long),
        peak_scores.new_empty((batch, max_people)),
        peak_scores.new_empty((batch, max_people), **long),
        peak_scores.new_empty((batch,), **long),
    )


# Associative embedding ------------------------------------------------------------------------------------------------


def peak_tags(peaks, tags):
    """The tags (B, K, M, T) at the nearest pixels of the peaks, of maps (B, K, H, W) or (B, K, T, H, W)."""
    if tags.dim() == 4:
        tags = tags.unsqueeze(2)
    if tags.dim() != 5 or tags.shape[:2] != peaks.coords.shape[:2]:
        batch, joints = peaks.coords.shape[:2]
        raise ValueError(
            f"group_by_tags: tags must be ({batch}, {joints}, H, W) or ({batch}, {joints}, T, H, W), got shape "
            f"{tuple(tags.shape)}"
        )
    height, width = tags.shape[-2:]
    if height == 0 or width == 0:
        raise ValueError(f"group_by_tags: tags must not be empty maps, got shape {tuple(tags.shape)}")
    x, y = torch.floor(peaks.coords.detach() + 0.5).nan_to_num(0.0).unbind(-1)
    pixel = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
    index = pixel.unsqueeze(2).expand(-1, -1, tags.shape[2], -1)
    return tags.detach().flatten(3).gather(3, index).transpose(2, 3)


def _joint_order(joints):
    try:
        return [operator.index(k) for k in joints]
    except TypeError:
        raise ValueError(f"group_by_tags: joint_order must be joints, got {joints!r}") from None


def group_by_tags(peaks, tags, *, min_score=0.1, max_distance=1.0, joint_order=None, max_people=30):
    """Groups joints to people by their tags: associative embedding (Newell, Huang and Deng, NIPS 2017).

    Joint after joint, the peaks are assigned to the people found so far: optimally, by the distance of their tag to the
    mean tag of the person, rounded, and among equals by their score. A peak whose person is ``max_distance`` away or
    more starts a new one. The rules are those of HigherHRNet and MMPose; ties that these leave to chance are broken by
    the squared distance.

    Args:
        peaks (PeakSet): of :func:`pypose_ops.find_peaks`; there: 30 peaks, a radius of 2.
        tags (Tensor): ``(B, K, H, W)``, or ``(B, K, T, H, W)`` for tags of T numbers, the maps that ``peaks`` are
            pixels of; read at the nearest pixel.
        min_score (float): peaks must score more; what is not finite is no peak.
        max_distance (float): of tags, Euclidean; at most 10,000.
        joint_order (sequence of int, optional): the joints in the order in which they are grouped, the reliable ones
            first; joints that are not named are left out. Default: as they come.
        max_people (int): rows P of the result; the best P people are returned.

    Returns:
        People: on the device of the peaks. A person's score is the sum of its joints' scores over K.

    Example:
        >>> order = [0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16]  # COCO: trunk before limbs
        >>> people = group_by_tags(find_peaks(heatmaps), tags, joint_order=order)  # doctest: +SKIP
    """
    check_whole_peaks("group_by_tags", peaks)
    if check_tensor("group_by_tags", "tags", tags).is_complex():
        raise TypeError(f"group_by_tags: tags must be real, got {tags.dtype}")
    values = peak_tags(peaks, tags)
    values = values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    order = list(range(values.shape[1])) if joint_order is None else _joint_order(joint_order)
    scores, counts, values = _on_host(peaks, values)
    index = call(_ops.group_by_tags.default, (), scores, counts, values, order, min_score, max_distance, max_people)
    return gather_people(peaks, *index)


@torch.library.register_fake("pypose_ops::group_by_tags")
def _(peak_scores, counts, tags, order, min_score, max_distance, max_people):
    return _fake_people(peak_scores, max_people)
