"""Differentiable coordinates: the mean of a map's softmax."""

import math
from collections.abc import Sequence
from typing import Literal, overload

import torch

from ._arguments import check_missing, check_number, check_tensor
from ._autograd import call, call_backward, forward_mode, register_derivative, register_fake, vmap_by_batch
from ._results import SoftPeaks

_ops = torch.ops.pypose_ops


@overload
def soft_argmax(
    heatmaps: torch.Tensor,
    *,
    temperature: float = 1.0,
    window: int | None = None,
    normalized: Literal["centers", "corners"] | None = None,
    missing: float = math.nan,
    return_variance: Literal[False] = False,
) -> torch.Tensor: ...


@overload
def soft_argmax(
    heatmaps: torch.Tensor,
    *,
    temperature: float = 1.0,
    window: int | None = None,
    normalized: Literal["centers", "corners"] | None = None,
    missing: float = math.nan,
    return_variance: Literal[True],
) -> SoftPeaks: ...


def soft_argmax(
    heatmaps: torch.Tensor,
    *,
    temperature: float = 1.0,
    window: int | None = None,
    normalized: Literal["centers", "corners"] | None = None,
    missing: float = math.nan,
    return_variance: bool = False,
) -> torch.Tensor | SoftPeaks:
    """The mean of the pixel coordinates under ``softmax(temperature * heatmaps)``, differentiable.

    The exponents are differences from the highest pixel, computed in float32 or better: no map overflows, not even in
    half precision or at large temperatures. Non-finite pixels weigh nothing; a map without a finite pixel has
    coordinates ``missing``, variance 0 and no gradient.

    Args:
        heatmaps: ``(B, K, H, W)``, float16, bfloat16, float32 or float64, any strides. ``H`` and ``W`` at least 1, at
            most 2^30 pixels per map.
        temperature: positive; multiplies the map (as in kornia up to 0.8, while 0.9 divides). Values above 2^127
            (float64 maps: 2^1023) count as that.
        window: only the ``window`` x ``window`` pixels (odd) around the highest pixel count; the gradient treats
            the window as fixed. None: all pixels.
        normalized: coordinates from -1 to 1 over the map: ``"centers"``, pixel centres at ``(2 i + 1) / n - 1`` (DSNT,
            Nibali et al. 2018), or ``"corners"``, ``2 i / (n - 1) - 1`` (kornia). None: pixels.
        missing: the coordinates of maps without a finite pixel.
        return_variance: also return the variance, in squared units of the coordinates, differentiable as well.

    Returns:
        ``coords (B, K, 2)``; with ``return_variance`` :class:`SoftPeaks`, which adds ``variance (B, K, 2)``. Float32
        (float64 for float64 maps).

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype or value, or an unknown name.
        RuntimeError: double backward, which is not supported.

    :func:`pypose_ops.reference.soft_argmax` is the definition in plain torch.

    Example:
        >>> maps = gaussian_heatmaps(torch.tensor([[[12.3, 40.0]]]), 2.0, (64, 48)).requires_grad_()
        >>> coords = soft_argmax(maps, temperature=20.0, window=9)
        >>> coords.detach().round(decimals=1)
        tensor([[[12.3000, 40.0000]]])
        >>> coords.sum().backward()
    """
    if normalized not in (None, "centers", "corners"):
        raise ValueError(f"soft_argmax: normalized must be None, centers or corners, got {normalized!r}")
    if window is not None and (not isinstance(window, int | torch.SymInt) or window <= 0):
        raise ValueError(f"soft_argmax: window must be None or odd and positive, got {window}")
    check_tensor("soft_argmax", "heatmaps", heatmaps)
    missing = check_missing("soft_argmax", missing)
    coords, variance, _, _ = call(
        _ops.soft_argmax.default,
        (heatmaps,),
        heatmaps,
        check_number("soft_argmax", "temperature", temperature),
        0 if window is None else window,
        missing if normalized is None else None,
    )
    if normalized is not None:
        scale, offset = normalization(coords, heatmaps.shape[-2:], normalized)
        coords, variance = coords * scale + offset, variance * scale**2 if return_variance else variance
        if missing is not None:
            coords = torch.where(coords.isnan(), missing, coords)
    return SoftPeaks(coords, variance) if return_variance else coords


def normalization(coords: torch.Tensor, size: Sequence[int], normalized: str) -> tuple[torch.Tensor, ...]:
    """Scale and offset, (2,) each, from pixels to -1 ... 1."""
    height, width = size
    if normalized == "centers":
        scale = [2 / width, 2 / height]
        offset = [1 / width - 1, 1 / height - 1]
    else:
        scale = [2 / max(1, width - 1), 2 / max(1, height - 1)]
        offset = [-1.0, -1.0]
    # Filled on the device: a list would be copied there, which CUDA graphs cannot capture.
    return tuple(
        torch.stack([torch.full((), value, dtype=coords.dtype, device=coords.device) for value in pair])
        for pair in (scale, offset)
    )


@register_fake("pypose_ops::soft_argmax")
def _(heatmaps, temperature, window, missing):
    torch._check(heatmaps.dim() == 4, lambda: "soft_argmax: heatmaps must be (B, K, H, W)")
    batch, joints = heatmaps.shape[:2]
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    pairs = [heatmaps.new_empty((batch, joints, 2), dtype=dtype) for _ in range(3)]
    return *pairs, heatmaps.new_empty((batch, joints), dtype=torch.int64)


@register_fake("pypose_ops::_soft_argmax_backward")
def _(grad_coords, grad_variance, heatmaps, coords, variance, stats, index, temperature, window):
    return heatmaps.new_empty(heatmaps.shape)


def _setup_context(ctx, inputs, output):
    heatmaps, temperature, window, _ = inputs
    ctx.save_for_backward(heatmaps, *output)
    ctx.options = (temperature, window)


def _backward(ctx, grad_coords, grad_variance, grad_stats, grad_index):
    heatmaps, coords, variance, stats, index = ctx.saved_tensors
    grad = call_backward(
        _ops._soft_argmax_backward.default,
        torch.zeros_like(coords) if grad_coords is None else grad_coords,
        torch.zeros_like(variance) if grad_variance is None else grad_variance,
        heatmaps,
        coords,
        variance,
        stats,
        index,
        *ctx.options,
    )
    return grad, None, None, None


register_derivative("soft_argmax", _setup_context, _backward)
register_derivative("_soft_argmax_backward")
vmap_by_batch("soft_argmax", 0)
vmap_by_batch("_soft_argmax_backward", 0, 1, 2, 3, 4, 5, 6)


@forward_mode("soft_argmax")
def _(heatmaps, temperature, window, missing):
    from .. import reference  # here: it imports result types from this package

    options = {
        "temperature": temperature,
        "window": window or None,
        "missing": math.nan if missing is None else missing,
    }
    peaks = reference.soft_argmax(heatmaps, **options, return_variance=True)
    return *peaks, None, None
