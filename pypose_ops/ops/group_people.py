"""People from peaks and limb scores."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch

from ._arguments import check_number, check_tensor, choice
from ._autograd import call, register_fake, vmap_by_batch
from ._grouping_arguments import ASSIGNMENTS, check_whole_peaks, flat_limbs
from ._results import LocalPeaks, LocalPeaksWithPixels, People

_ops = torch.ops.pypose_ops
_group_people = _ops.group_people.default
_gather_people = _ops._gather_people.default


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
    """Assembles joints into people: one assignment per limb, then the limbs in the order of the list.

    Limbs that share a joint belong to one person, two parts of a person are merged if they have no joint in common, and
    a limb that closes a cycle adds to the score. A limb that contradicts those before it is left out, so the more
    reliable limbs belong first.

    The grouping itself runs on the host. From a GPU it takes the scores and counts, in one copy, and nothing else.

    Args:
        peaks: from :func:`pypose_ops.find_peaks`: ``coords`` (B, K, M, 2), ``scores`` (B, K, M), ``counts`` (B, K).
        limb_scores: ``(B, L, M, M)``, from :func:`score_limbs`.
        limbs: L pairs of joint indices, as given to :func:`score_limbs`.
        assignment: ``"optimal"``: the largest sum of scores; ``"greedy"``: the best limb first, as in OpenPose.
        min_limb_score: limbs must score more, at least 0; non-finite scores are no limbs.
        min_joints: people with fewer joints are dropped.
        min_score: people who score less are dropped. A person's score is the sum of the scores of its joints and limbs
            over the number of its joints, OpenPose's rule.
        max_people: rows P of the result. If there are more people, the best P are returned; ``counts`` says how many
            there were.
        missing: the coordinates of joints that a person lacks.

    Returns:
        :class:`People`, on the device of the peaks, with shapes that do not depend on the data.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value, or an unknown name.

    :func:`pypose_ops.reference.group_people` is the definition in plain torch.

    Example:
        >>> people = group_people(peaks, score_limbs(pafs, peaks, limbs), limbs)  # doctest: +SKIP
        >>> people.coords[0, : people.counts[0]]  # doctest: +SKIP
    """
    op = "group_people"
    flat = flat_limbs(op, "limbs", limbs)
    check_whole_peaks(op, peaks)
    check_tensor(op, "limb_scores", limb_scores)
    scores, counts, table = on_host(peaks, limb_scores.detach())
    found = call(
        _group_people,
        (),
        scores,
        counts,
        table,
        flat,
        choice(op, "assignment", assignment, ASSIGNMENTS),
        min_limb_score,
        min_joints,
        min_score,
        max_people,
    )
    return gather_people(peaks, found, check_number(op, "missing", missing))


def on_host(peaks: LocalPeaks, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Scores and counts of the peaks, and a table with their dtype: on the CPU, by one copy."""
    scores, counts = peaks.scores.detach(), peaks.counts
    if scores.dtype != table.dtype:
        scores = scores.to(table.dtype)
    if table.is_cpu:
        return scores, counts if counts.dtype == torch.int64 else counts.to(torch.int64), table
    parts = (scores, counts.to(table.dtype), table)
    flat = torch.cat([part.flatten() for part in parts]).cpu()
    scores, counts, table = (
        values.view(part.shape) for values, part in zip(flat.split([p.numel() for p in parts]), parts, strict=True)
    )
    return scores, counts.to(torch.int64), table


def gather_people(peaks: LocalPeaks, found: Iterable[torch.Tensor], missing: float) -> People:
    """People on the device of the peaks, from what the grouping found: indices ``(B, P, K)``, -1 for none, and more."""
    device, dtype = peaks.coords.device, peaks.scores.dtype
    if _in_one_call(peaks):
        index, scores, joint_counts, counts, limb_scores, order = found
        if scores.dtype != dtype:  # a conversion to what it is costs a microsecond
            scores, limb_scores = scores.to(dtype), limb_scores.to(dtype)
        coords, joint_scores = call(_gather_people, (), peaks.coords.detach(), peaks.scores.detach(), index, missing)
        return People(coords, joint_scores, scores, joint_counts, counts, index, limb_scores, order)
    index, scores, joint_counts, counts, limb_scores, order = (v.to(device, non_blocking=True) for v in found)
    rest = scores.to(dtype), joint_counts, counts, index, limb_scores.to(dtype), order
    if peaks.coords.shape[2] == 0:  # no peak at all to gather
        return People(peaks.coords.new_full((*index.shape, 2), missing), peaks.scores.new_zeros(index.shape), *rest)
    present = index >= 0
    joints, places = peaks.scores.shape[1:]
    place = (index.clamp(min=0) + places * torch.arange(joints, device=device)).flatten(1)
    coords = peaks.coords.detach().flatten(1, 2).gather(1, place.unsqueeze(-1).expand(*place.shape, 2))
    joint_scores = peaks.scores.detach().flatten(1).gather(1, place)
    return People(
        coords.view(*index.shape, 2).where(present.unsqueeze(-1), missing),
        joint_scores.view(index.shape).where(present, 0.0),
        *rest,
    )


def _in_one_call(peaks: LocalPeaks) -> bool:
    """Whether the host gathers the peaks: its tensors, outside of compilers and transforms."""
    coords, scores = peaks.coords, peaks.scores
    if torch.compiler.is_compiling() or type(coords) is not torch.Tensor or type(scores) is not torch.Tensor:
        return False
    return coords.is_cpu and coords.dtype == scores.dtype and coords.dtype in (torch.float32, torch.float64)


@register_fake("pypose_ops::_gather_people")
def _(coords, scores, index, missing):
    return coords.new_empty((*index.shape, 2)), scores.new_empty(index.shape)


vmap_by_batch("_gather_people", 0, 1, 2)


@register_fake("pypose_ops::group_people")
def _(peak_scores, counts, limb_scores, limbs, assignment, min_limb_score, min_joints, min_score, max_people):
    return fake_people(peak_scores, max_people)


def fake_people(peak_scores: torch.Tensor, max_people: int) -> tuple[torch.Tensor, ...]:
    batch, joints = peak_scores.shape[:2]
    long = {"dtype": torch.int64}
    return (
        peak_scores.new_empty((batch, max_people, joints), **long),
        peak_scores.new_empty((batch, max_people)),
        peak_scores.new_empty((batch, max_people), **long),
        peak_scores.new_empty((batch,), **long),
        peak_scores.new_empty((batch, max_people)),
        peak_scores.new_empty((batch, max_people), **long),
    )


vmap_by_batch("group_people", 0, 1, 2)
