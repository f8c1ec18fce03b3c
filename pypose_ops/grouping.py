"""From joints to people: similarity of poses, duplicates, part affinity fields, associative embedding."""

import operator
from typing import NamedTuple

import torch

from ._arguments import check_tensor, choice, expand_visible
from ._autograd import call, no_double_backward
from .skeletons import COCO

_ops = torch.ops.pypose_ops

# In the order of the enumerations in csrc/grouping.
_RULES = ("openpose", "trt_pose", "trapezoid")
_ASSIGNMENTS = ("optimal", "greedy")


class Kept(NamedTuple):
    """What a suppression keeps: ``mask`` (..., N) bool, and ``scores`` (..., N), lowered where it is soft."""

    mask: torch.Tensor
    scores: torch.Tensor


class People(NamedTuple):
    """Up to P people a picture, best first; what is not filled is coordinate -1 and score 0.

    Attributes:
        coords: (B, P, K, 2), ``(x, y)`` as in the peaks; joints that a person lacks are -1.
        joint_scores: (B, P, K), the peaks' scores; 0 for joints that a person lacks.
        scores: (B, P), of the people.
        joints: (B, P) int64, how many joints a person has.
        counts: (B,) int64, how many people there are.
    """

    coords: torch.Tensor
    joint_scores: torch.Tensor
    scores: torch.Tensor
    joints: torch.Tensor
    counts: torch.Tensor


# OKS ------------------------------------------------------------------------------------------------------------------


def box_areas(op, area, boxes, like):
    """Areas as given, or those of the boxes; both in the dtype of the keypoints."""
    if area is None and boxes is None:
        raise ValueError(f"{op}: area or boxes must be given")
    if not like.is_floating_point():
        raise TypeError(f"{op}: keypoints must be float32 or float64, got {like.dtype}")
    boxes = None if boxes is None else check_tensor(op, "boxes", boxes).detach().to(like.dtype)
    if area is None:
        if boxes.dim() == 0 or boxes.shape[-1] != 4:
            raise ValueError(f"{op}: boxes must be (..., 4), got shape {tuple(boxes.shape)}")
        return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1), boxes
    return check_tensor(op, "area", area).detach().to(like.dtype), boxes


def _sigmas(op, sigmas):
    try:
        return [float(sigma) for sigma in sigmas]
    except (TypeError, ValueError):
        raise ValueError(f"{op}: sigmas must be numbers, got {sigmas!r}") from None


def batched(*tensors):
    return tuple(None if t is None else t.unsqueeze(0) for t in tensors)


def oks(pred, target, area=None, *, sigmas=COCO.sigmas, visible=None, boxes=None):
    """Object keypoint similarity of every predicted with every annotated person, from 0 to 1, as COCO defines it.

    The mean over the annotated joints of ``exp(-d^2 / (2 (2 sigma)^2 (area + eps)))``, d the distance of the joints.

    Args:
        pred (Tensor): ``(D, K, 2)`` or ``(B, D, K, 2)``; float32 or float64; ``(x, y)`` in picture pixels.
        target (Tensor): ``(G, K, 2)`` or ``(B, G, K, 2)``; joints that are not finite do not count.
        area (Tensor, optional): ``(G,)`` or ``(B, G)`` in square pixels, of the annotated people; what is not positive
            counts as 0, where only coinciding joints are similar. None: the areas of ``boxes``.
        sigmas (sequence of K floats): constants of the joints; see :mod:`pypose_ops.skeletons`. At most 384 on CUDA.
        visible (Tensor, optional): broadcastable to ``target.shape[:-1]``: joints that count; bool, or a number from
            0.5 on.
        boxes (Tensor, optional): ``(G, 4)`` or ``(B, G, 4)``, ``x1, y1, x2, y2``. With them, somebody without a joint
            that counts is compared by the box doubled to every side, as in pycocotools (d is the distance to it;
            a box with NaN is similar to nothing); without, that similarity is 0.

    Returns:
        Tensor: ``(D, G)`` or ``(B, D, G)``, of the dtype of ``pred``. A predicted joint that is not finite is similar
        to nothing. Differentiable once, with respect to ``pred``.

    Raises:
        ValueError: neither area nor boxes; visible does not broadcast.
        RuntimeError: another argument has the wrong shape, dtype, device or value.

    Example:
        >>> people = torch.rand(3, 17, 2) * 100
        >>> oks(people, people, torch.full((3,), 5000.0)).diagonal()
        tensor([1., 1., 1.])
    """
    single = check_tensor("oks", "pred", pred).dim() == 3
    target = check_tensor("oks", "target", target).detach().to(pred.dtype)
    area, boxes = box_areas("oks", area, boxes, pred)
    if visible is not None:
        visible = expand_visible("oks", visible, target)
    if single:
        pred, target, area, visible, boxes = batched(pred, target, area, visible, boxes)
    result = call(_ops.oks.default, (pred,), pred, target, area, visible, boxes, _sigmas("oks", sigmas))
    return result[0] if single else result


