"""Scores of candidate limbs along part affinity fields."""

from collections.abc import Sequence
from typing import Literal

import torch

from ._arguments import check_tensor, choice
from ._autograd import call, register_fake, vmap_by_batch
from ._grouping_arguments import RULES, check_peaks, flat_limbs
from ._results import LocalPeaks, LocalPeaksWithPixels

_ops = torch.ops.pypose_ops


def score_limbs(
    pafs: torch.Tensor,
    peaks: LocalPeaks | LocalPeaksWithPixels,
    limbs: Sequence[tuple[int, int]],
    *,
    samples: int | None = 10,
    rule: Literal["openpose", "trt_pose", "trapezoid"] = "openpose",
    channels: Sequence[tuple[int, int]] | None = None,
    threshold: float = 0.05,
    fraction: float = 0.95,
) -> torch.Tensor:
    """Scores every pair of candidates of every limb by the line integral of its part affinity field.

    Cao et al. (CVPR 2017), equation 10: the field is read at points between the two joints, at the nearest pixel, and
    projected on the direction from one to the other.

    Args:
        pafs: ``(B, C, H, W)``, float16, bfloat16, float32 or float64, any strides.
        peaks: from :func:`pypose_ops.find_peaks`, in pixels of ``pafs``: ``coords`` (B, K, M, 2) and ``counts`` (B, K).
        limbs: L pairs of joint indices ``(a, b)``; the field points from a to b.
        samples: points read along a limb. None: OpenPose's ``round(sqrt(5 max(|dx|, |dy|)))``, from 5 to 25.
        rule: ``"openpose"``: points from a on, without b itself; the mean of the projections above ``threshold`` if
            these are more than ``fraction`` of all; otherwise a limb shorter than 1/150 of ``sqrt(H W)`` scores 0.05.
            ``"trt_pose"``: both ends are points; the mean of all, points outside the map count 0 (7 samples there).
            ``"trapezoid"``: both ends are points; the trapezoid rule over the length of the limb.
        channels: the channels of the x and the y component of each limb; None: ``(2 l, 2 l + 1)``.
        threshold: of ``rule="openpose"``.
        fraction: of ``rule="openpose"``; 0.8 in the paper.

    Returns:
        ``(B, L, M, M)``, float32 (float64 for float64 maps): entry ``[b, l, i, j]`` is the limb from peak i of joint a
        to peak j of joint b; minus infinity if they are no limb: a peak that does not exist (at or past its count), too
        few samples above the threshold, no direction, NaN. Not differentiable.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value, or an unknown name.

    :func:`pypose_ops.reference.score_limbs` is the definition in plain torch.

    Example:
        >>> pafs = torch.zeros(1, 2, 9, 9)
        >>> pafs[:, 0] = 1  # pointing to the right everywhere
        >>> coords = torch.tensor([[[[1.0, 4.0]], [[7.0, 4.0]]]])
        >>> peaks = LocalPeaks(coords, torch.ones(1, 2, 1), torch.ones(1, 2).long())
        >>> score_limbs(pafs, peaks, [(0, 1)]).item()
        1.0
    """
    op = "score_limbs"
    flat = flat_limbs(op, "limbs", limbs)
    check_tensor(op, "pafs", pafs)
    check_peaks(op, peaks)
    if samples is not None and (not isinstance(samples, int) or samples < 1):
        raise ValueError(f"{op}: samples must be positive or None, got {samples}")
    return call(
        _ops.score_limbs.default,
        (),
        pafs.detach(),
        peaks.coords.detach(),
        peaks.counts.to(torch.int64),
        flat,
        list(range(len(flat))) if channels is None else flat_limbs(op, "channels", channels, len(flat) // 2),
        choice(op, "rule", rule, RULES),
        0 if samples is None else samples,
        threshold,
        fraction,
    )


@register_fake("pypose_ops::score_limbs")
def _(pafs, coords, counts, limbs, channels, rule, samples, threshold, fraction):
    torch._check(coords.dim() == 4, lambda: "score_limbs: peaks.coords must be (B, K, M, 2)")
    dtype = torch.float64 if pafs.dtype == torch.float64 else torch.float32
    return pafs.new_empty((pafs.shape[0], len(limbs) // 2, coords.shape[2], coords.shape[2]), dtype=dtype)


vmap_by_batch("score_limbs", 0, 1, 2)
