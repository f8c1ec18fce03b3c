"""Votes of boxes for heatmap pixels."""

import torch

from ._arguments import check_size, check_tensor
from ._autograd import call, call_backward, forward_mode, register_derivative, register_fake, vmap_by_batch

_ops = torch.ops.pypose_ops


def box_vote(boxes: torch.Tensor, weights: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Adds each box's weights to every pixel that the box covers: windows vote for joints (DS-CNN, Fan et al. 2015).

    ``out[k, y, x]`` is the sum of ``weights[p, k]`` over the boxes p that cover pixel ``(x, y)``. Time is
    O(boxes + pixels) for boxes of any size: four signed corners, then prefix sums in exact 64-bit integers.
    For the mean over the covering boxes, divide by a second vote with ``torch.ones_like(weights)``.

    Args:
        boxes (Tensor): ``(P, 4)`` or ``(B, P, 4)``, float32 or float64: ``x1, y1, x2, y2`` in pixels of the maps, pixel
            centres at integers; a box covers the pixels whose centres lie in it, edges included. Parts outside the
            map are ignored; a box with NaN or with ``x2 < x1`` or ``y2 < y1`` covers nothing.
        weights (Tensor): ``(P, K)`` or ``(B, P, K)``, floating; one that is not finite counts 0.
        size (tuple[int, int]): ``(height, width)`` of the maps.

    Returns:
        Tensor: ``(K, height, width)`` or ``(B, K, height, width)``, of the dtype of ``weights``. Weights below
        ``2^-60`` of the largest one of the same map times the number of boxes count as 0. CUDA needs 8 more bytes per
        pixel.

    Differentiable with respect to ``weights`` (finite ones), any number of times; deterministic.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: size is not two positive integers; another argument has
            the wrong shape, dtype or device; the message names it.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 0.0]])
        >>> box_vote(boxes, torch.tensor([[0.5], [2.0]]), (2, 3))
        tensor([[[0.5000, 2.5000, 2.0000],
                 [0.5000, 0.5000, 0.0000]]])
    """
    height, width = check_size("box_vote", size)
    check_tensor("box_vote", "boxes", boxes)
    check_tensor("box_vote", "weights", weights)
    return call(_ops.box_vote.default, (weights,), boxes, weights, height, width)


@register_fake("pypose_ops::box_vote")
def _(boxes, weights, height, width):
    torch._check(weights.dim() in (2, 3), lambda: "box_vote: weights must be (P, K) or (B, P, K)")
    return weights.new_empty((*weights.shape[:-2], weights.shape[-1], height, width))


@register_fake("pypose_ops::_box_vote_backward")
def _(grad, boxes):
    return grad.new_empty((*boxes.shape[:-1], grad.shape[-3]))


def _vote_setup_context(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])


def _vote_backward(ctx, grad):
    (boxes,) = ctx.saved_tensors
    return None, call_backward(_ops._box_vote_backward.default, grad, boxes), None, None


def _vote_twice_setup_context(ctx, inputs, output):
    grad, boxes = inputs
    ctx.save_for_backward(boxes)
    ctx.size = grad.shape[-2:]


def _vote_twice(ctx, grad):
    (boxes,) = ctx.saved_tensors
    return _ops.box_vote.default(boxes, grad, *ctx.size), None


# Linear in the weights: the derivative of the backward is the vote.
register_derivative("box_vote", _vote_setup_context, _vote_backward)


register_derivative("_box_vote_backward", _vote_twice_setup_context, _vote_twice)

vmap_by_batch("box_vote")
vmap_by_batch("_box_vote_backward")


@forward_mode("box_vote")
def _(boxes, weights, height, width):
    from .. import reference  # here: it imports result types from this package

    return reference.box_vote(boxes, weights, (height, width))
