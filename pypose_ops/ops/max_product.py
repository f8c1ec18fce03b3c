"""The best pose of a tree of joints with quadratic springs, exactly."""

import math
from collections.abc import Sequence

import torch

from ._autograd import (
    call,
    call_backward,
    forward_mode,
    is_differentiated,
    register_derivative,
    register_fake,
    vmap_by_batch,
)
from ._results import BestPose, Peaks
from .mrf_message_passing import flat_edges

_ops = torch.ops.pypose_ops


def max_product(
    unary: torch.Tensor, edges: Sequence[tuple[int, int]] | torch.Tensor, deformation: torch.Tensor, *, root: int = 0
) -> BestPose:
    """Finds the exact best pose of a tree of joints with quadratic springs, and every joint's max-marginals.

    The score of a pose that puts joint k at pixel ``p_k = (x_k, y_k)`` is::

        sum over k of unary_k(p_k)
          - sum over edges (a, b) of  weight_x (x_b - x_a - mean_x)^2 + weight_y (y_b - y_a - mean_y)^2

    Messages run from the leaves to the root and back, each a generalised distance transform along x and then along y
    (Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled Functions", 2012): time linear in the pixels,
    whatever the weights. Fractions of pixels in the means are exact.

    Args:
        unary (Tensor): ``(B, K, H, W)``, float16, bfloat16, float32 or float64; log-scores of every joint, at most
            16384 pixels a side. Pixels that are not finite are impossible.
        edges (list[tuple[int, int]]): K - 1 pairs ``(a, b)`` that make a tree, in any order and direction. A tensor is
            read back to the host; under ``torch.compile`` and in CUDA graphs pass a list.
        deformation (Tensor): ``(K - 1, 4)``, float32 or float64: ``mean_x, mean_y, weight_x, weight_y`` per edge. The
            mean is where b is expected, seen from a, in pixels; a weight is ``1 / (2 sigma^2)`` of a Gaussian. An axis
            whose weight is negative or not finite, or whose mean is not finite, has no spring: there b may be anywhere.
        root (int): the joint that is placed first. It matters only where several poses are best.

    Returns:
        BestPose: ``(peaks, max_marginals)``.

        - ``peaks``, ``Peaks(coords (B, K, 2), scores (B, K))``: pixels ``(x, y)`` of the best pose, and what the unary
          of each joint says there. Of several best places of the root the first in row-major order counts, and so on
          along the edges. An image without a possible pose has NaN coordinates and scores 0.
        - ``max_marginals`` ``(B, K, H, W)``: the score of the best pose that has joint k there; -inf where none is
          possible. Every joint's maximum is the score of the best pose.

        All are float32 (float64 for a float64 unary).

    Differentiable, once, with respect to ``unary`` and ``deformation``, as ``torch.max`` is: the gradient of a
    max-marginal goes to the pose whose score it is, that of a score to its pixel. ``coords`` has no gradient. A
    max-margin loss takes ``max_marginals[:, root].amax((-2, -1))`` as the score of the best pose. Scores beyond the
    range of the dtype stay at its largest number.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: edges are not pairs of integers; edges are not a tree; another argument has the wrong shape, dtype,
            device or value; the message names it.

    Example:
        >>> unary = torch.zeros(1, 2, 8, 12)
        >>> unary[0, 0, 3, 2] = 1.0
        >>> peaks, _ = max_product(unary, [(0, 1)], torch.tensor([[5.0, 1.0, 0.1, 0.1]]))
        >>> peaks.coords.tolist()
        [[[2.0, 3.0], [7.0, 4.0]]]
    """
    flat = flat_edges("max_product", edges)
    differentiable = (unary, deformation)
    maps, coords, scores, _ = call(
        _ops.max_product.default, differentiable, unary, flat, deformation, root, is_differentiated(*differentiable)
    )
    coords = coords.detach()  # -1 without a pose, for the backward
    return BestPose(Peaks(coords.masked_fill(coords < 0, math.nan), scores), maps)


def _dtype(unary):
    return torch.float64 if unary.dtype == torch.float64 else torch.float32


@register_fake("pypose_ops::max_product")
def _(unary, edges, deformation, root, keep_steps):
    torch._check(unary.dim() == 4, lambda: "max_product: unary must be (B, K, H, W)")
    batch, joints, height, width = unary.shape
    dtype = _dtype(unary)
    return (
        unary.new_empty((batch, joints, height, width), dtype=dtype),
        unary.new_empty((batch, joints, 2), dtype=dtype),
        unary.new_empty((batch, joints), dtype=dtype),
        unary.new_empty((batch, len(edges) if keep_steps else 0, 2, height, width), dtype=torch.int16),
    )


@register_fake("pypose_ops::_max_product_backward")
def _(grad, grad_scores, max_marginals, coords, steps, deformation, edges, root):
    return max_marginals.new_empty(max_marginals.shape), max_marginals.new_empty((len(edges) // 2, 4))


def _setup_max(ctx, inputs, output):
    unary, edges, deformation, root, _ = inputs
    maps, coords, _, steps = output
    ctx.set_materialize_grads(False)  # the steps' would be as large as they are
    ctx.save_for_backward(unary, deformation, maps, coords, steps)
    ctx.options = (edges, root)


def _max_backward(ctx, grad, grad_coords, grad_scores, grad_steps):
    unary, deformation, maps, coords, steps = ctx.saved_tensors
    if steps.shape[1] < len(ctx.options[0]):  # a caller of torch.ops did not keep them
        steps = call(
            _ops.max_product.default, (), unary.detach(), ctx.options[0], deformation.detach(), ctx.options[1], True
        )[3]
    grad = torch.zeros_like(maps) if grad is None else grad
    grad_scores = maps.new_zeros(maps.shape[:2]) if grad_scores is None else grad_scores
    of_unary, of_deformation = call_backward(
        _ops._max_product_backward.default, grad, grad_scores, maps, coords, steps, deformation, *ctx.options
    )
    return of_unary.to(unary.dtype), None, of_deformation.to(deformation.dtype), None, None


register_derivative("max_product", _setup_max, _max_backward)
register_derivative("_max_product_backward")
vmap_by_batch("max_product", 0)
vmap_by_batch("_max_product_backward")


@forward_mode("max_product")
def _(unary, edges, deformation, root, keep_steps):
    from .. import reference  # here: it imports result types from this package

    pairs = list(zip(edges[::2], edges[1::2], strict=True))
    peaks, maps = reference.max_product(unary, pairs, deformation, root=root)
    return maps, *peaks, None
