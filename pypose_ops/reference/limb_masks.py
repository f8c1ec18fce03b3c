"""Masks of limbs. In plain torch."""

import torch

from .part_affinity_fields import _limbs


def limb_masks(keypoints, limbs, width, size, *, visible=None, dtype=torch.float32):
    """Definition of :func:`pypose_ops.limb_masks`: every person's mask in memory at once."""
    limb = _limbs("limb_masks", keypoints, limbs, size, visible, dtype)
    beyond = limb["along"] - limb["along"].clamp(min=0).minimum(limb["length"][..., None, None])
    inside = limb["present"] & (limb["across"] ** 2 + beyond**2 <= width**2)
    return inside.any(1).to(dtype)
