"""People from peaks and associative embeddings."""

import operator

import torch

from ._arguments import check_tensor
from ._autograd import call
from .group_people import _fake_people, _on_host, gather_people
from .score_limbs import check_whole_peaks

_ops = torch.ops.pypose_ops


def peak_tags(peaks, tags):
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


def _joint_order(joints):
    try:
        return [operator.index(k) for k in joints]
    except TypeError:
        raise ValueError(f"group_by_tags: joint_order must be joints, got {joints!r}") from None


def group_by_tags(peaks, tags, *, min_score=0.1, max_distance=1.0, joint_order=None, max_people=30):
    """Groups joints to people by their tags: associative embedding (Newell, Huang and Deng, NIPS 2017).

    Joint after joint, the peaks are assigned to the people found so far: optimally, by the distance of their tag to the
    mean tag of the person, rounded, and among equals by their score. A peak whose person is ``max_distance`` away or
    more starts a new one. The rules are those of HigherHRNet and MMPose; ties that these leave to chance are broken by
    the squared distance.

    Args:
        peaks (LocalPeaks): of :func:`pypose_ops.find_peaks`; there: 30 peaks, a radius of 2.
        tags (Tensor): ``(B, K, H, W)``, or ``(B, K, T, H, W)`` for tags of T numbers, the maps that ``peaks`` are
            pixels of; read at the nearest pixel.
        min_score (float): peaks must score more; what is not finite is no peak.
        max_distance (float): of tags, Euclidean; at most 10,000.
        joint_order (sequence of int, optional): the joints in the order in which they are grouped, the reliable ones
            first; joints that are not named are left out. Default: as they come.
        max_people (int): rows P of the result; the best P people are returned.

    Returns:
        People: on the device of the peaks. A person's score is the sum of its joints' scores over K.

    Example:
        >>> order = [0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16]  # COCO: trunk before limbs
        >>> people = group_by_tags(find_peaks(heatmaps), tags, joint_order=order)  # doctest: +SKIP
    """
    check_whole_peaks("group_by_tags", peaks)
    if check_tensor("group_by_tags", "tags", tags).is_complex():
        raise TypeError(f"group_by_tags: tags must be real, got {tags.dtype}")
    values = peak_tags(peaks, tags)
    values = values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    order = list(range(values.shape[1])) if joint_order is None else _joint_order(joint_order)
    scores, counts, values = _on_host(peaks, values)
    index = call(_ops.group_by_tags.default, (), scores, counts, values, order, min_score, max_distance, max_people)
    return gather_people(peaks, *index)


@torch.library.register_fake("pypose_ops::group_by_tags")
def _(peak_scores, counts, tags, order, min_score, max_distance, max_people):
    return _fake_people(peak_scores, max_people)