@torch.library.register_fake("pypose_ops::oks")
def _(pred, target, area, visible, boxes, sigmas):
    torch._check(pred.dim() == 4, lambda: "oks: pred must be (B, D, K, 2)")
    torch._check(target.dim() == 4, lambda: "oks: target must be (B, G, K, 2)")
    return pred.new_empty((pred.shape[0], pred.shape[1], target.shape[1]))


@torch.library.register_fake("pypose_ops::_oks_backward")
def _(grad, pred, target, area, visible, boxes, sigmas):
    return pred.new_empty(pred.shape)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.sigmas = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad):
    return _ops._oks_backward.default(grad, *ctx.saved_tensors, ctx.sigmas), None, None, None, None, None


torch.library.register_autograd("pypose_ops::oks", _backward, setup_context=_setup_context)
no_double_backward("_oks_backward")


def oks_nms(
    keypoints,
    scores,
    area=None,
    *,
    threshold=0.9,
    soft=False,
    sigmas=COCO.sigmas,
    visible=None,
    boxes=None,
    max_people=None,
):
    """Suppresses people who are predicted twice, by their OKS with better ones.

    The person of the highest score left is kept (the first of equals), the others are compared with it, and so on. The
    OKS of two people is that of :func:`oks` with the mean of their areas, over the joints that both have.

    Args:
        keypoints (Tensor): ``(N, K, 2)`` or ``(B, N, K, 2)``; float32 or float64; ``(x, y)`` in picture pixels. Joints
            that are not finite do not count.
        scores (Tensor): ``(N,)`` or ``(B, N)``; whoever's is not finite is not kept and suppresses nobody, so that
            pictures with fewer people can be filled up.
        area, boxes (Tensor, optional): as in :func:`oks`, of these people; one of them must be given.
        threshold (float): hard: who has an OKS above it with somebody kept is suppressed; soft: the scale below.
        soft (bool): nobody is suppressed, but scores are multiplied by ``exp(-oks^2 / threshold)``.
        sigmas, visible: as in :func:`oks`.
        max_people (int, optional): how many are kept at most, in every picture.

    Returns:
        Kept: ``mask`` and ``scores``, of the shape of ``scores``; no host sync, ``keypoints[mask]`` is the caller's.

    Example:
        >>> twice = (torch.rand(1, 17, 2) * 100).repeat(2, 1, 1)
        >>> oks_nms(twice, torch.tensor([0.5, 0.9]), torch.tensor([5000.0, 5000.0])).mask
        tensor([False,  True])
    """
    single = check_tensor("oks_nms", "keypoints", keypoints).dim() == 3
    keypoints = keypoints.detach()
    scores = check_tensor("oks_nms", "scores", scores).detach().to(keypoints.dtype)
    area, _ = box_areas("oks_nms", area, boxes, keypoints)
    if visible is not None:
        visible = expand_visible("oks_nms", visible, keypoints)
    if single:
        keypoints, scores, area, visible = batched(keypoints, scores, area, visible)
    if max_people is None:
        max_people = keypoints.shape[1] if keypoints.dim() > 1 else 0
    mask, scores = call(
        _ops.oks_nms.default,
        (),
        keypoints,
        scores,
        area,
        visible,
        _sigmas("oks_nms", sigmas),
        threshold,
        soft,
        max_people,
    )
    return Kept(mask[0], scores[0]) if single else Kept(mask, scores)


@torch.library.register_fake("pypose_ops::oks_nms")
def _(keypoints, scores, area, visible, sigmas, threshold, soft, max_people):
    torch._check(keypoints.dim() == 4, lambda: "oks_nms: keypoints must be (B, N, K, 2)")
    shape = keypoints.shape[:2]
    return keypoints.new_empty(shape, dtype=torch.bool), keypoints.new_empty(shape)


# Part affinity fields -------------------------------------------------------------------------------------------------


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
    """A PeakSet, or anything that has its three tensors."""
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
        peaks (PeakSet): of :func:`pypose_ops.find_peaks`, in pixels of ``pafs``: ``coords`` (B, K, M, 2) and ``counts``
            (B, K).
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
        >>> peaks = PeakSet(torch.tensor([[[[1.0, 4.0]], [[7.0, 4.0]]]]), torch.ones(1, 2, 1), torch.ones(1, 2).long())
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


