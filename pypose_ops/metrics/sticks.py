"""PCP: percentage of correct parts."""

from collections.abc import Sequence

import torch

from ..skeletons import LSP
from ._tables import JointScores, Sums, check_poses, distances, sums_in_parts, table

RULES = ("strict", "relaxed")
End = int | tuple[int, ...]
Stick = tuple[End, End]


def pcp_sums(
    pred: torch.Tensor,
    target: torch.Tensor,
    visible: torch.Tensor | None,
    sticks: Sequence[Stick],
    threshold: float,
    rule: str,
) -> Sums:
    check_poses("pcp", pred, target, visible)
    if rule not in RULES:
        raise ValueError(f"pcp: rule must be one of {', '.join(RULES)}, got {rule!r}")
    joints = target.shape[1]
    all_ends = []
    for stick in sticks:
        ends = [list(end) if isinstance(end, (tuple, list)) else [end] for end in stick]
        if len(ends) != 2 or not all(0 <= k < joints for end in ends for k in end):
            raise ValueError(f"pcp: a stick must be two joints (or tuples of them) from 0 to {joints - 1}, got {stick}")
        all_ends.append(ends)
    if not all_ends:
        raise ValueError("pcp: sticks must not be empty")

    def sums(pred: torch.Tensor, target: torch.Tensor, counted: torch.Tensor, part: slice) -> Sums:
        values, counts = [], []
        for ends in all_ends:
            (p1, p2), (t1, t2) = ([pose[:, end].mean(1) for end in ends] for pose in (pred, target))
            length = distances(t1, t2)
            first, second = distances(p1, t1), distances(p2, t2)
            if rule == "strict":
                hit = (first <= threshold * length) & (second <= threshold * length)
            else:
                hit = (first + second) / 2 <= threshold * length
            here = torch.stack([counted[:, end].all(1) for end in ends]).all(0)
            values.append((hit & here).sum())
            counts.append(here.sum())
        return Sums(torch.stack(values).double(), torch.stack(counts))

    return sums_in_parts(sums, pred, target, visible)


def pcp(
    pred: torch.Tensor,
    target: torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    sticks: Sequence[Stick] = LSP.sticks,
    threshold: float = 0.5,
    rule: str = "strict",
    average: str = "keypoints",
) -> JointScores:
    """Percentage of correct parts: a stick is correct if its ends are close, relative to its annotated length.

    Args:
        pred, target, visible: as in :func:`pypose_ops.metrics.pck`; a stick counts if all its joints do.
        sticks: pairs of ends; an end is a joint index, or a tuple of joints for their midpoint. Default: the ten of
            LSP.
        threshold: of the length of the stick.
        rule: ``"strict"``: both ends are within the threshold; ``"relaxed"``: the mean of their distances is (the rule
            of the papers of DeepPose and DS-CNN).
        average: ``"keypoints"``, every counted stick alike, or ``"joints"``, the columns alike.

    Returns:
        dict as of :func:`pypose_ops.metrics.pck`; ``per_joint`` and ``counts`` have one entry per stick.
    """
    return table(pcp_sums(pred, target, visible, sticks, threshold, rule), average=average)
