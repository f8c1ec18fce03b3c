"""People from peaks and limb scores."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch

from ._arguments import check_number, check_tensor, choice
from ._autograd import call, register_fake, vmap_by_batch
from ._grouping_arguments import ASSIGNMENTS, check_whole_peaks, flat_limbs
from ._results import LocalPeaks, LocalPeaksWithPixels, People

_ops = torch.ops.pypose_ops
_group_people = _ops.group_people.default
_gathered = _ops._group_people.default


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
    check_tensor(op, "limb_scores", limb_scores)
    missing = check_number(op, "missing", missing)
    number = choice(op, "assignment", assignment, ASSIGNMENTS)
    options = (flat, number, min_limb_score, min_joints, min_score, max_people)
    if gathers(peaks, limb_scores):
        return gathered(_gathered, peaks, limb_scores, *options, missing)
    check_whole_peaks(op, peaks)
    return gather_people(peaks, call(_group_people, (), *on_host(peaks, limb_scores.detach()), *options), missing)


def gathers(peaks: LocalPeaks | LocalPeaksWithPixels, table: torch.Tensor) -> bool:
    """Whether the operator gathers the peaks too, and checks them: those of the host, outside of compilers."""
    if torch.compiler.is_compiling() or not isinstance(peaks, LocalPeaks | LocalPeaksWithPixels):
        return False
    coords, scores, counts = peaks[:3]
    if not type(coords) is type(scores) is type(counts) is type(table) is torch.Tensor:
        return False
    on_host = coords.is_cpu and scores.is_cpu and counts.is_cpu and table.is_cpu
    kinds = torch.float32, torch.float64
    return (
        on_host
        and counts.dtype == torch.int64
        and coords.dtype == scores.dtype
        and coords.dtype in kinds
        and table.dtype in kinds
    )


def gathered(
    op: torch._ops.OpOverload,
    peaks: LocalPeaks | LocalPeaksWithPixels,
    table: torch.Tensor,
    *options: Any,
) -> People:
    """People by an operator that gathers the peaks."""
    coords, scores, counts = peaks[:3]
    if coords.requires_grad or scores.requires_grad or table.requires_grad:
        coords, scores, table = coords.detach(), scores.detach(), table.detach()
    return People._make(call(op, (), coords, scores, counts, table, *options))


def on_host(peaks: LocalPeaks | LocalPeaksWithPixels, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
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


def gather_people(peaks: LocalPeaks | LocalPeaksWithPixels, found: Iterable[torch.Tensor], missing: float) -> People:
    """People on the device of the peaks, from what the grouping found: indices ``(B, P, K)``, -1 for none, and more."""
    device, dtype = peaks.coords.device, peaks.scores.dtype
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


@register_fake("pypose_ops::group_people")
def _(peak_scores, counts, limb_scores, limbs, assignment, min_limb_score, min_joints, min_score, max_people):
    return fake_people(peak_scores, max_people)


@register_fake("pypose_ops::_group_people")
def _(
    coords, scores, counts, limb_scores, limbs, assignment, min_limb_score, min_joints, min_score, max_people, missing
):
    return fake_gathered(coords, scores, max_people)


def fake_gathered(coords: torch.Tensor, scores: torch.Tensor, max_people: int) -> tuple[torch.Tensor, ...]:
    index, person_scores, joint_counts, counts, limb_scores, order = fake_people(scores, max_people)
    gathered = coords.new_empty((*index.shape, 2)), scores.new_empty(index.shape)
    return *gathered, person_scores, joint_counts, counts, index, limb_scores, order


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
vmap_by_batch("_group_people", 0, 1, 2, 3)
