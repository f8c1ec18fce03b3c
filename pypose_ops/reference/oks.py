"""Object keypoint similarity: how alike two poses are. In plain torch."""

import sys
from collections.abc import Sequence

import torch

from ..skeletons import COCO
from ._arguments import visibility

_EPSILON = sys.float_info.epsilon  # MATLAB's and COCO's eps


def oks(
    pred: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor | None = None,
    *,
    sigmas: Sequence[float] = COCO.sigmas,
    visible: torch.Tensor | None = None,
    boxes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Definition of :func:`pypose_ops.oks`: all joints of all pairs in memory at once."""
    target = target.detach().to(pred.dtype)
    boxes = None if boxes is None else boxes.detach().to(pred.dtype)
    area = _areas(boxes) if area is None else area.detach().to(pred.dtype)
    counted = target.isfinite().all(-1)
    if visible is not None:
        counted = counted & visibility(visible, target)
    low = high = target.nan_to_num(0.0, 0.0, 0.0).where(counted[..., None], 0.0)
    if boxes is not None:
        nobody = ~counted.any(-1)[..., None]
        first, second = boxes[..., None, :2], boxes[..., None, 2:]
        low = torch.where(nobody[..., None], 2 * first - second, low)
        high = torch.where(nobody[..., None], 2 * second - first, high)
        counted = counted | nobody
    point, low, high = pred[..., :, None, :, :], low[..., None, :, :, :], high[..., None, :, :, :]
    nearest = torch.where(point < low, low, torch.where(point > high, high, point.detach()))
    offset = torch.where(low.isnan() | high.isnan(), torch.nan, point - nearest)
    value = _similarity(offset, area.nan_to_num(0.0).clamp(min=0)[..., None, :, None], sigmas)
    counted = counted[..., None, :, :]
    return value.where(counted, 0.0).sum(-1) / counted.sum(-1).clamp(min=1)


def _areas(boxes):
    """Of ``x1, y1, x2, y2``; 0 of boxes that are turned round."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)


def _similarity(offset, area, sigmas):
    """exp(-d^2 / (2 (2 sigma)^2 (area + eps))) of offsets (..., K, 2); 0 where it is not a number."""
    variance = (2 * torch.tensor(sigmas, dtype=torch.float64, device=offset.device)) ** 2
    finite = offset.isfinite().all(-1)
    square = offset.where(finite[..., None], 0.0).square().sum(-1)
    exponent = square / (2 * variance.to(offset.dtype) * (area + _EPSILON))
    return torch.exp(-exponent).where(finite, 0.0)
