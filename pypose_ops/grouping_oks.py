"""Object keypoint similarity: how alike two poses are, and the suppression of people who are predicted twice."""

from typing import NamedTuple

import torch

from ._arguments import check_tensor, expand_visible
from ._autograd import call, no_double_backward
from .skeletons import COCO

_ops = torch.ops.pypose_ops


class Kept(NamedTuple):
    """What a suppression keeps: ``mask`` (..., N) bool, and ``scores`` (..., N), lowered where it is soft."""

    mask: torch.Tensor
    scores: torch.Tensor


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
