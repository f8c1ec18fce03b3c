"""soft_argmax in plain torch."""

import math
from typing import Literal

import torch

from ..ops._results import SoftPeaks


def soft_argmax(
    heatmaps: torch.Tensor,
    *,
    temperature: float = 1.0,
    window: int | None = None,
    normalized: Literal["centers", "corners"] | None = None,
    missing: float = math.nan,
    return_variance: bool = False,
) -> torch.Tensor | SoftPeaks:
    """Definition of :func:`pypose_ops.soft_argmax`."""
    maps = heatmaps.to(torch.float64 if heatmaps.dtype == torch.float64 else torch.float32)
    height, width = maps.shape[-2:]
    pixels = torch.arange(height * width, device=maps.device)
    grid = torch.stack([pixels % width, pixels // width], -1)

    finite = maps.isfinite().flatten(2)
    flat = torch.where(finite, maps.flatten(2), -torch.inf)
    counted = finite
    if window is not None:
        first = torch.where(finite & (flat == flat.amax(-1, keepdim=True)), pixels, height * width).amin(-1)
        peak = torch.stack([first % width, first // width], -1)
        counted = finite & ((grid - peak[:, :, None]).abs() <= window // 2).all(-1)
    found = counted.any(-1, keepdim=True)
    temperature = min(temperature, 2.0 ** (1023 if maps.dtype == torch.float64 else 127))
    # Placeholders keep non-finite values out of the graph.
    highest = torch.where(found, flat.detach().amax(-1, keepdim=True), 0.0)
    logits = torch.where(counted, temperature * (torch.where(counted, maps.flatten(2), 0.0) - highest), -torch.inf)
    weights = torch.where(found, logits, 0.0).softmax(-1)
    coords = weights @ grid.to(maps.dtype)
    variance = (weights[..., None] * (grid - coords[..., None, :]) ** 2).sum(-2)
    variance = torch.where(found, variance, 0.0)
    if normalized is not None:
        size = torch.tensor([width, height], dtype=coords.dtype, device=coords.device)
        if normalized == "centers":
            scale, offset = 2 / size, 1 / size - 1
        else:
            scale, offset = 2 / (size - 1).clamp(min=1), -1.0
        coords, variance = coords * scale + offset, variance * scale**2
    coords = torch.where(found, coords, missing)
    return SoftPeaks(coords, variance) if return_variance else coords
