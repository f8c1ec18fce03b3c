"""Suppression of people that were found twice, by object keypoint similarity. In plain torch."""

import math
from collections.abc import Sequence

import torch

from ..ops._results import NmsResult
from ..skeletons import COCO
from ._arguments import visibility
from .oks import _areas, _similarity


def oks_nms(
    keypoints: torch.Tensor,
    scores: torch.Tensor,
    area: torch.Tensor | None = None,
    *,
    threshold: float = 0.9,
    soft: bool = False,
    sigmas: Sequence[float] = COCO.sigmas,
    visible: torch.Tensor | None = None,
    boxes: torch.Tensor | None = None,
    max_people: int | None = None,
) -> NmsResult:
    """Definition of :func:`pypose_ops.oks_nms`: person by person, image by image."""
    keypoints = keypoints.detach()
    scores = scores.detach().to(keypoints.dtype)
    area = _areas(boxes.detach().to(keypoints.dtype)) if area is None else area.detach().to(keypoints.dtype)
    counted = keypoints.isfinite().all(-1)
    if visible is not None:
        counted = counted & visibility(visible, keypoints)
    if keypoints.dim() == 3:
        single = (tensor[None] for tensor in (keypoints, scores, area, counted))
        return NmsResult(*(v[0] for v in _nms(*single, threshold, soft, sigmas, max_people)))
    return NmsResult(*_nms(keypoints, scores, area, counted, threshold, soft, sigmas, max_people))


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
