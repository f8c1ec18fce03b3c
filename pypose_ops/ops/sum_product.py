"""Exact marginals on a tree of joints with quadratic springs."""

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
from ._results import Marginals
from .max_product import _dtype
from .mrf_message_passing import flat_edges

_ops = torch.ops.pypose_ops


def sum_product(
    unary: torch.Tensor, edges: Sequence[tuple[int, int]] | torch.Tensor, deformation: torch.Tensor, *, root: int = 0
) -> Marginals:
    """Every joint's marginals on a tree of joints with Gaussian springs, exactly.

    The probability of a pose is ``exp(score) / Z``, with the score of :func:`max_product`. Messages are computed in the
    logarithm, along x and then along y, each as the exact sum over all sources of the line: no range is cut off, and
    nothing underflows.

    Args:
        unary, edges, deformation: as in :func:`max_product`.
        root (int): the joint where the messages turn round. It only affects rounding.

    Returns:
        Marginals: ``log_marginals (B, K, H, W)``, each map a distribution, and ``log_partition (B,)``, log Z; float32
        (float64 for a float64 unary). What is impossible is -inf; an image without a possible pose is -inf throughout.

    Differentiable, once, with respect to ``unary`` and ``deformation``. The gradient of ``log_partition`` by ``unary``
    are the marginals: ``log_partition`` minus the score of a labelled pose is the loss of a conditional random
    field.

    Raises:
        As :func:`max_product`.

    Example:
        >>> unary = torch.zeros(1, 2, 8, 12)
        >>> unary[0, 0, 3, 2] = 20.0
        >>> log_marginals, _ = sum_product(unary, [(0, 1)], torch.tensor([[5.0, 1.0, 0.1, 0.1]]))
        >>> divmod(log_marginals[0, 1].argmax().item(), 12)
        (4, 7)
    """
    flat = flat_edges("sum_product", edges)
    differentiable = (unary, deformation)
    maps, total, _ = call(
        _ops.sum_product.default, differentiable, unary, flat, deformation, root, is_differentiated(*differentiable)
    )
    return Marginals(maps, total)


@register_fake("pypose_ops::sum_product")
def _(unary, edges, deformation, root, keep_messages):
    torch._check(unary.dim() == 4, lambda: "sum_product: unary must be (B, K, H, W)")
    batch, joints, height, width = unary.shape
    dtype = _dtype(unary)
    return (
        unary.new_empty((batch, joints, height, width), dtype=dtype),
        unary.new_empty((batch,), dtype=dtype),
        unary.new_empty((batch, len(edges) if keep_messages else 0, height, width), dtype=dtype),
    )


@register_fake("pypose_ops::_sum_product_backward")
def _(grad, grad_partition, unary, log_marginals, messages, deformation, edges, root):
    return log_marginals.new_empty(log_marginals.shape), log_marginals.new_empty((len(edges) // 2, 4))


def _setup_sum(ctx, inputs, output):
    unary, edges, deformation, root, _ = inputs
    maps, _, messages = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(unary, deformation, maps, messages)
    ctx.options = (edges, root)


def _sum_backward(ctx, grad, grad_total, grad_messages):
    unary, deformation, maps, messages = ctx.saved_tensors
    if messages.shape[1] < len(ctx.options[0]):  # a caller of torch.ops did not keep them
        messages = call(
            _ops.sum_product.default, (), unary.detach(), ctx.options[0], deformation.detach(), ctx.options[1], True
        )[2]
    grad = torch.zeros_like(maps) if grad is None else grad
    grad_total = maps.new_zeros(maps.shape[:1]) if grad_total is None else grad_total
    of_unary, of_deformation = call_backward(
        _ops._sum_product_backward.default, grad, grad_total, unary, maps, messages, deformation, *ctx.options
    )
    return of_unary.to(unary.dtype), None, of_deformation.to(deformation.dtype), None, None


register_derivative("sum_product", _setup_sum, _sum_backward)
register_derivative("_sum_product_backward")
vmap_by_batch("sum_product", 0)
vmap_by_batch("_sum_product_backward")


@forward_mode("sum_product")
def _(unary, edges, deformation, root, keep_messages):
    from .. import reference  # here: it imports result types from this package

    pairs = list(zip(edges[::2], edges[1::2], strict=True))
    return *reference.sum_product(unary, pairs, deformation, root=root), None
