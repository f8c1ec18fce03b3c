"""Scores of candidate limbs along part affinity fields. In plain torch."""

import math
from collections.abc import Sequence
from typing import Literal

import torch

from ..ops._results import LocalPeaks, LocalPeaksWithPixels
from ._arguments import pairs


def score_limbs(
    pafs: torch.Tensor,
    peaks: LocalPeaks | LocalPeaksWithPixels,
    limbs: Sequence[tuple[int, int]],
    *,
    samples: int | None = 10,
    rule: Literal["openpose", "trt_pose", "trapezoid"] = "openpose",
    channels: Sequence[tuple[int, int]] | None = None,
    threshold: float = 0.05,
    fraction: float = 0.95,
) -> torch.Tensor:
    """Definition of :func:`pypose_ops.score_limbs`: all samples of all pairs in memory at once."""
    limbs = pairs(limbs).to(pafs.device)
    channels = torch.arange(limbs.numel()).view(-1, 2) if channels is None else pairs(channels)
    channels = channels.to(pafs.device)
    acc = torch.float64 if pafs.dtype == torch.float64 else torch.float32
    coords = peaks.coords.to(acc)
    a, b = coords[:, limbs[:, 0], :, None], coords[:, limbs[:, 1], None]  # (B, L, M, 1, 2), (B, L, 1, M, 2)
    delta = b - a
    length = delta.norm(dim=-1)
    divisor = length + 1e-5 if rule == "trt_pose" else length
    scored = (divisor > 1e-6) & divisor.isfinite()
    unit = torch.where(scored[..., None], delta / divisor[..., None], 0.0)
    if samples is None:
        count = torch.floor(torch.sqrt(5 * delta.abs().amax(-1)) + 0.5).nan_to_num(5.0).clamp(5, 25)
    else:
        count = torch.full_like(length, samples)
    step = 1 / (count if rule == "openpose" else count - 1)
    number = torch.arange(25 if samples is None else samples, device=pafs.device)  # (S,)
    # (B, L, M, M, S, 2), in the order of operations of the kernels: pixels are rounded from it.
    points = a[..., None, :] + number[:, None].to(acc) * (delta * step[..., None])[..., None, :]
    used = number < count[..., None]
    projection, inside = _project(pafs.to(acc), points, unit, channels)
    if rule == "openpose":
        hit = used & (projection > threshold)
        hits = hit.sum(-1)
        score = projection.where(hit, 0.0).sum(-1) / hits
        short = length < math.sqrt(pafs.shape[-1] * pafs.shape[-2]) / 150
        rest = torch.full_like(length, -math.inf).masked_fill(short, 0.05 + 1e-6)
        score = torch.where((hits > fraction * count) & (hits > 0), score, rest)
    elif rule == "trt_pose":
        score = projection.where(inside, 0.0).sum(-1) / count
    else:
        score = (projection.sum(-1) - (projection[..., 0] + projection[..., -1]) / 2) / (count - 1)
    index = torch.arange(coords.shape[2], device=pafs.device)
    exists = index < peaks.counts[..., None]
    exists = exists[:, limbs[:, 0], :, None] & exists[:, limbs[:, 1], None]
    return score.where(exists & scored & (score > -math.inf), -math.inf)


def _project(pafs, points, unit, channels):
    """The field at the nearest pixels, projected on the unit vectors; and whether the points are in the map."""
    height, width = pafs.shape[-2:]
    x, y = torch.floor(points + 0.5).nan_to_num(0.0, 2.0**30, -(2.0**30)).unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    pixel = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
    fields = [pafs.flatten(2)[:, channels[:, i]] for i in (0, 1)]
    values = [field.gather(2, pixel.flatten(2)).view(pixel.shape) for field in fields]
    return values[0] * unit[..., None, 0] + values[1] * unit[..., None, 1], inside
