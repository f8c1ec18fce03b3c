"""Local maxima in plain torch."""

import math
from typing import Literal

import torch
import torch.nn.functional as F

from ..ops._results import LocalPeaks, LocalPeaksWithPixels
from ._arguments import blur_size, longest_step
from .decode_heatmaps import refined


@torch.no_grad()
def find_peaks(
    heatmaps: torch.Tensor,
    *,
    threshold: float | torch.Tensor = 0.1,
    radius: int = 1,
    max_peaks: int = 32,
    refine: str | None = None,
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    transform: torch.Tensor | None = None,
    missing: float = math.nan,
    return_pixels: bool = False,
) -> LocalPeaks | LocalPeaksWithPixels:
    """Definition of :func:`pypose_ops.find_peaks`: labels spread through every plateau of every map."""
    maps = heatmaps.to(torch.float64 if heatmaps.dtype == torch.float64 else torch.float32)
    batch, joints, height, width = maps.shape
    pixels = height * width
    if isinstance(threshold, torch.Tensor):
        threshold = threshold.to(maps.dtype)[:, None, None]
    values = torch.where(maps.isfinite(), maps, -torch.inf)
    labels = _labels(values, values > threshold, radius)
    own = torch.arange(pixels, device=maps.device).view(height, width)
    is_peak = (labels == own).flatten(2)

    # By falling score; a stable sort leaves equal ones in row-major order.
    ranked = torch.where(is_peak, values.flatten(2), -torch.inf)
    order = torch.sort(ranked, dim=-1, descending=True, stable=True)
    counts = is_peak.sum(-1)
    filled = min(max_peaks, pixels)
    index, scores = order.indices[..., :filled], order.values[..., :filled]
    index, scores = F.pad(index, (0, max_peaks - filled)), F.pad(scores, (0, max_peaks - filled))
    peak = torch.stack([index % width, index // width], -1)

    size = blur_size(refine, kernel_size, sigma)
    coords, _ = refined(maps, peak, refine, size, longest_step(max_offset, 1.0))
    if transform is not None:
        transform = transform.to(maps.dtype)
        if transform.dim() == 3:
            transform = transform[:, None]
        coords = coords @ transform[..., :2].mT + transform[..., None, :, 2]
    valid = torch.arange(max_peaks, device=maps.device) < counts[..., None]
    coords = torch.where(valid[..., None], coords, missing)
    scores = torch.where(valid, scores, 0.0)
    if return_pixels:
        return LocalPeaksWithPixels(coords, scores, counts, torch.where(valid[..., None], peak, -1))
    return LocalPeaks(coords, scores, counts)


def _labels(values, above, radius):
    """For every pixel the first one of its plateau where that is a peak, else -1."""
    height, width = values.shape[-2:]
    padded = F.pad(values, (radius,) * 4, value=-torch.inf)
    shifts = [(dy, dx) for dy in range(2 * radius + 1) for dx in range(2 * radius + 1)]

    def shifted(padded, shift):
        return padded[..., shift[0] : shift[0] + height, shift[1] : shift[1] + width]

    highest = values
    for shift in shifts:
        highest = torch.maximum(highest, shifted(padded, shift))
    own = torch.arange(height * width, device=values.device).view(height, width)
    labels = torch.where(above & (values == highest), own, -1)
    while True:
        before = labels
        around = F.pad(before, (radius,) * 4, value=-1)
        for shift in shifts:
            equal = shifted(padded, shift) == values
            labels = torch.where(equal, torch.minimum(labels, shifted(around, shift)), labels)
        if torch.equal(labels, before):
            return labels
