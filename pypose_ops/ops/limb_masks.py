"""Masks of limbs."""

from collections.abc import Sequence

import torch

from ._arguments import check_number, check_pairs, check_size, check_tensor, expand_visible
from ._autograd import register_fake, vmap_by_batch
from ._out import draw, out_dtype, register_out

_ops = torch.ops.pypose_ops


def limb_masks(
    keypoints: torch.Tensor,
    limbs: Sequence[tuple[int, int]],
    limb_radius: float,
    size: tuple[int, int],
    *,
    visible: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draws one mask per limb: 1 within ``limb_radius`` of the segment between its ends, 0 elsewhere.

    Arguments are those of :func:`part_affinity_fields`; ``out`` has the shape that is returned. A limb without length
    is a disc; the mask of several people is the union of theirs.

    Returns:
        Tensor: ``(B, len(limbs), height, width)``, contiguous. Piecewise constant in the keypoints: not differentiable.

    Raises:
        As :func:`part_affinity_fields`.

    Example:
        >>> keypoints = torch.tensor([[[10.0, 5.0], [10.0, 50.0]]])
        >>> limb_masks(keypoints, [(0, 1)], 3.0, (64, 48))[0, 0, 20].sum()
        tensor(7.)
    """
    op = "limb_masks"
    outs = () if out is None else (out,)
    return draw(
        _ops.limb_masks,
        outs,
        (),
        check_tensor(op, "keypoints", keypoints).detach(),
        check_pairs(op, "limbs", limbs),
        check_number(op, "limb_radius", limb_radius),
        None if visible is None else expand_visible(op, visible, keypoints),
        *check_size(op, size),
        out_dtype(op, dtype, keypoints, *outs),
    )


@register_fake("pypose_ops::limb_masks")
def _(keypoints, limbs, limb_radius, visible, height, width, dtype):
    torch._check(keypoints.dim() in (3, 4), lambda: "limb_masks: keypoints must be (B, K, 2) or (B, P, K, 2)")
    return keypoints.new_empty((keypoints.shape[0], len(limbs) // 2, height, width), dtype=dtype)


register_out("limb_masks")


vmap_by_batch("limb_masks", 0, 3)
