"""Gaussian heatmap rendering: training targets drawn on the device the keypoints are on."""

from typing import Literal

import torch
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from ._arguments import check_number, check_size, check_tensor, choice, expand_sigma, expand_visible
from ._autograd import call, call_backward, forward_mode, register_derivative, register_fake, vmap_by_batch
from ._out import draw, out_dtype, register_out

_ops = torch.ops.pypose_ops
_gaussian_heatmaps = _ops.gaussian_heatmaps.default
_gaussian_targets = _ops._gaussian_targets.default

# In the order of the enumerations in csrc/heatmaps/gaussian_heatmaps.h.
_PROFILES = ("gaussian", "disc")
_CENTERS = ("exact", "rounded")
_COMBINES = ("max", "sum", "sum_clip")
_NORMALIZES = ("peak", "sum")


def gaussian_heatmaps(
    keypoints: torch.Tensor,
    sigma: float | torch.Tensor,
    size: tuple[int, int],
    *,
    visible: torch.Tensor | None = None,
    profile: Literal["gaussian", "disc"] = "gaussian",
    center: Literal["exact", "rounded"] = "exact",
    truncate: float | None = None,
    combine: Literal["max", "sum", "sum_clip"] = "max",
    normalize: Literal["peak", "sum"] = "peak",
    dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draws one blob per keypoint: heatmap targets as introduced by Tompson et al. (NIPS 2014).

    The value of a Gaussian blob at pixel ``(i, j)`` is ``exp(-(i-x)^2 / (2 sx^2) - (j-y)^2 / (2 sy^2))``; people who
    share a map are combined. Keypoints that are invisible or not finite, and those whose sigma (given as a tensor) is
    not a positive finite number, draw nothing and get no gradient. Blobs outside the map are clipped to it.

    Args:
        keypoints (Tensor): ``(B, K, 2)``, or ``(B, P, K, 2)`` for P people per map; float32 or float64; ``(x, y)`` in
            heatmap pixels, pixel centres at integers.
        sigma (float or Tensor): standard deviation (radius of a disc) in heatmap pixels: a positive number, or a
            float32/float64 tensor broadcastable to ``keypoints.shape[:-1]`` (one per keypoint) or to
            ``keypoints.shape`` (``(sx, sy)`` per keypoint). A tensor with as many dimensions as ``keypoints`` is read
            in the second way, one with fewer in the first where it fits.
        size (tuple[int, int]): ``(height, width)`` of the maps.
        visible (Tensor, optional): broadcastable to ``keypoints.shape[:-1]``; bool, or a number that counts as visible
            from 0.5 on (COCO's 0/1/2 work).
        profile (str): ``"gaussian"``, or ``"disc"``: 1 within ``sigma`` of the keypoint (an ellipse for two sigmas),
            0 elsewhere; not differentiable.
        center (str): ``"exact"``, or ``"rounded"`` to the nearest pixel, halves up (MSRA's quantised targets).
        truncate (float, optional): blobs end ``truncate * sigma`` from the centre, in a square window, border included
            (3 for MSRA); None draws the whole map.
        combine (str): of people in one map: ``"max"``, ``"sum"``, or ``"sum_clip"``, the sum clipped at 1.
        normalize (str): ``"peak"``: the top of the blob is 1; ``"sum"``: each blob's pixels add up to 1 (for Gaussians
            each axis is divided by its sum plus 1e-8, so a blob far outside fades).
        dtype (torch.dtype, optional): of the maps: float16, bfloat16, float32 or float64. Default: that of the
            keypoints. Arithmetic is float32, for float64 maps float64.
        out (Tensor, optional): what to draw into, ``(B, K, height, width)``, contiguous, on the keypoints'
            device; it is returned. Nothing is allocated, and nothing can be differentiated.

    Returns:
        Tensor: ``(B, K, height, width)``, contiguous, on the keypoints' device.

    Differentiable with respect to ``keypoints`` (``center="exact"``) and a ``sigma`` tensor, for the Gaussian profile,
    deterministically; where people tie for the maximum the first gets the gradient. Double backward is not supported.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: sigma is a tensor that does not broadcast; size is not two positive integers; an unknown option;
            another argument has the wrong shape, dtype, device or value; the message names it.

    Example:
        >>> keypoints = torch.tensor([[[12.3, 40.0], [20.0, 8.75]]])
        >>> gaussian_heatmaps(keypoints, 2.0, (64, 48)).shape
        torch.Size([1, 2, 64, 48])
    """
    height, width = check_size("gaussian_heatmaps", size)
    check_tensor("gaussian_heatmaps", "keypoints", keypoints)
    outs = () if out is None else (out,)
    dtype = out_dtype("gaussian_heatmaps", dtype, keypoints, *outs)
    if isinstance(sigma, torch.Tensor):
        sigma, sigma_value = expand_sigma("gaussian_heatmaps", sigma, keypoints), 0.0
    else:
        sigma, sigma_value = None, check_number("gaussian_heatmaps", "sigma", sigma)
    if visible is not None:
        visible = expand_visible("gaussian_heatmaps", visible, keypoints)
    if profile == "disc":
        keypoints = keypoints.detach()
        sigma = sigma.detach() if sigma is not None else None
    if profile == "gaussian" and center == "exact" and combine == "max" and normalize == "peak":
        numbers = (0, 0, 0, 0)  # what most calls ask for: four look-ups are a tenth of a tiny call
    else:
        numbers = (
            choice("gaussian_heatmaps", "profile", profile, _PROFILES),
            choice("gaussian_heatmaps", "center", center, _CENTERS),
            choice("gaussian_heatmaps", "combine", combine, _COMBINES),
            choice("gaussian_heatmaps", "normalize", normalize, _NORMALIZES),
        )
    profile, center, combine, normalize = numbers
    return draw(
        _ops.gaussian_heatmaps,
        outs,
        (keypoints, sigma),
        keypoints,
        sigma,
        sigma_value,
        visible,
        height,
        width,
        profile,
        center,
        truncate,
        combine,
        normalize,
        1.0,
        dtype,
    )


def scaled_heatmaps(
    keypoints: torch.Tensor,
    sigma: float,
    size: tuple[int, int],
    scale: float,
    *,
    visible: torch.Tensor | None,
    center: str,
    truncate: float | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``scale`` times :func:`gaussian_heatmaps`, drawn so: for codecs, which have checked their arguments.

    ``visible`` is None or bool, of the shape of ``keypoints`` without its last axis; ``sigma`` is a number.
    """
    center = choice("gaussian_heatmaps", "center", center, _CENTERS)
    args = (keypoints, None, sigma, visible, *size, 0, center, truncate, 0, 0, scale, dtype)
    return call(_gaussian_heatmaps, (keypoints,), *args)


def gaussian_targets(
    keypoints: torch.Tensor,
    visible: torch.Tensor | None,
    ratios: tuple[float, float],
    sigma: float,
    size: tuple[int, int],
    *,
    down: bool,
    reach: float,
    center: str,
    truncate: float | None,
    scale: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Maps and weights of joints in input pixels, in one call; None where it takes several: for codecs.

    That is off the CPU, where something is differentiated, mapped or compiled, and for arguments that must be refused.

    Args:
        keypoints: ``(B, K, 2)`` or ``(B, P, K, 2)``.
        visible: ``keypoints.shape[:-1]``; counts from 0.5 on, and is the weight, up to 1.
        ratios: x and y, from input pixels to pixels of the map.
        sigma, size, center, truncate, scale, dtype: as in :func:`scaled_heatmaps`.
        down: whether a joint is drawn on the pixel below it.
        reach: joints that are farther outside of the map have weight 0.
    """
    tensors = (keypoints,) if visible is None else (keypoints, visible)
    if is_compiling() or forward_ad._current_level >= 0 or not isinstance(dtype, torch.dtype):
        return None
    for tensor in tensors:
        if type(tensor) is not torch.Tensor or not tensor.is_cpu or tensor.requires_grad or tensor.is_complex():
            return None
    shape = keypoints.shape
    if len(shape) not in (3, 4) or shape[-1] != 2 or not keypoints.is_floating_point() or keypoints.itemsize < 4:
        return None
    if visible is not None and visible.shape != shape[:-1]:
        return None
    args = (*ratios, down, reach, sigma, *size, _CENTERS.index(center), truncate, scale, dtype)
    return call(_gaussian_targets, (), keypoints, visible, *args)


@register_fake("pypose_ops::_gaussian_targets")
def _(keypoints, visible, ratio_x, ratio_y, down, reach, sigma, height, width, center, truncate, scale, dtype):
    maps = keypoints.new_empty((keypoints.shape[0], keypoints.shape[-2], height, width), dtype=dtype)
    return maps, keypoints.new_empty(keypoints.shape[:-1])


vmap_by_batch("_gaussian_targets", 0, 1)


@register_fake("pypose_ops::gaussian_heatmaps")
def _(
    keypoints, sigma, sigma_value, visible, height, width, profile, center, truncate, combine, normalize, scale, dtype
):
    torch._check(keypoints.dim() in (3, 4), lambda: "gaussian_heatmaps: keypoints must be (B, K, 2) or (B, P, K, 2)")
    return keypoints.new_empty((keypoints.shape[0], keypoints.shape[-2], height, width), dtype=dtype)


register_out("gaussian_heatmaps")


@register_fake("pypose_ops::_gaussian_heatmaps_backward")
def _(grad, keypoints, sigma, sigma_value, visible, center, truncate, combine, normalize):
    people = keypoints.shape[1] if keypoints.dim() == 4 else 1
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    shape = (keypoints.shape[0], people, keypoints.shape[-2], 2)
    return keypoints.new_empty(shape, dtype=dtype), keypoints.new_empty(shape, dtype=dtype)


def _setup_context(ctx, inputs, output):
    keypoints, sigma, sigma_value, visible, _, _, _, center, truncate, combine, normalize, scale, _ = inputs
    ctx.save_for_backward(keypoints, sigma, visible)
    ctx.options = (sigma_value, center, truncate, combine, normalize, scale)


def _backward(ctx, grad):
    keypoints, sigma, visible = ctx.saved_tensors
    sigma_value, center, truncate, combine, normalize, scale = ctx.options
    grad_keypoints, grad_sigma = call_backward(
        _ops._gaussian_heatmaps_backward.default,
        grad,
        keypoints,
        sigma,
        sigma_value,
        visible,
        center,
        truncate,
        combine,
        normalize,
    )
    if scale != 1:
        grad_keypoints, grad_sigma = grad_keypoints * scale, grad_sigma * scale
    grad_keypoints = grad_keypoints.view_as(keypoints).to(keypoints.dtype)
    grad_sigma = None if sigma is None else grad_sigma.view_as(sigma).to(sigma.dtype)
    return grad_keypoints, grad_sigma, *(None,) * 11


register_derivative("gaussian_heatmaps", _setup_context, _backward)
register_derivative("_gaussian_heatmaps_backward")
vmap_by_batch("gaussian_heatmaps", 0, 1, 3)
vmap_by_batch("_gaussian_heatmaps_backward", 0, 1, 2, 4)


@forward_mode("gaussian_heatmaps")
def _(
    keypoints, sigma, sigma_value, visible, height, width, profile, center, truncate, combine, normalize, scale, dtype
):
    from .. import reference  # here: it imports result types from this package

    maps = reference.gaussian_heatmaps(
        keypoints,
        sigma_value if sigma is None else sigma,
        (height, width),
        visible=visible,
        profile=_PROFILES[profile],
        center=_CENTERS[center],
        truncate=truncate,
        combine=_COMBINES[combine],
        normalize=_NORMALIZES[normalize],
        dtype=dtype,
    )
    return maps * scale
