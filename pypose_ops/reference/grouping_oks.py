"""Object keypoint similarity, and the suppression of people who are predicted twice, in plain torch."""

import math
import sys

import torch

from .. import grouping_oks as op
from .._arguments import expand_visible
from ..skeletons import COCO

_EPSILON = sys.float_info.epsilon  # MATLAB's and COCO's eps


def oks(pred, target, area=None, *, sigmas=COCO.sigmas, visible=None, boxes=None):
    """Definition of :func:`pypose_ops.oks`: all joints of all pairs in memory at once."""
    target = target.detach().to(pred.dtype)
    area, boxes = op.box_areas("oks", area, boxes, pred)
    counted = target.isfinite().all(-1)
    if visible is not None:
        counted = counted & expand_visible("oks", visible, target)
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


def _similarity(offset, area, sigmas):
    """exp(-d^2 / (2 (2 sigma)^2 (area + eps))) of offsets (..., K, 2); 0 where it is not a number."""
    variance = (2 * torch.tensor(sigmas, dtype=torch.float64, device=offset.device)) ** 2
    finite = offset.isfinite().all(-1)
    square = offset.where(finite[..., None], 0.0).square().sum(-1)
    exponent = square / (2 * variance.to(offset.dtype) * (area + _EPSILON))
    return torch.exp(-exponent).where(finite, 0.0)


def oks_nms(
    keypoints,
    scores,
    area=None,
    *,
    threshold=0.9,
    soft=False,
    sigmas=COCO.sigmas,
    visible=None,
    boxes=None,
    max_people=None,
):
    """Definition of :func:`pypose_ops.oks_nms`: person by person, picture by picture."""
    keypoints = keypoints.detach()
    scores = scores.detach().to(keypoints.dtype)
    area, _ = op.box_areas("oks_nms", area, boxes, keypoints)
    counted = keypoints.isfinite().all(-1)
    if visible is not None:
        counted = counted & expand_visible("oks_nms", visible, keypoints)
    if keypoints.dim() == 3:
        single = op.batched(keypoints, scores, area, counted)
        return op.Kept(*(v[0] for v in _nms(*single, threshold, soft, sigmas, max_people)))
    return op.Kept(*_nms(keypoints, scores, area, counted, threshold, soft, sigmas, max_people))


def _nms(keypoints, scores, area, counted, threshold, soft, sigmas, max_people):
    mask, out = torch.zeros_like(scores, dtype=torch.bool), scores.clone()
    area = area.nan_to_num(0.0).clamp(min=0)
    for b in range(len(keypoints)):
        left = scores[b].where(scores[b].isfinite(), -math.inf)
        for _ in range(scores.shape[1] if max_people is None else max_people):
            if not left.gt(-math.inf).any():
                break
            best = int(left.argmax())
            mask[b, best], left[best] = True, -math.inf
            both = counted[b] & counted[b, best]
            mean = (area[b] + area[b, best]) / 2
            value = _similarity(keypoints[b] - keypoints[b, best], mean[:, None], sigmas).where(both, 0.0)
            value = value.sum(-1) / both.sum(-1).clamp(min=1)
            if soft:
                left = left * torch.exp(-value.square() / threshold)
                out[b] = left.where(left > -math.inf, out[b])
            else:
                left = left.where(value <= threshold, -math.inf)
    return mask, out
