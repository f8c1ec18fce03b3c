"""Masks of limbs. In plain torch."""

from collections.abc import Sequence

import torch

from .part_affinity_fields import _limbs, _map_dtype


def limb_masks(
    keypoints: torch.Tensor,
    limbs: Sequence[tuple[int, int]],
    limb_radius: float,
    size: tuple[int, int],
    *,
    visible: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Definition of :func:`pypose_ops.limb_masks`: every person's mask in memory at once."""
    dtype = dtype or _map_dtype(keypoints)
    limb = _limbs(keypoints, limbs, size, visible, dtype)
    beyond = limb["along"] - limb["along"].clamp(min=0).minimum(limb["length"][..., None, None])
    inside = limb["present"] & (limb["across"] ** 2 + beyond**2 <= limb_radius**2)
    return inside.any(1).to(dtype)