def group_people(
    peaks,
    limb_scores,
    limbs,
    *,
    assignment="optimal",
    min_limb_score=0.0,
    min_joints=3,
    min_score=0.4,
    max_people=32,
):
    """Puts joints together to people: an assignment per limb, then the limbs in the order of the list.

    Limbs that share a joint become one person, two parts of a person are merged when they have no joint in common, and
    a limb that closes a circle adds to the score. A limb that contradicts those before it is left out, so the more
    reliable limbs belong first.

    The grouping itself runs on the host. From a GPU it takes the scores and counts, in one copy, and nothing else.

    Args:
        peaks (PeakSet): of :func:`pypose_ops.find_peaks`: ``coords`` (B, K, M, 2), ``scores`` (B, K, M), ``counts``
            (B, K).
        limb_scores (Tensor): (B, L, M, M), of :func:`score_limbs`.
        limbs (sequence of L pairs): joint indices, as given to :func:`score_limbs`.
        assignment (str): ``"optimal"``: the largest sum of scores; ``"greedy"``: the best limb first, as OpenPose.
        min_limb_score (float): limbs must score more, at least 0; what is not finite is no limb.
        min_joints (int): people with fewer are dropped.
        min_score (float): people with less are dropped. A person's score is the sum of the scores of its joints and
            limbs over the number of its joints, OpenPose's rule.
        max_people (int): rows P of the result; the best P people are returned.

    Returns:
        People: on the device of the peaks; static shapes.

    Example:
        >>> people = group_people(peaks, score_limbs(pafs, peaks, limbs), limbs)  # doctest: +SKIP
        >>> people.coords[0, : people.counts[0]]  # doctest: +SKIP
    """
    limbs = flat_limbs("group_people", "limbs", limbs)
    check_whole_peaks("group_people", peaks)
    check_tensor("group_people", "limb_scores", limb_scores)
    scores, counts, limb_scores = _on_host(peaks, limb_scores.detach())
    index = call(
        _ops.group_people.default,
        (),
        scores,
        counts,
        limb_scores,
        limbs,
        choice("group_people", "assignment", assignment, _ASSIGNMENTS),
        min_limb_score,
        min_joints,
        min_score,
        max_people,
    )
    return gather_people(peaks, *index)


def _on_host(peaks, table):
    """Scores and counts of the peaks, and a table with their dtype: on the CPU, by one copy."""
    scores, counts = peaks.scores.detach().to(table.dtype), peaks.counts
    if table.device.type == "cpu":
        return scores, counts.to(torch.int64), table
    parts = (scores, counts.to(table.dtype), table)
    flat = torch.cat([part.flatten() for part in parts]).cpu()
    scores, counts, table = (
        values.view(part.shape) for values, part in zip(flat.split([p.numel() for p in parts]), parts, strict=True)
    )
    return scores, counts.to(torch.int64), table


def gather_people(peaks, index, scores, joints, counts):
    """The peaks with these indices (B, P, K), -1 for none, as People on the peaks' device."""
    device = peaks.coords.device
    index, scores, joints, counts = (v.to(device, non_blocking=True) for v in (index, scores, joints, counts))
    if peaks.coords.shape[2] == 0:  # no peak at all to gather
        coords = peaks.coords.new_full((*index.shape, 2), -1)
        return People(coords, peaks.scores.new_zeros(index.shape), scores.to(peaks.scores.dtype), joints, counts)
    present = index >= 0
    joints_each, peak_count = peaks.scores.shape[1:]
    place = (index.clamp(min=0) + peak_count * torch.arange(joints_each, device=device)).flatten(1)
    coords = peaks.coords.detach().flatten(1, 2).gather(1, place.unsqueeze(-1).expand(*place.shape, 2))
    joint_scores = peaks.scores.detach().flatten(1).gather(1, place)
    coords, joint_scores = coords.view(*index.shape, 2), joint_scores.view(index.shape)
    return People(
        coords.where(present.unsqueeze(-1), -1.0),
        joint_scores.where(present, 0.0),
        scores.to(peaks.scores.dtype),
        joints,
        counts,
    )


@torch.library.register_fake("pypose_ops::group_people")
def _(peak_scores, counts, limb_scores, limbs, assignment, min_limb_score, min_joints, min_score, max_people):
    return _fake_people(peak_scores, max_people)


def _fake_people(peak_scores, max_people):
    batch, joints = peak_scores.shape[:2]
    long = {"dtype": torch.int64}
    return (
        peak_scores.new_empty((batch, max_people, joints), **long),
        peak_scores.new_empty((batch, max_people)),
        peak_scores.new_empty((batch, max_people), **long),
        peak_scores.new_empty((batch,), **long),
    )


# Associative embedding ------------------------------------------------------------------------------------------------


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
        peaks (PeakSet): of :func:`pypose_ops.find_peaks`; there: 30 peaks, a radius of 2.
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
