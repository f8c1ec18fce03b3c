"""The heatmap loss without a target tensor: the targets are drawn and compared in one pass."""

from typing import Literal

import torch

from ._arguments import check_number, check_tensor, choice, expand_sigma, expand_visible, expand_weight
from ._autograd import call, call_backward, forward_mode, register_derivative, register_fake, vmap_by_batch
from .gaussian_heatmaps import _CENTERS, _COMBINES, _NORMALIZES, _PROFILES

_ops = torch.ops.pypose_ops
_REDUCTIONS = ("none", "mean", "sum")


def heatmap_mse_loss(
    pred: torch.Tensor,
    keypoints: torch.Tensor,
    sigma: float | torch.Tensor,
    *,
    weight: torch.Tensor | None = None,
    visible: torch.Tensor | None = None,
    reduction: Literal["none", "mean", "sum"] = "mean",
    profile: Literal["gaussian", "disc"] = "gaussian",
    center: Literal["exact", "rounded"] = "exact",
    truncate: float | None = None,
    combine: Literal["max", "sum", "sum_clip"] = "max",
    normalize: Literal["peak", "sum"] = "peak",
) -> torch.Tensor:
    """Mean squared error against the targets of :func:`gaussian_heatmaps`, without materialising them.

    The forward pass reads ``pred`` once; the backward pass draws the targets again, reads ``pred`` once and writes its
    gradient once. Beyond ``pred`` and its gradient both need memory for one number per map.

    Args:
        pred (Tensor): ``(B, K, H, W)``, or ``(S, B, K, H, W)`` for S stages that share their targets; float16,
            bfloat16, float32 or float64.
        keypoints, sigma, visible, profile, center, truncate, combine, normalize: the targets, as in
            :func:`gaussian_heatmaps`: ``keypoints`` ``(B, K, 2)`` or ``(B, P, K, 2)``, ``(x, y)`` in heatmap pixels.
        weight (Tensor, optional): of each map, broadcastable to ``pred.shape[:-2]``, so ``(B, K)`` or ``(K,)`` also
            with stages. Weights that are not positive finite numbers count as 0; ``pred`` is ignored where the
            weight is 0, NaN included. Not differentiable: multiply what ``reduction="none"`` returns.
        reduction (str): ``"none"``: each map's mean over its pixels times its weight; ``"mean"``: the mean of those,
            which is ``F.mse_loss`` of the maps; ``"sum"``: the weighted sum over all pixels of all maps.

    Without a people axis, the map of a keypoint that is invisible or not finite, and so draws nothing, weighs nothing.
    With one, a map without people is a target of zeros; ``weight`` can exclude it.

    Returns:
        Tensor: float32, for float64 maps float64: a number, or ``pred.shape[:-2]`` for ``reduction="none"``, of which
        online hard keypoint mining is ``loss.topk(8, -1).values.mean()``.

    Differentiable once with respect to ``pred``, and, as :func:`gaussian_heatmaps` is, to ``keypoints`` and a ``sigma``
    tensor; deterministic.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an unknown option name; weight, visible or sigma do not broadcast; weight requires a gradient;
            another argument has the wrong shape, dtype, device or value; the message names it.

    Example:
        >>> pred = torch.zeros(8, 17, 64, 48, dtype=torch.bfloat16, requires_grad=True)
        >>> heatmap_mse_loss(pred, torch.rand(8, 17, 2) * 40, 2.0).backward()
        >>> pred.grad.shape
        torch.Size([8, 17, 64, 48])
    """
    op = "heatmap_mse_loss"
    choice(op, "reduction", reduction, _REDUCTIONS)
    check_tensor(op, "pred", pred)
    check_tensor(op, "keypoints", keypoints)
    if isinstance(sigma, torch.Tensor):
        sigma, sigma_value = expand_sigma(op, sigma, keypoints), 0.0
    else:
        sigma, sigma_value = None, check_number(op, "sigma", sigma)
    if visible is not None:
        visible = expand_visible(op, visible, keypoints)
    if weight is not None:
        weight = expand_weight(op, weight, pred)
    if profile == "disc":
        keypoints = keypoints.detach()
        sigma = sigma.detach() if sigma is not None else None
    losses = call(
        _ops.heatmap_mse_loss.default,
        (pred, keypoints, sigma),
        pred,
        keypoints,
        sigma,
        sigma_value,
        weight,
        visible,
        choice(op, "profile", profile, _PROFILES),
        choice(op, "center", center, _CENTERS),
        truncate,
        choice(op, "combine", combine, _COMBINES),
        choice(op, "normalize", normalize, _NORMALIZES),
    )
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum() * (pred.shape[-2] * pred.shape[-1])


