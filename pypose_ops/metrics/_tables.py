"""Shared by the per-joint metrics: argument checks, sums over people, and the result table."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import torch

AVERAGES = ("keypoints", "joints")
# People per part.
_CHUNK = 1 << 12


class Sums(NamedTuple):
    """Per joint (or stick): the sum of a value over the counted people, and their number.

    ``values`` is (..., K) float64, ``counts`` (K,) int64. Sums of disjoint data can be added.
    """

    values: torch.Tensor
    counts: torch.Tensor


class JointScores(TypedDict):
    """A score over joints (or sticks), in percent or in the unit of the metric; NaN if nothing was counted.

    Attributes:
        mean: over the joints that are not excluded; float64.
        per_joint: (K,) float64.
        counts: (K,) int64, the number of counted people.
    """

    mean: torch.Tensor
    per_joint: torch.Tensor
    counts: torch.Tensor


class JointCurves(JointScores):
    """Scores at several thresholds: ``mean`` is (T,), ``per_joint`` (T, K).

    Attributes:
        thresholds: (T,) float64.
    """

    thresholds: torch.Tensor


def check_poses(name: str, pred: torch.Tensor, target: torch.Tensor, visible: torch.Tensor | None = None) -> None:
    if not (isinstance(pred, torch.Tensor) and isinstance(target, torch.Tensor)):
        raise TypeError(f"{name}: pred and target must be tensors")
    if target.dim() != 3 or target.shape[-1] != 2:
        raise ValueError(f"{name}: target must be (N, K, 2), got shape {tuple(target.shape)}")
    if pred.shape != target.shape:
        raise ValueError(f"{name}: pred must be {tuple(target.shape)} like target, got shape {tuple(pred.shape)}")
    if visible is not None and visible.shape != target.shape[:2]:
        raise ValueError(f"{name}: visible must be {tuple(target.shape[:2])}, got shape {tuple(visible.shape)}")


def sums_in_parts(
    sums: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, slice], Sums],
    pred: torch.Tensor,
    target: torch.Tensor,
    visible: torch.Tensor | None,
) -> Sums:
    """Adds up ``sums`` of some thousand people at a time: nothing that it computes exists for all of them.

    It gets their predictions and targets in float64, the joints that count (visible, with a finite target), and which
    people they are.
    """
    total = None
    for begin in range(0, max(len(target), 1), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        there = target[part].double()
        counted = there.isfinite().all(-1)
        if visible is not None:
            shown = visible[part]
            counted &= shown if shown.dtype == torch.bool else shown >= 0.5
        added = sums(pred[part].double(), there, counted, part)
        total = added if total is None else Sums(total.values + added.values, total.counts + added.counts)
    return total


def check_norm(
    name: str, argument: str, norm: torch.Tensor | float, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One positive length per person as (N, 1); people whose length is not positive and finite are excluded."""
    norm = torch.as_tensor(norm, dtype=torch.float64, device=target.device)
    if norm.dim() == 0:
        norm = norm.expand(len(target))
    if norm.shape != target.shape[:1]:
        raise ValueError(f"{name}: {argument} must be a number or ({len(target)},), got shape {tuple(norm.shape)}")
    norm = norm[:, None]
    return norm, (norm > 0) & norm.isfinite()


def distances(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (pred - target).norm(dim=-1)


def hits(distance: torch.Tensor, counted: torch.Tensor, thresholds: Sequence[float], strict: bool) -> Sums:
    """Hits per threshold and joint, values (T, K). Non-finite predictions are misses."""
    values = []
    for threshold in thresholds:  # one (N, K) mask at a time
        hit = distance < threshold if strict else distance <= threshold
        values.append((hit & counted).sum(0))
    values = torch.stack(values).double() if values else distance.new_zeros(0, distance.shape[1])
    return Sums(values, counted.sum(0))


def table(sums: Sums, *, exclude: Sequence[int] = (), average: str = "keypoints", scale: float = 100.0) -> JointScores:
    """The result of a metric: per joint, and over joints that are not excluded; NaN if nothing was counted."""
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}")
    values, counts = sums
    joints = counts.shape[0]
    if not all(-joints <= k < joints for k in exclude):
        raise ValueError(f"exclude must name joints from 0 to {joints - 1}, got {tuple(exclude)}")
    included = torch.ones_like(counts, dtype=torch.bool)
    included[list(exclude)] = False
    included &= counts > 0
    per_joint = scale * values / counts
    if average == "keypoints":
        mean = scale * (values * included).sum(-1) / (counts * included).sum()
    else:
        mean = per_joint.where(included, 0.0).sum(-1) / included.sum()
    return {"mean": mean, "per_joint": per_joint, "counts": counts}
