"""SimCC's targets: one distribution over x and one over y per keypoint. In plain torch."""

import torch

from ..ops._arguments import check_size, expand_sigma, expand_visible
from ..ops.simcc_labels import check_two, label_bins


def simcc_labels(
    keypoints,
    sigma,
    size,
    *,
    split_ratio=2,
    visible=None,
    profile="gaussian",
    center="rounded",
    normalize="peak",
    smoothing=0.0,
    dtype=torch.float32,
):
    """Definition of :func:`pypose_ops.simcc_labels`."""
    height, width = check_size("simcc_labels", size)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    drawn = keypoints.isfinite().all(-1)
    if visible is not None:
        drawn = drawn & expand_visible("simcc_labels", visible, keypoints)
    if isinstance(sigma, torch.Tensor):
        sigma = expand_sigma("simcc_labels", sigma, keypoints).to(acc)
        drawn = drawn & (sigma.isfinite() & (sigma > 0)).all(-1)
        sigmas = torch.where(drawn[..., None], sigma, 1.0)[..., None].unbind(-2)
    else:
        sigmas = check_two("simcc_labels", "sigma", sigma)
    points = torch.where(drawn[..., None], keypoints.to(acc), 0.0) * split_ratio
    labels = []
    for axis, pixels in enumerate((width, height)):
        bins, at = label_bins("simcc_labels", pixels, split_ratio), points[..., axis, None]
        grid = torch.arange(bins).to(points)
        if profile == "one_hot":
            hit = grid == at.round()
            label = torch.where(hit, 1 - smoothing, torch.full_like(grid, smoothing / max(bins - 1, 1)))
            label = torch.where(hit.any(-1, keepdim=True), label, 0.0)
        else:
            mean = at.round() if center == "rounded" else at
            label = torch.exp(-0.5 * ((grid - mean) / sigmas[axis]) ** 2)
            if normalize == "density":
                label = label / (sigmas[axis] * (2 * torch.pi) ** 0.5)
        labels.append(torch.where(drawn[..., None], label, 0.0).to(dtype))
    return tuple(labels)
