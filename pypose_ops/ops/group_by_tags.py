"""People from peaks and associative embeddings."""

import math
from collections.abc import Sequence

import torch

from ._arguments import check_number, check_tensor
from ._autograd import call, register_fake, vmap_by_batch
from ._grouping_arguments import check_whole_peaks, joint_list
from ._results import LocalPeaks, LocalPeaksWithPixels, People
from .group_people import fake_gathered, fake_people, gather_people, gathered, gathers, on_host

_ops = torch.ops.pypose_ops


def group_by_tags(
    peaks: LocalPeaks | LocalPeaksWithPixels,
    tags: torch.Tensor,
    *,
    min_score: float = 0.1,
    max_distance: float = 1.0,
    joint_order: Sequence[int] | None = None,
    max_people: int = 30,
    missing: float = math.nan,
) -> People:
    """Groups joints into people by their tags: associative embedding (Newell, Huang and Deng, NIPS 2017).

    Joint after joint, the peaks are assigned to the people found so far: optimally, by the rounded distance of their
    tag from the person's mean tag, and among equals by their score. A peak whose person is ``max_distance`` or more
    away starts a new one. The rules are those of HigherHRNet and MMPose; ties that these leave open are broken by the
    squared distance.

    Args:
        peaks: from :func:`pypose_ops.find_peaks`; HigherHRNet takes 30 peaks and a radius of 2.
        tags: ``(B, K, H, W)``, or ``(B, K, T, H, W)`` for tags of T numbers, maps of the size that ``peaks`` are pixels
            of; read at the nearest pixel.
        min_score: peaks must score more; non-finite scores are no peaks.
        max_distance: between tags, Euclidean; at most 10,000.
        joint_order: the joints in the order in which they are grouped, the reliable ones first; joints that are not
            listed are left out. None: all, in their own order.
        max_people: rows P of the result. If there are more people, the best P are returned; ``counts`` says how many
            there were.
        missing: the coordinates of joints that a person lacks.

    Returns:
        :class:`People`, on the device of the peaks. A person's score is the sum of its joints' scores over K.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value.

    :func:`pypose_ops.reference.group_by_tags` is the definition in plain torch.

    Example:
        >>> order = [0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16]  # COCO: trunk before limbs
        >>> people = group_by_tags(find_peaks(heatmaps), tags, joint_order=order)  # doctest: +SKIP
    """
    op = "group_by_tags"
    check_whole_peaks(op, peaks)
    if check_tensor(op, "tags", tags).is_complex():
        raise ValueError(f"{op}: tags must be real, got {tags.dtype}")
    values = _peak_tags(peaks, tags)
    values = values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    order = list(range(values.shape[1])) if joint_order is None else joint_list(op, "joint_order", joint_order)
    missing = check_number(op, "missing", missing)
    options = (order, min_score, max_distance, max_people)
    if gathers(peaks, values):
        return gathered(_ops._group_by_tags.default, peaks, values, *options, missing)
    return gather_people(peaks, call(_ops.group_by_tags.default, (), *on_host(peaks, values), *options), missing)


def _peak_tags(peaks, tags):
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


@register_fake("pypose_ops::group_by_tags")
def _(peak_scores, counts, tags, order, min_score, max_distance, max_people):
    return fake_people(peak_scores, max_people)


@register_fake("pypose_ops::_group_by_tags")
def _(coords, scores, counts, tags, order, min_score, max_distance, max_people, missing):
    return fake_gathered(coords, scores, max_people)


vmap_by_batch("group_by_tags", 0, 1, 2)
vmap_by_batch("_group_by_tags", 0, 1, 2, 3)
