"""What the operators and their references return."""

from typing import NamedTuple

import torch


class Peaks(NamedTuple):
    """One peak per map.

    Attributes:
        coords: ``(B, K, 2)``, ``(x, y)``; ``missing``, by default NaN, where a map has no peak.
        scores: ``(B, K)``; 0 where a map has no peak.
    """

    coords: torch.Tensor
    scores: torch.Tensor


class PeaksWithCovariance(NamedTuple):
    """One peak per map, and how sharp it is.

    Attributes:
        coords: as in :class:`Peaks`.
        scores: as in :class:`Peaks`.
        covariance: ``(B, K, 2, 2)``, over x and y, in squared pixels of ``coords``; NaN where there is none.
    """

    coords: torch.Tensor
    scores: torch.Tensor
    covariance: torch.Tensor


class PeaksWithPixels(NamedTuple):
    """One peak per map, and the highest pixel that it was refined from.

    Attributes:
        coords: as in :class:`Peaks`.
        scores: as in :class:`Peaks`.
        pixels: ``(B, K, 2)``, int64, ``(x, y)`` in the heatmap; -1 where a map has no peak.
    """

    coords: torch.Tensor
    scores: torch.Tensor
    pixels: torch.Tensor


class LocalPeaks(NamedTuple):
    """The best M peaks of every map, by falling score.

    Attributes:
        coords: ``(B, K, M, 2)``, ``(x, y)``; ``missing``, by default NaN, in empty places.
        scores: ``(B, K, M)``; 0 in empty places.
        counts: ``(B, K)``, int64: how many peaks there were, which may be more than M.
    """

    coords: torch.Tensor
    scores: torch.Tensor
    counts: torch.Tensor


class LocalPeaksWithPixels(NamedTuple):
    """The best M peaks of every map, and the pixels that they were refined from.

    Attributes:
        coords: as in :class:`LocalPeaks`.
        scores: as in :class:`LocalPeaks`.
        counts: as in :class:`LocalPeaks`.
        pixels: ``(B, K, M, 2)``, int64, ``(x, y)`` in the heatmap; -1 in empty places.
    """

    coords: torch.Tensor
    scores: torch.Tensor
    counts: torch.Tensor
    pixels: torch.Tensor


class SoftPeaks(NamedTuple):
    """Mean and variance of every map.

    Attributes:
        coords: ``(B, K, 2)``, ``(x, y)``.
        variance: ``(B, K, 2)``, of x and of y.
    """

    coords: torch.Tensor
    variance: torch.Tensor


class People(NamedTuple):
    """Up to P people per image, best first.

    Attributes:
        coords: ``(B, P, K, 2)``, ``(x, y)`` as in the peaks; ``missing``, by default NaN, for joints that a person
            lacks and in empty rows.
        joint_scores: ``(B, P, K)``, the scores of the peaks; 0 for joints that a person lacks.
        scores: ``(B, P)``, of the people; 0 in empty rows.
        joint_counts: ``(B, P)``, int64: how many joints a person has.
        counts: ``(B,)``, int64: how many people there were, which may be more than P.
        peak_indices: ``(B, P, K)``, int64: which of the M peaks each joint is; -1 for joints that a person lacks.
        limb_scores: ``(B, P)``, the sums of the scores of a person's limbs; 0 where people are grouped without limbs.
        order: ``(B, P)``, int64: the order in which the people were started, from 0; -1 in empty rows.
    """

    coords: torch.Tensor
    joint_scores: torch.Tensor
    scores: torch.Tensor
    joint_counts: torch.Tensor
    counts: torch.Tensor
    peak_indices: torch.Tensor
    limb_scores: torch.Tensor
    order: torch.Tensor


class NmsResult(NamedTuple):
    """What a suppression keeps.

    Attributes:
        mask: ``(..., N)``, bool: who is kept.
        scores: ``(..., N)``; lowered where the suppression is soft.
    """

    mask: torch.Tensor
    scores: torch.Tensor


class BestPose(NamedTuple):
    """The best pose of a tree, and the cost of placing a joint elsewhere.

    Attributes:
        peaks: the best pose, :class:`Peaks`: ``coords`` ``(B, K, 2)``, ``(x, y)``, NaN where no pose is possible;
            ``scores`` ``(B, K)``.
        max_marginals: ``(B, K, H, W)``, the score of the best pose that has joint k at a pixel; -inf where none is.
    """

    peaks: Peaks
    max_marginals: torch.Tensor


class Marginals(NamedTuple):
    """What a tree says about every joint.

    Attributes:
        log_marginals (Tensor): ``(B, K, H, W)``, the logarithm of the probability that joint k is at a pixel.
        log_partition (Tensor): ``(B,)``, the logarithm of the sum over all poses of the exponential of their score.
    """

    log_marginals: torch.Tensor
    log_partition: torch.Tensor


# torch.export.save and AOTInductor write the structure of a program's outputs by these names; torch has no public way.
_register = getattr(torch.utils._pytree, "_register_namedtuple", None)
for _result in (
    Peaks, PeaksWithCovariance, PeaksWithPixels, LocalPeaks, LocalPeaksWithPixels,
    SoftPeaks, People, NmsResult, BestPose, Marginals,
):  # fmt: skip
    if _register is not None:
        _register(_result, serialized_type_name=f"pypose_ops.{_result.__name__}")
