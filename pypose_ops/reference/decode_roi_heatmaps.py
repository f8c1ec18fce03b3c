"""Peaks of resized maps in plain torch: every map resized to its box."""

import torch

from ..ops._results import Peaks

_LARGEST = 32768  # pixels along the side of a box


@torch.no_grad()
def decode_roi_heatmaps(heatmaps: torch.Tensor, boxes: torch.Tensor) -> Peaks:
    """Definition of :func:`pypose_ops.decode_roi_heatmaps`. It waits for the boxes' sizes."""
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    maps, boxes = heatmaps.to(dtype), boxes.to(dtype)
    batch, joints = maps.shape[:2]
    coords = torch.full((batch, joints, 2), torch.nan, dtype=dtype, device=maps.device)
    scores = torch.zeros((batch, joints), dtype=dtype, device=maps.device)
    extents = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    usable = boxes.isfinite().all(1) & (extents <= _LARGEST).all(1)
    for i in usable.nonzero()[:, 0].tolist():
        width, height = extents[i].ceil().int().tolist()
        resized = _resized(_resized(maps[i], width).mT, height).mT.flatten(1)
        candidates = torch.where(resized.isfinite(), resized, -torch.inf)
        score = candidates.amax(1)
        found = score > -torch.inf
        number = torch.arange(height * width, device=maps.device)
        first = torch.where(candidates == score[:, None], number, height * width).amin(1)
        pixel = torch.stack([first % width, first // width], -1)
        size = torch.tensor([width, height], device=maps.device)
        at = (pixel.to(dtype) + 0.5) * (extents[i] / size) + boxes[i, :2]
        coords[i] = torch.where(found[:, None], at, torch.nan)
        scores[i] = torch.where(found, score, 0.0)
    return Peaks(coords, scores)


def _resized(lines: torch.Tensor, size: int) -> torch.Tensor:
    """Lines ``(..., n)`` by cubic convolution, a = -0.75, to ``size`` pixels.

    Differences to one pixel are weighted, so that constant lines stay exactly so.
    """
    n, a = lines.shape[-1], -0.75
    at = (torch.arange(size, device=lines.device, dtype=lines.dtype) + 0.5) * (n / size) - 0.5
    below = at.floor().clamp(max=n - 1)
    t = at - below
    index = below.long()[:, None] + torch.arange(-1, 3, device=lines.device)
    before, pixel, after, last = lines[..., index.clamp(0, n - 1)].unbind(-1)
    weights = a * t * (1 - t) ** 2, t * (((-a - 2) * t + 3 + 2 * a) * t - a), a * t * t * (1 - t)
    return pixel + sum(w * (p - pixel) for w, p in zip(weights, (before, after, last), strict=True))
