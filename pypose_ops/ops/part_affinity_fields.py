"""Part affinity fields: the directions of limbs."""

from collections.abc import Sequence
from typing import Literal

import torch

from ._arguments import check_number, check_pairs, check_size, check_tensor, choice, expand_visible
from ._autograd import (
    _empty_gradient,
    call_backward,
    forward_mode,
    register_derivative,
    register_fake,
    vmap_by_batch,
)
from ._out import draw, out_dtype, register_out

_ops = torch.ops.pypose_ops


# In the order of the enumerations in csrc/heatmaps/limbs.h.
_LIMB_PROFILES = ("band", "openpose", "trt_pose", "sleap", "linear")


_LIMB_COMBINES = ("mean", "sum", "last")


def part_affinity_fields(
    keypoints: torch.Tensor,
    limbs: Sequence[tuple[int, int]],
    limb_radius: float,
    size: tuple[int, int],
    *,
    visible: torch.Tensor | None = None,
    profile: Literal["band", "openpose", "trt_pose", "sleap", "linear"] = "band",
    combine: Literal["mean", "sum", "last"] = "mean",
    dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draws one field of unit vectors per limb (Cao et al., CVPR 2017): the direction of the limb at a pixel.

    A limb is drawn for the people of whom both ends are visible, finite and within 1e6 pixels of the origin. A limb
    shorter than 1e-6 pixels has no direction and draws nothing.

    Args:
        keypoints (Tensor): ``(B, K, 2)``, or ``(B, P, K, 2)`` for P people; float32 or float64; ``(x, y)`` in heatmap
            pixels, pixel centres at integers.
        limbs (sequence of pairs): joints ``(from, to)``, for example ``skeletons.COCO.edges``; at most 256. Repeated
            pairs are drawn repeatedly.
        limb_radius (float): how far from its axis the limb reaches, in pixels, at least 1e-6; the sigma
            of the soft profiles.
        size (tuple[int, int]): ``(height, width)`` of the maps.
        visible (Tensor, optional): as in :func:`gaussian_heatmaps`.
        profile (str): the weight of the unit vector, with ``a`` the distance from the axis and ``d`` from the limb:

            - ``"band"``: 1 where ``a <= limb_radius``, inside the limb's bounding box grown by
              ``limb_radius``, borders included;
            - ``"openpose"``: the same with the box rounded and its last row and column left out, as OpenPose draws it;
            - ``"trt_pose"``: ``exp(-d^2 / limb_radius^2)``, to be combined by ``"sum"``;
            - ``"sleap"``: ``exp(-d^4 / (2 limb_radius^2))``, to be combined by ``"sum"``; limbs below a pixel count
              as one pixel long where the nearest point is sought;
            - ``"linear"``: ``1 - a / limb_radius`` between the ends of the limb, borders included, as DeepLabCut draws
              it; to be combined by ``"last"``.
        combine (str): of people: ``"mean"`` over those whose limb covers the pixel (for the soft profiles, over all
            who are drawn), ``"sum"``, or ``"last"``: the last of those whose limb covers it, not for the soft profiles.
        dtype (torch.dtype, optional): of the maps: float16, bfloat16, float32 or float64. Default: that of the
            keypoints.
        out (Tensor, optional): what to draw into, ``(B, 2 * len(limbs), height, width)``, contiguous, on the keypoints'
            device; it is returned. Nothing is allocated, and nothing can be differentiated.

    Returns:
        Tensor: ``(B, 2 * len(limbs), height, width)``, contiguous: x of the first limb, y of the first limb, x of the
        second, ...

    Differentiable with respect to ``keypoints``, deterministically. Of a band only the direction of its vectors has a
    derivative: its edge is a step, as are the ends of a linear profile, and the set of people who cover a pixel is
    treated as constant. Double backward is not supported.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: size is not two positive integers; limbs are not pairs; an unknown option name; a limb names a joint
            that is not there; limb_radius is not positive; ``"last"`` with a soft profile; another argument is wrong.

    Example:
        >>> keypoints = torch.tensor([[[[10.0, 5.0], [10.0, 50.0]], [[30.0, 5.0], [44.0, 50.0]]]])  # 1 image, 2 people
        >>> part_affinity_fields(keypoints, [(0, 1)], 2.0, (64, 48)).shape
        torch.Size([1, 2, 64, 48])
    """
    op = "part_affinity_fields"
    check_tensor(op, "keypoints", keypoints)
    outs = () if out is None else (out,)
    return draw(
        _ops.part_affinity_fields,
        outs,
        (keypoints,),
        keypoints,
        check_pairs(op, "limbs", limbs),
        check_number(op, "limb_radius", limb_radius),
        None if visible is None else expand_visible(op, visible, keypoints),
        *check_size(op, size),
        choice(op, "profile", profile, _LIMB_PROFILES),
        choice(op, "combine", combine, _LIMB_COMBINES),
        out_dtype(op, dtype, keypoints, *outs),
    )


@register_fake("pypose_ops::part_affinity_fields")
def _(keypoints, limbs, limb_radius, visible, height, width, profile, combine, dtype):
    torch._check(keypoints.dim() in (3, 4), lambda: "part_affinity_fields: keypoints must be (B, K, 2) or (B, P, K, 2)")
    return keypoints.new_empty((keypoints.shape[0], len(limbs), height, width), dtype=dtype)


register_out("part_affinity_fields")


@register_fake("pypose_ops::_part_affinity_fields_backward")
def _(grad, keypoints, limbs, limb_radius, visible, profile, combine):
    return _empty_gradient(keypoints if keypoints.dim() == 4 else keypoints[:, None], grad)


def _setup_fields(ctx, inputs, output):
    keypoints, limbs, limb_radius, visible, _, _, profile, combine, _ = inputs
    ctx.save_for_backward(keypoints, visible)
    ctx.options = limbs, limb_radius, profile, combine


def _fields_backward(ctx, grad):
    keypoints, visible = ctx.saved_tensors
    limbs, limb_radius, profile, combine = ctx.options
    grad_keypoints = call_backward(
        _ops._part_affinity_fields_backward.default, grad, keypoints, limbs, limb_radius, visible, profile, combine
    )
    return grad_keypoints.view_as(keypoints).to(keypoints.dtype), *(None,) * 8


register_derivative("part_affinity_fields", _setup_fields, _fields_backward)
register_derivative("_part_affinity_fields_backward")
vmap_by_batch("part_affinity_fields", 0, 3)
vmap_by_batch("_part_affinity_fields_backward", 0, 1, 4)


@forward_mode("part_affinity_fields")
def _(keypoints, limbs, limb_radius, visible, height, width, profile, combine, dtype):
    from .. import reference  # here: it imports result types from this package

    return reference.part_affinity_fields(
        keypoints,
        list(zip(limbs[::2], limbs[1::2], strict=True)),
        limb_radius,
        (height, width),
        visible=visible,
        profile=_LIMB_PROFILES[profile],
        combine=_LIMB_COMBINES[combine],
        dtype=dtype,
    )
