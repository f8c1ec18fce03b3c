"""SimCC's targets: one distribution over x and one over y per keypoint. In plain torch."""

from typing import Literal

import torch

from ._arguments import sigmas, visibility


def simcc_labels(
    keypoints: torch.Tensor,
    sigma: float | tuple[float, float] | torch.Tensor,
    size: tuple[int, int],
    *,
    split_ratio: float = 2,
    visible: torch.Tensor | None = None,
    profile: Literal["gaussian", "one_hot"] = "gaussian",
    center: Literal["exact", "rounded"] = "rounded",
    normalize: Literal["peak", "density"] = "peak",
    smoothing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Definition of :func:`pypose_ops.simcc_labels`."""
    height, width = size
    dtype = dtype or (torch.float64 if keypoints.dtype == torch.float64 else torch.float32)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    drawn = keypoints.isfinite().all(-1)
    if visible is not None:
        drawn = drawn & visibility(visible, keypoints)
    if isinstance(sigma, torch.Tensor):
        sigma = sigmas(sigma, keypoints).to(acc)
        drawn = drawn & (sigma.isfinite() & (sigma > 0)).all(-1)
        widths = torch.where(drawn[..., None], sigma, 1.0)[..., None].unbind(-2)
    else:
        widths = sigma if isinstance(sigma, tuple | list) else (sigma, sigma)
    points = torch.where(drawn[..., None], keypoints.to(acc), 0.0) * split_ratio
    labels = []
    for axis, pixels in enumerate((width, height)):
        bins, at = round(pixels * split_ratio), points[..., axis, None]
        grid = torch.arange(bins).to(points)
        if profile == "one_hot":
            hit = grid == at.round()
            label = torch.where(hit, 1 - smoothing, torch.full_like(grid, smoothing / max(bins - 1, 1)))
            label = torch.where(hit.any(-1, keepdim=True), label, 0.0)
        else:
            mean = at.round() if center == "rounded" else at
            label = torch.exp(-0.5 * ((grid - mean) / widths[axis]) ** 2)
            if normalize == "density":
                label = label / (widths[axis] * (2 * torch.pi) ** 0.5)
        labels.append(torch.where(drawn[..., None], label, 0.0).to(dtype))
    return tuple(labels)
