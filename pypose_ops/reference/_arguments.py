"""How the definitions read their arguments: apart from the operators, and without their checks."""

import math
from collections.abc import Iterable, Sequence

import torch


def visibility(visible: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
    """One bool per keypoint; numbers count from 0.5 on."""
    visible = visible if visible.dtype == torch.bool else visible >= 0.5
    return visible.broadcast_to(keypoints.shape[:-1])


def sigmas(sigma: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
    """One sigma per keypoint and axis. A tensor that could be either is read as one number per keypoint."""
    if sigma.dim() < keypoints.dim():
        try:
            return sigma[..., None].broadcast_to(keypoints.shape)
        except RuntimeError:
            pass
    return sigma.broadcast_to(keypoints.shape)


def pairs(numbers: Iterable[Sequence[int]]) -> torch.Tensor:
    """``(L, 2)`` int64."""
    return torch.tensor([[int(a), int(b)] for a, b in numbers], dtype=torch.long).reshape(-1, 2)


def mirrored(flip_pairs: Iterable[Sequence[int]], joints: int) -> list[int]:
    """The joint that takes each joint's place in a mirrored image."""
    places = {int(a): int(b) for pair in flip_pairs for a, b in (pair, reversed(pair))}
    return [places.get(joint, joint) for joint in range(joints)]


def blur_size(refine: str | None, kernel_size: int | str | None, sigma: float | None) -> int:
    """The width in pixels of the blur, 1 for none, or of the window of ``"centroid"``.

    ``"auto"`` is MMPose's for targets of that sigma: 3, 7, 11 and 17 for 1, 1.5, 2 and 3, linear in between and beyond.
    """
    if kernel_size is None:
        return 1
    if kernel_size != "auto":
        return int(kernel_size)
    if sigma is None:
        return 7 if refine == "centroid" else 11
    size = 3 + 8 * min(max(sigma - 1, 0), 1) + 6 * max(sigma - 2, 0)
    return min(63, 2 * math.floor(size / 2) + 1)


def simcc_blur_size(kernel_size: int | str | None, sigma: float) -> int:
    """The width in bins of one axis's blur, 1 for none; ``"auto"``: the largest odd number up to (20 sigma - 7) / 3."""
    if kernel_size is None:
        return 1
    if kernel_size != "auto":
        return int(kernel_size)
    size = int((20 * sigma - 7) // 3)
    return max(1, size if size % 2 else size - 1)


def longest_step(max_offset: float | str | None, auto: float | None) -> float | None:
    """The limit of the sub-pixel step; ``auto`` for ``"auto"``."""
    return auto if max_offset == "auto" else max_offset
