"""Scores of candidate limbs along part affinity fields."""

import operator

import torch

from ._arguments import check_tensor, choice
from ._autograd import call

_ops = torch.ops.pypose_ops


# In the order of the enumerations in csrc/grouping.
_RULES = ("openpose", "trt_pose", "trapezoid")


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
    """A LocalPeaks, or anything that has its three tensors."""
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
        peaks (LocalPeaks): of :func:`pypose_ops.find_peaks`, in pixels of ``pafs``: ``coords`` (B, K, M, 2) and
            ``counts`` (B, K).
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
        >>> coords = torch.tensor([[[[1.0, 4.0]], [[7.0, 4.0]]]])
        >>> peaks = LocalPeaks(coords, torch.ones(1, 2, 1), torch.ones(1, 2).long())
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
