"""Heatmap rendering in plain torch."""

from typing import Literal

import torch

from ._arguments import sigmas, visibility


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
) -> torch.Tensor:
    """Definition of :func:`pypose_ops.gaussian_heatmaps`: separable, every person's map in memory at once."""
    height, width = size
    dtype = dtype or (torch.float64 if keypoints.dtype == torch.float64 else torch.float32)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    if not isinstance(sigma, torch.Tensor):
        sigma = torch.full((), float(sigma), dtype=acc, device=keypoints.device)
    sigma = sigmas(sigma, keypoints).to(acc)
    drawn = keypoints.isfinite().all(-1) & (sigma.isfinite() & (sigma > 0)).all(-1)
    if visible is not None:
        drawn = drawn & visibility(visible, keypoints)
    # Placeholders keep NaN out of the graph; what they draw is masked out below.
    mean = torch.where(drawn[..., None], keypoints.to(acc), 0.0)
    sigma = torch.where(drawn[..., None], sigma, 1.0)
    if center == "rounded":
        mean = torch.floor(mean + 0.5)
    axes = [_axis(mean[..., d], sigma[..., d], n, profile, truncate) for d, n in enumerate((width, height))]
    x, y = axes[0][..., None, :], axes[1][..., :, None]
    if profile == "gaussian":
        if normalize == "sum":
            x = x / (x.sum(-1, keepdim=True) + 1e-8)
            y = y / (y.sum(-2, keepdim=True) + 1e-8)
        maps = x * y
    else:
        maps = (x + y <= 1).to(acc)
        if normalize == "sum":
            maps = maps / maps.sum((-2, -1), keepdim=True).clamp(min=1)
    maps = torch.where(drawn[..., None, None], maps, 0.0)
    if keypoints.dim() == 4:
        maps = _combine(maps, combine)
    elif combine == "sum_clip":
        maps = maps.clamp(max=1)
    return maps.to(dtype)


def _axis(mean, sigma, n, profile, truncate):
    """One axis of every blob: ``exp(-u^2 / 2)``, or ``u^2`` for a disc, with ``u = (i - mean) / sigma``."""
    distance = torch.arange(n, dtype=mean.dtype, device=mean.device) - mean[..., None]
    u = distance / sigma[..., None]
    inside = torch.ones_like(u, dtype=torch.bool) if truncate is None else distance.abs() <= truncate * sigma[..., None]
    if profile == "gaussian":
        return torch.where(inside, torch.exp(-0.5 * u * u), 0.0)
    return torch.where(inside, u * u, torch.inf)


def _combine(maps, combine):
    """(B, P, K, H, W) -> (B, K, H, W)."""
    if combine == "max":
        if maps.shape[1] == 0:
            return maps.sum(1)
        # Through argmax, so that the first of equal maxima gets the gradient.
        return maps.gather(1, maps.argmax(1, keepdim=True)).squeeze(1)
    total = maps.sum(1)
    return total.clamp(max=1) if combine == "sum_clip" else total