@register_fake("pypose_ops::heatmap_mse_loss")
def _(pred, keypoints, sigma, sigma_value, weight, visible, profile, center, truncate, combine, normalize):
    torch._check(pred.dim() in (4, 5), lambda: "heatmap_mse_loss: pred must be (B, K, H, W) or (S, B, K, H, W)")
    return pred.new_empty(pred.shape[:-2], dtype=_loss_dtype(pred))


@register_fake("pypose_ops::_heatmap_mse_loss_backward")
def _(
    grad, pred, keypoints, sigma, sigma_value, weight, visible, profile, center, truncate, combine, normalize,
    needs_pred, needs_target,
):  # fmt: skip
    people = keypoints.shape[1] if keypoints.dim() == 4 else 1
    shape = (keypoints.shape[0], people, keypoints.shape[-2], 2) if needs_target else (0,)
    grads = (keypoints.new_empty(shape, dtype=_loss_dtype(pred)) for _ in range(2))
    return pred.new_empty(pred.shape if needs_pred else (0,)), *grads


def _loss_dtype(pred):
    return torch.float64 if pred.dtype == torch.float64 else torch.float32


def _setup_context(ctx, inputs, output):
    pred, keypoints, sigma, sigma_value, weight, visible, *options = inputs
    ctx.save_for_backward(pred, keypoints, sigma, weight, visible)
    ctx.sigma_value, ctx.options = sigma_value, options


def _backward(ctx, grad):
    pred, keypoints, sigma, weight, visible = ctx.saved_tensors
    needs_pred, needs_target = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
    grad_pred, grad_keypoints, grad_sigma = call_backward(
        _ops._heatmap_mse_loss_backward.default,
        grad,
        pred,
        keypoints,
        sigma,
        ctx.sigma_value,
        weight,
        visible,
        *ctx.options,
        needs_pred,
        needs_target,
    )
    if not needs_pred:
        grad_pred = None
    if not needs_target:
        return grad_pred, *(None,) * 10
    grad_keypoints = grad_keypoints.view_as(keypoints).to(keypoints.dtype)
    grad_sigma = None if sigma is None else grad_sigma.view_as(sigma).to(sigma.dtype)
    return grad_pred, grad_keypoints, grad_sigma, *(None,) * 8


register_derivative("heatmap_mse_loss", _setup_context, _backward)
register_derivative("_heatmap_mse_loss_backward")
vmap_by_batch("heatmap_mse_loss")
vmap_by_batch("_heatmap_mse_loss_backward")


@forward_mode("heatmap_mse_loss")
def _(pred, keypoints, sigma, sigma_value, weight, visible, profile, center, truncate, combine, normalize):
    from .. import reference  # here: it imports result types from this package

    return reference.heatmap_mse_loss(
        pred,
        keypoints,
        sigma_value if sigma is None else sigma,
        weight=weight,
        visible=visible,
        reduction="none",
        profile=_PROFILES[profile],
        center=_CENTERS[center],
        truncate=truncate,
        combine=_COMBINES[combine],
        normalize=_NORMALIZES[normalize],
    )
