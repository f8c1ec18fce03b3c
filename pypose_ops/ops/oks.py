"""Object keypoint similarity of poses."""

from collections.abc import Sequence

import torch

from ..skeletons import COCO
from ._arguments import check_tensor, expand_visible
from ._autograd import call, call_backward, forward_mode, register_derivative, register_fake, vmap_by_batch

_ops = torch.ops.pypose_ops


def box_areas(
    op: str, area: torch.Tensor | None, boxes: torch.Tensor | None, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Areas as given, or those of the boxes; both in the dtype of the keypoints."""
    if area is None and boxes is None:
        raise ValueError(f"{op}: area or boxes must be given")
    if not like.is_floating_point():
        raise ValueError(f"{op}: keypoints must be float32 or float64, got {like.dtype}")
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


def batched(*tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """The same with a batch of one."""
    return tuple(None if t is None else t.unsqueeze(0) for t in tensors)


def oks(
    pred: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor | None = None,
    *,
    sigmas: Sequence[float] = COCO.sigmas,
    visible: torch.Tensor | None = None,
    boxes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Object keypoint similarity of every predicted and every annotated person, from 0 to 1, as COCO defines it.

    The mean over the annotated joints of ``exp(-d^2 / (2 (2 sigma)^2 (area + eps)))``, d the distance between the two
    joints.

    Args:
        pred: ``(D, K, 2)`` or ``(B, D, K, 2)``, float32 or float64, ``(x, y)`` in image pixels.
        target: ``(G, K, 2)`` or ``(B, G, K, 2)``; non-finite joints do not count.
        area: ``(G,)`` or ``(B, G)``, in square pixels, of the annotated people; non-positive areas count as 0, where
            only coinciding joints are similar. None: the areas of ``boxes``.
        sigmas: K constants, one per joint; see :mod:`pypose_ops.skeletons`. At most 384 on CUDA.
        visible: broadcastable to ``target.shape[:-1]``: the joints that count; bool, or numbers from 0.5 on.
        boxes: ``(G, 4)`` or ``(B, G, 4)``, ``x1, y1, x2, y2``. With bounding boxes, a person without a joint that
            counts is compared by the box enlarged to twice its size on every side, as in pycocotools (d is the distance
            to it; a box with NaN is similar to nothing); without, that similarity is 0. Inverted boxes have area 0.

    Returns:
        ``(D, G)`` or ``(B, D, G)``, of the dtype of ``pred``. A non-finite predicted joint is similar to nothing.
        Differentiable with respect to ``pred``.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value, or neither ``area`` nor ``boxes``.
        RuntimeError: double backward, which is not supported.

    :func:`pypose_ops.reference.oks` is the definition in plain torch.

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


@register_fake("pypose_ops::oks")
def _(pred, target, area, visible, boxes, sigmas):
    torch._check(pred.dim() == 4, lambda: "oks: pred must be (B, D, K, 2)")
    torch._check(target.dim() == 4, lambda: "oks: target must be (B, G, K, 2)")
    return pred.new_empty((pred.shape[0], pred.shape[1], target.shape[1]))


@register_fake("pypose_ops::_oks_backward")
def _(grad, pred, target, area, visible, boxes, sigmas):
    return pred.new_empty(pred.shape)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.sigmas = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad):
    return call_backward(_ops._oks_backward.default, grad, *ctx.saved_tensors, ctx.sigmas), None, None, None, None, None


register_derivative("oks", _setup_context, _backward)
register_derivative("_oks_backward")
vmap_by_batch("oks", 0, 1, 2, 3, 4)
vmap_by_batch("_oks_backward", 0, 1, 2, 3, 4, 5)


@forward_mode("oks")
def _(pred, target, area, visible, boxes, sigmas):
    from .. import reference  # here: it imports result types from this package

    return reference.oks(pred, target, area, sigmas=sigmas, visible=visible, boxes=boxes)


# Of pypose_ops.metrics, on the host.
@register_fake("pypose_ops::_coco_ap")
def _(
    pred, scores, pred_image, target, area, target_image, visible, boxes, crowd, sigmas, max_people, thresholds, lows,
    highs, recalls,
):  # fmt: skip
    rows = (len(lows), len(thresholds))
    return tuple(pred.new_empty(size, dtype=torch.float64) for size in ((*rows, len(recalls)), rows))


@register_fake("pypose_ops::_match_people")
def _(
    pred, scores, pred_image, target, area, target_image, visible, boxes, crowd, sigmas, max_people, threshold
):  # fmt: skip
    return torch.empty_like(target_image, dtype=torch.int64)


vmap_by_batch("_coco_ap")
vmap_by_batch("_match_people")
