"""UDP's combined target: a disc and the offsets to the joint. In plain torch."""

from typing import Literal

import torch

from .part_affinity_fields import _map_dtype, _people


def offset_heatmaps(
    keypoints: torch.Tensor,
    radius: float,
    size: tuple[int, int],
    *,
    visible: torch.Tensor | None = None,
    combine: Literal["nearest", "last"] = "nearest",
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Definition of :func:`pypose_ops.offset_heatmaps`."""
    height, width = size
    dtype = dtype or _map_dtype(keypoints)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    points, drawn = _people(keypoints, visible, acc)  # (B, P, K, 2), (B, P, K)
    shape = (*drawn.shape, height, width)
    x = (points[..., 0, None] - torch.arange(width).to(points))[..., None, :].expand(shape)
    y = (points[..., 1, None] - torch.arange(height).to(points))[..., :, None].expand(shape)
    distance = torch.where(drawn[..., None, None], x**2 + y**2, torch.inf)
    if shape[1] == 0:
        return distance.new_zeros((shape[0], 3 * shape[2], height, width), dtype=dtype)
    if combine == "nearest":
        winner = distance.argmin(1, keepdim=True)
    else:
        order = torch.arange(shape[1], device=points.device).reshape(1, -1, 1)
        winner = torch.where(drawn, order, -1).amax(1, keepdim=True).clamp(min=0)[..., None, None]
        winner = winner.expand(shape[0], 1, *shape[2:])
    anybody = drawn.any(1)[..., None, None]
    maps = [(distance <= radius**2).any(1).to(acc)]
    maps += [torch.where(anybody, offset.gather(1, winner).squeeze(1) / radius, 0.0) for offset in (x, y)]
    return torch.stack(maps, 2).flatten(1, 2).to(dtype)
