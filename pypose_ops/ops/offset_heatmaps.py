"""UDP's combined target: a disc and the offsets to the joint."""

from typing import Literal

import torch

from ._arguments import check_number, check_size, check_tensor, choice, expand_visible
from ._autograd import (
    _empty_gradient,
    call,
    call_backward,
    forward_mode,
    is_plain,
    register_derivative,
    register_fake,
    vmap_by_batch,
)
from ._out import draw, out_dtype, register_out

_ops = torch.ops.pypose_ops


_WINNERS = ("nearest", "last")


def offset_heatmaps(
    keypoints: torch.Tensor,
    radius: float,
    size: tuple[int, int],
    *,
    visible: torch.Tensor | None = None,
    combine: Literal["nearest", "last"] = "nearest",
    dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draws UDP's combined target (Huang et al., CVPR 2020): a disc around each joint, and the offsets to it.

    Three maps per joint: 1 within ``radius`` of it (border included) and 0 elsewhere; then, in every pixel of the map,
    the offset to it, ``(x_joint - x) / radius`` and ``(y_joint - y) / radius``. A joint that is invisible, not finite
    or further than 1e6 pixels from the origin leaves its three maps 0.

    Args:
        keypoints (Tensor): ``(B, K, 2)``, or ``(B, P, K, 2)`` for P people; float32 or float64; ``(x, y)`` in heatmap
            pixels, pixel centres at integers.
        radius (float): in pixels, from 0.001 on.
        size (tuple[int, int]): ``(height, width)`` of the maps.
        visible (Tensor, optional): as in :func:`gaussian_heatmaps`.
        combine (str): whose offset a pixel holds: that of the ``"nearest"`` person (the first of equals), or of the
            ``"last"``, as in MMPose.
        dtype (torch.dtype, optional): of the maps: float16, bfloat16, float32 or float64. Default: that of the
            keypoints.
        out (Tensor, optional): what to draw into, ``(B, 3 * K, height, width)``, contiguous, on the keypoints'
            device; it is returned. Nothing is allocated, and nothing can be differentiated.

    Returns:
        Tensor: ``(B, 3 * K, height, width)``, contiguous: disc, x and y of the first joint, then of the second, ...

    The offsets are differentiable with respect to ``keypoints``, deterministically: the gradient of a pixel goes to the
    person whose offset it holds. Discs are piecewise constant. Double backward is not supported.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value, or an unknown name.

    Example:
        >>> maps = offset_heatmaps(torch.tensor([[[12.5, 40.0]]]), 4.0, (64, 48))
        >>> maps[0, :, 40, 12]
        tensor([1.0000, 0.1250, 0.0000])
    """
    op = "offset_heatmaps"
    check_tensor(op, "keypoints", keypoints)
    outs = () if out is None else (out,)
    return draw(
        _ops.offset_heatmaps,
        outs,
        (keypoints,),
        keypoints,
        check_number(op, "radius", radius),
        None if visible is None else expand_visible(op, visible, keypoints),
        *check_size(op, size),
        choice(op, "combine", combine, _WINNERS),
        out_dtype(op, dtype, keypoints, *outs),
    )


@register_fake("pypose_ops::offset_heatmaps")
def _(keypoints, radius, visible, height, width, combine, dtype):
    torch._check(keypoints.dim() in (3, 4), lambda: "offset_heatmaps: keypoints must be (B, K, 2) or (B, P, K, 2)")
    return keypoints.new_empty((keypoints.shape[0], 3 * keypoints.shape[-2], height, width), dtype=dtype)


register_out("offset_heatmaps")


@register_fake("pypose_ops::_offset_heatmaps_backward")
def _(grad, keypoints, radius, visible, combine):
    return _empty_gradient(keypoints if keypoints.dim() == 4 else keypoints[:, None], grad)


def _setup_offsets(ctx, inputs, output):
    keypoints, radius, visible, _, _, combine, _ = inputs
    ctx.save_for_backward(keypoints, visible)
    ctx.options = radius, combine


def _offsets_backward(ctx, grad):
    keypoints, visible = ctx.saved_tensors
    radius, combine = ctx.options
    grad_keypoints = call_backward(_ops._offset_heatmaps_backward.default, grad, keypoints, radius, visible, combine)
    return grad_keypoints.view_as(keypoints).to(keypoints.dtype), *(None,) * 6


register_derivative("offset_heatmaps", _setup_offsets, _offsets_backward)
register_derivative("_offset_heatmaps_backward")
vmap_by_batch("offset_heatmaps", 0, 2)
vmap_by_batch("_offset_heatmaps_backward", 0, 1, 3)


@forward_mode("offset_heatmaps")
def _(keypoints, radius, visible, height, width, combine, dtype):
    from .. import reference  # here: it imports result types from this package

    return reference.offset_heatmaps(
        keypoints, radius, (height, width), visible=visible, combine=_WINNERS[combine], dtype=dtype
    )


def disc_targets(
    keypoints: torch.Tensor,
    visible: torch.Tensor,
    size: tuple[int, int],
    *,
    stride: float,
    first: float,
    plateau: bool,
    radius: float,
    std: float,
    background: float | None,
    mask_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Blobs or discs, offsets and masks of keypoints in image pixels, in one call; None where it takes several.

    That is off the CPU, where something is differentiated, mapped or compiled, and for arguments that must be refused.

    Args:
        keypoints: ``(B, P, K, 2)``.
        visible: ``(B, P, K)``: above 0 visible, -1 not annotated.
        size: ``(height, width)`` of the maps.
        stride: image pixels per map pixel.
        first: the image coordinate of the first pixel.
        plateau: discs instead of Gaussians, whose sigma is two thirds of the radius; offsets in the discs only.
        radius: of the discs, in image pixels.
        std: what offsets are divided by.
        background: the weight of maps of missing keypoints, None for 1.
        mask_dtype: that of the keypoints, or int64.

    Returns:
        Maps ``(B, K, H, W)``, their weights ``(B, K, 1, 1)``, offsets and masks ``(B, 2 K, H, W)``.
    """
    if not is_plain(keypoints, visible) or keypoints.dtype not in (torch.float32, torch.float64):
        return None
    if (
        keypoints.dim() != 4
        or visible.shape != keypoints.shape[:-1]
        or mask_dtype not in (keypoints.dtype, torch.int64)
    ):
        return None
    height, width = size
    sigma = 2 * radius / 3 / stride
    args = (height, width, float(stride), float(first), plateau, radius, std, sigma, background, mask_dtype)
    return call(_ops._disc_targets.default, (), keypoints, visible, *args)


@register_fake("pypose_ops::_disc_targets")
def _(keypoints, visible, height, width, stride, first, plateau, radius, std, sigma, background, mask_dtype):
    batch, _, joints, _ = keypoints.shape
    return (
        keypoints.new_empty((batch, joints, height, width)),
        keypoints.new_empty((batch, joints, 1, 1)),
        keypoints.new_empty((batch, 2 * joints, height, width)),
        keypoints.new_empty((batch, 2 * joints, height, width), dtype=mask_dtype),
    )


vmap_by_batch("_disc_targets", 0, 1)
