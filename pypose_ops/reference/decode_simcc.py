"""SimCC's vectors in plain torch."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from ..ops._results import Peaks
from ._arguments import longest_step, simcc_blur_size
from .decode_heatmaps import _gaussian_taps, _limited, least_curvature


@torch.no_grad()
def decode_simcc(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    split_ratio: float = 2.0,
    refine: Literal["dark"] | None = None,
    sigma: float | Sequence[float] = 6.0,
    kernel_size: int | Sequence[int] | Literal["auto"] | None = "auto",
    compat: Literal["mmpose"] | None = None,
    transform: torch.Tensor | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    missing: float = math.nan,
) -> Peaks:
    """Definition of :func:`pypose_ops.decode_simcc`."""
    both = [value if isinstance(value, tuple | list) else (value, value) for value in (kernel_size, sigma)]
    sizes = [simcc_blur_size(*each) for each in zip(*both, strict=True)]
    max_offset = longest_step(max_offset, 1.0 if compat is None else None)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    axes = [
        decode_axis(rows.to(dtype), size, refine, compat, threshold) for rows, size in zip((x, y), sizes, strict=True)
    ]
    peak, step, scores, _ = (torch.stack(parts, -1) for parts in zip(*axes, strict=True))
    scores = scores.amin(-1)
    found = scores > -torch.inf
    coords = peak.to(dtype) / split_ratio + _limited(step / split_ratio, max_offset)
    if transform is not None:
        transform = transform.to(dtype)
        coords = coords @ transform[..., :2].mT + transform[..., None, :, 2]
    return Peaks(torch.where(found[..., None], coords, missing), torch.where(found, scores, 0.0))


def decode_axis(
    rows: torch.Tensor, kernel_size: int | None, refine: str | None, compat: str | None, threshold: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The highest bins, the steps, the scores, -inf for none, and the variances, 0 without a step: (B, K)."""
    bins = rows.shape[-1]
    candidates = torch.where(rows.isfinite() & (rows > threshold), rows, -torch.inf)
    scores = candidates.amax(-1)
    number = torch.arange(bins, device=rows.device)
    peak = torch.where(candidates == scores[..., None], number, bins).amin(-1)
    nothing = torch.zeros_like(scores)
    if refine is None:
        return peak, nothing, scores, nothing

    offsets = torch.arange(-2, 3, device=rows.device)
    if compat == "mmpose":
        h = _logs_of_mmpose(rows, (peak[..., None] + offsets).clamp(0, bins - 1), kernel_size, scores)
        center, ridge = peak, 1e-9
    elif bins < 5:
        return peak, nothing, scores, nothing
    else:  # as near to the peak as the differences stay in the row, of a blur narrowed until it does
        center, ridge = peak.clamp(2, bins - 3), 0.0
        room = torch.minimum(center - 2, bins - 3 - center).clamp(max=kernel_size // 2)
        h = _logs_inside(rows, center[..., None] + offsets, kernel_size, room[..., None])
    slope = 0.5 * (h[..., 3] - h[..., 1])
    curvature = 0.25 * (h[..., 4] - 2 * h[..., 2] + h[..., 0]) + ridge
    step = center - peak - slope / curvature
    valid = step.isfinite() if compat == "mmpose" else step.isfinite() & (curvature < -least_curvature(h[..., 2]))
    return peak, torch.where(valid, step, 0.0), scores, torch.where(valid, 1 / curvature.abs(), 0.0)


def _logs_of_mmpose(rows, around, kernel_size, scores):
    """Blurred with zeros around the row and scaled back; NaN where a bin is not finite."""
    taps = _gaussian_taps(kernel_size).to(rows)
    blurred = F.conv1d(rows.flatten(0, 1)[:, None], taps.view(1, 1, -1), padding=kernel_size // 2).view_as(rows)
    blurred = blurred.gather(-1, around)
    blurred = torch.where(blurred.isfinite(), blurred, torch.nan)  # no step then
    return (blurred * (scores[..., None] / blurred.amax(-1, keepdim=True).clamp(min=0))).clamp(1e-3, 50).log()


def _logs_inside(rows, around, kernel_size, room):
    """Blurred as far as ``room``; NaN where a bin is not finite."""
    radius = kernel_size // 2
    distance = torch.arange(-radius, radius + 1, device=rows.device)
    index = (around[..., None] + distance).clamp(0, rows.shape[-1] - 1)  # (B, K, 5, n)
    values = rows[..., None, :].expand(*rows.shape[:-1], 5, -1).gather(-1, index)
    used = distance.abs() <= room[..., None]
    blurred = (torch.where(used, values, 0.0) * _gaussian_taps(kernel_size).to(rows)).sum(-1)
    return torch.where(blurred.isfinite(), blurred, torch.nan).clamp(min=1e-10).log()
