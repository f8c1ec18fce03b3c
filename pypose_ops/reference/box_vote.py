"""Votes of boxes for heatmap pixels. In plain torch."""

import torch


def box_vote(boxes: torch.Tensor, weights: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Definition of :func:`pypose_ops.box_vote`: every box against every pixel."""
    height, width = size
    acc = torch.float64 if weights.dtype == torch.float64 else torch.float32
    x1, y1, x2, y2 = boxes[..., None].unbind(-2)
    x = torch.arange(width, dtype=boxes.dtype, device=boxes.device)
    y = torch.arange(height, dtype=boxes.dtype, device=boxes.device)
    columns = ((x >= x1) & (x <= x2)).to(acc)
    rows = ((y >= y1) & (y <= y2)).to(acc)
    counted = torch.where(weights.isfinite(), weights, 0.0).to(acc)
    return torch.einsum("...ph,...pw,...pk->...khw", rows, columns, counted).to(weights.dtype)
