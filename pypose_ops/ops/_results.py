"""What the operators and their references return."""

from typing import NamedTuple

import torch


class Peaks(NamedTuple):
    """One peak per map.

    Attributes:
        coords: ``(B, K, 2)``, ``(x, y)``; -1 where a map has no peak.
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


class LocalPeaks(NamedTuple):
    """The best M peaks of every map, by falling score.

    Attributes:
        coords: ``(B, K, M, 2)``, ``(x, y)``; -1 in empty places.
        scores: ``(B, K, M)``; 0 in empty places.
        counts: ``(B, K)``, int64: how many places are filled.
    """

    coords: torch.Tensor
    scores: torch.Tensor
    counts: torch.Tensor


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
        coords: ``(B, P, K, 2)``, ``(x, y)`` as in the peaks; -1 for joints that a person lacks and in empty rows.
        joint_scores: ``(B, P, K)``, the scores of the peaks; 0 for joints that a person lacks.
        scores: ``(B, P)``, of the people; 0 in empty rows.
        joint_counts: ``(B, P)``, int64: how many joints a person has.
        counts: ``(B,)``, int64: how many people there are.
    """

    coords: torch.Tensor
    joint_scores: torch.Tensor
    scores: torch.Tensor
    joint_counts: torch.Tensor
    counts: torch.Tensor


class NmsResult(NamedTuple):
    """What a suppression keeps.

    Attributes:
        mask: ``(..., N)``, bool: who is kept.
        scores: ``(..., N)``; lowered where the suppression is soft.
    """

    mask: torch.Tensor
    scores: torch.Tensor


class Marginals(NamedTuple):
    """What a tree says about every joint.

    Attributes:
        log_marginals (Tensor): ``(B, K, H, W)``, the logarithm of the probability that joint k is at a pixel.
        log_partition (Tensor): ``(B,)``, the logarithm of the sum over all poses of the exponential of their score.
    """

    log_marginals: torch.Tensor
    log_partition: torch.Tensor
