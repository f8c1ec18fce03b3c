"""Pairs of predicted and annotated people of the same image, as flat lists without padding."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..ops._arguments import check_tensor
from ..ops.oks import oks

# Pairs per chunk of gathered joints.
_CHUNK = 1 << 15


class Pairs(NamedTuple):
    """All pairs of a prediction and an annotated person of its image, ordered by both."""

    pred: torch.Tensor  # (P,) index of the prediction
    target: torch.Tensor  # (P,) index of the annotated person


def ranges(start: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Concatenates the ranges ``start[i] ... start[i] + count[i] - 1``; also returns the i of each entry."""
    owner = torch.repeat_interleave(count)
    first = count.cumsum(0) - count
    return start[owner] + torch.arange(len(owner), device=owner.device) - first[owner], owner


def match_images(pred_image: torch.Tensor, target_image: torch.Tensor, images: int) -> Pairs:
    """All pairs. Images are numbers from 0 to ``images`` - 1; both lists are sorted."""
    count = torch.bincount(target_image, minlength=images)
    start = count.cumsum(0) - count
    target, pred = ranges(start[pred_image], count[pred_image])
    return Pairs(pred, target)


def pair_oks(
    pairs: Pairs,
    pred: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor,
    sigmas: Sequence[float],
    visible: torch.Tensor,
    boxes: torch.Tensor | None = None,
) -> torch.Tensor:
    """OKS of every pair, (P,)."""
    out = pred.new_empty(len(pairs.pred))
    for begin in range(0, len(out), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        p, t = pairs.pred[part], pairs.target[part]
        out[part] = oks(
            pred[p, None],
            target[t, None],
            area[t, None],
            sigmas=sigmas,
            visible=visible[t, None],
            boxes=None if boxes is None else boxes[t, None],
        ).flatten()
    return out


def check_people(name: str, what: str, keypoints: torch.Tensor, image: torch.Tensor, joints: int) -> None:
    check_real(name, what, keypoints)
    check_real(name, f"{what}_image", image)
    if keypoints.dim() != 3 or keypoints.shape[1:] != (joints, 2):
        raise ValueError(f"{name}: {what} must be (N, {joints}, 2), got shape {tuple(keypoints.shape)}")
    check_each(name, f"{what}_image", image, keypoints)


def check_real(name: str, argument: str, value: torch.Tensor) -> None:
    check_tensor(name, argument, value)
    if value.is_complex():
        raise ValueError(f"{name}: {argument} must be real, got {value.dtype}")


def check_each(name: str, argument: str, value: torch.Tensor | None, people: torch.Tensor) -> None:
    if value is None:
        return
    check_real(name, argument, value)
    if value.shape != people.shape[:1]:
        raise ValueError(f"{name}: {argument} must be ({len(people)},), got shape {tuple(value.shape)}")


def check_visible(name: str, visible: torch.Tensor | None, target: torch.Tensor) -> torch.Tensor:
    if visible is None:
        return target.isfinite().all(-1)
    check_real(name, "visible", visible)
    if visible.shape != target.shape[:2]:
        raise ValueError(f"{name}: visible must be {tuple(target.shape[:2])}, got shape {tuple(visible.shape)}")
    return visible if visible.dtype == torch.bool else visible >= 0.5
