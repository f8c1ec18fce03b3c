"""People from peaks and limb scores."""

import torch

from ._arguments import check_tensor, choice
from ._autograd import call
from ._results import People
from .score_limbs import check_whole_peaks, flat_limbs

_ops = torch.ops.pypose_ops


_ASSIGNMENTS = ("optimal", "greedy")


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
        peaks (LocalPeaks): of :func:`pypose_ops.find_peaks`: ``coords`` (B, K, M, 2), ``scores`` (B, K, M), ``counts``
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


def gather_people(peaks, index, scores, joint_counts, counts):
    """The peaks with these indices (B, P, K), -1 for none, as People on the peaks' device."""
    device = peaks.coords.device
    index, scores, joint_counts, counts = (
        v.to(device, non_blocking=True) for v in (index, scores, joint_counts, counts)
    )
    if peaks.coords.shape[2] == 0:  # no peak at all to gather
        coords = peaks.coords.new_full((*index.shape, 2), -1)
        return People(coords, peaks.scores.new_zeros(index.shape), scores.to(peaks.scores.dtype), joint_counts, counts)
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
        joint_counts,
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
