"""The heatmap loss in plain torch."""

from typing import Literal

import torch

from ._arguments import sigmas, visibility
from .gaussian_heatmaps import gaussian_heatmaps


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
    """Definition of :func:`pypose_ops.heatmap_mse_loss`: draws the targets, then compares."""
    acc = torch.float64 if pred.dtype == torch.float64 else torch.float32
    target = gaussian_heatmaps(
        keypoints, sigma, pred.shape[-2:], visible=visible, profile=profile, center=center, truncate=truncate,
        combine=combine, normalize=normalize, dtype=acc,
    )  # fmt: skip
    ones = torch.ones(pred.shape[:-2], dtype=acc, device=pred.device)
    weight = ones if weight is None else weight.to(acc).broadcast_to(pred.shape[:-2])
    counts = (weight > 0) & weight.isfinite()
    if keypoints.dim() == 3:
        counts = counts & _drawn(keypoints, sigma, visible)
    # The prediction is masked before it is squared: NaN times 0 is NaN, also in the gradient.
    difference = torch.where(counts[..., None, None], pred.to(acc), 0.0) - torch.where(
        counts[..., None, None], target, 0.0
    )
    losses = difference.square().mean((-2, -1)) * torch.where(counts, weight, 0.0)
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum() * (pred.shape[-2] * pred.shape[-1])


def _drawn(keypoints, sigma, visible):
    drawn = keypoints.isfinite().all(-1)
    if isinstance(sigma, torch.Tensor):
        sigma = sigmas(sigma, keypoints)
        drawn = drawn & (sigma.isfinite() & (sigma > 0)).all(-1)
    if visible is not None:
        drawn = drawn & visibility(visible, keypoints)
    return drawn
