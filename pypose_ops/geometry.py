"""Boxes and affine transforms: plain torch, batched, differentiable.

Points are ``(x, y)`` in pixels with pixel centres at integers, sizes ``(height, width)``. Transforms ``(..., 2, 3)``
map **patch pixels to picture pixels**, as :func:`pypose_ops.crop_patches` wants them.

How a box meets the pixels of a patch is a convention, ``align``:

========== ================================= ============================== ================================
align      patch px -> picture px            the whole W x H picture is     used by
========== ================================= ============================== ================================
"index"    centre + (p - w/2) * W/w          centre (W/2, H/2), W x H       HRNet, MMPose's default
"center"   centre + (p - (w-1)/2) * W/w      centre ((W-1)/2, ..), W x H    torchvision, detectron2, OpenCV's resize
"corners"  centre + (p - (w-1)/2) * W/(w-1)  centre ((W-1)/2, ..), W-1 x .. UDP, MMPose's use_udp, Hugging Face
========== ================================= ============================== ================================
"""

import math

import torch

from ._arguments import check_size, choice
from ._geometry_maps import flip_heatmaps, flip_keypoints, scale_coordinates  # noqa: F401  (part of this module)

ALIGNS = ("index", "center", "corners")


def box_to_center_and_scale(boxes, size, *, padding=1.25, format="xyxy"):
    """Centres and scales of boxes that are padded and enlarged to the aspect ratio of a patch.

    The rule of HRNet, MMPose and Hugging Face's function of the same name: the shorter side grows to the aspect
    ratio, then both by ``padding``. Those that divide by a ``pixel_std`` or ``normalize_factor`` of 200 get ours / 200.

    Args:
        boxes (Tensor): ``(..., 4)``, floating, picture pixels.
        size (tuple[int, int]): ``(height, width)`` of the patch.
        padding (float): 1 for none.
        format (str): ``"xyxy"`` (two corners) or ``"xywh"`` (corner, width, height).

    Returns:
        tuple[Tensor, Tensor]: centres and scales, ``(..., 2)`` each; a scale is the width and height in picture pixels.
    """
    height, width = check_size("box_to_center_and_scale", size)
    corner, extent = boxes[..., :2], boxes[..., 2:]
    if choice("box_to_center_and_scale", "format", format, ("xyxy", "xywh")) == 0:
        extent = extent - corner
    aspect = width / height
    w, h = extent.unbind(-1)
    scale = torch.stack((torch.maximum(w, h * aspect), torch.maximum(h, w / aspect)), -1) * padding
    return corner + extent / 2, scale


def box_to_transform(center, scale, rotation, size, *, align="index", flip=False):
    """The transforms that show boxes in patches.

    ``u = center + R(rotation) diag(scale / extent) (p - middle)``; extent and middle follow ``align``, see the top of
    this module. HRNet and MMPose take the width's ratio for both axes: the same once the scale has the patch's aspect
    ratio. The closed form of UDP (``get_udp_warp_matrix``) turns the other way: give it ``-rotation``.

    Args:
        center (Tensor): ``(..., 2)`` picture pixels, float32 or float64.
        scale (Tensor): ``(..., 2)`` the box's width and height in picture pixels.
        rotation (float or Tensor): ``(...)`` degrees; the box is turned from x towards y (clockwise as seen).
        size (tuple[int, int]): ``(height, width)`` of the patch.
        align (str): ``"index"``, ``"center"`` or ``"corners"``.
        flip (bool or Tensor): ``(...)`` bool: mirror the patch from left to right.

    Returns:
        Tensor: ``(..., 2, 3)``, patch pixels -> picture pixels.

    Example:
        >>> center, scale = box_to_center_and_scale(torch.tensor([[100.0, 50.0, 200.0, 350.0]]), (256, 192))
        >>> box_to_transform(center, scale, 0.0, (256, 192), align="corners").shape
        torch.Size([1, 2, 3])
    """
    op = "box_to_transform"
    height, width = check_size(op, size)
    choice(op, "align", align, ALIGNS)
    if align == "corners" and (height < 2 or width < 2):
        raise ValueError(f"{op}: align='corners' needs a size of at least (2, 2), got ({height}, {width})")
    size = center.new_tensor([width, height])
    extent = size - 1 if align == "corners" else size
    middle = size / 2 if align == "index" else (size - 1) / 2
    rotation = torch.as_tensor(rotation, dtype=center.dtype, device=center.device) * (math.pi / 180)
    cos, sin = rotation.cos(), rotation.sin()
    step_x, step_y = (scale / extent).unbind(-1)
    flip = torch.as_tensor(flip, device=center.device)
    step_x = torch.where(flip, -step_x, step_x)
    # A mirrored patch has column w - 1 - x in place of x.
    middle_x = torch.where(flip, (width - 1) - middle[0], middle[0])
    xx, xy = torch.broadcast_tensors(step_x * cos, -step_y * sin)
    yx, yy = torch.broadcast_tensors(step_x * sin, step_y * cos)
    x0 = center[..., 0] - xx * middle_x - xy * middle[1]
    y0 = center[..., 1] - yx * middle_x - yy * middle[1]
    xx, xy, x0, yx, yy, y0 = torch.broadcast_tensors(xx, xy, x0, yx, yy, y0)
    return torch.stack((torch.stack((xx, xy, x0), -1), torch.stack((yx, yy, y0), -1)), -2)


def invert_transform(transform):
    """The inverse affine, ``(..., 2, 3)``; computed in float64. A singular one gives infinities or NaN."""
    wide = transform.double()
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in wide.unbind(-2))
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    rows = torch.stack((a, b, -(a * x + b * y)), -1), torch.stack((c, d, -(c * x + d * y)), -1)
    return torch.stack(rows, -2).to(transform.dtype)


def compose_transforms(outer, inner):
    """The affine that applies ``inner`` and then ``outer``; both ``(..., 2, 3)``."""
    linear = outer[..., :2] @ inner
    return torch.cat((linear[..., :2], linear[..., 2:] + outer[..., 2:]), -1)


def transform_points(points, transform):
    """Points ``(..., K, 2)`` under affines ``(..., 2, 3)``."""
    return points @ transform[..., :2].transpose(-1, -2) + transform[..., 2].unsqueeze(-2)


def joint_boxes(pose, torso, *, sigma=1.0):
    """DeepPose's boxes around the joints of the last stage's estimate (Toshev & Szegedy, CVPR 2014, 3.2).

    ``b_i = (y_i, sigma diam(y), sigma diam(y))``, diam the distance between opposing torso joints.

    Args:
        pose (Tensor): ``(..., K, 2)`` picture pixels.
        torso (tuple[int, int]): the two torso joints, left shoulder and right hip: (9, 2) in LSP, (13, 2) in MPII,
            (5, 12) in COCO.
        sigma (float): the paper has 1.0 for FLIC and 2.0 for LSP.

    Returns:
        tuple[Tensor, Tensor]: centres ``(..., K, 2)``, the joints; scales ``(..., K, 2)``.
    """
    first, second = torso
    diameter = torch.linalg.vector_norm(pose[..., first, :] - pose[..., second, :], dim=-1)
    return pose, (sigma * diameter)[..., None, None].expand_as(pose)


def normalize_to_box(points, center, scale):
    """DeepPose's ``N(y; b) = (y - b_c) / (b_w, b_h)``: in [-1/2, 1/2] inside of the box. All ``(..., 2)``."""
    return (points - center) / scale


def denormalize_from_box(points, center, scale):
    """The inverse of :func:`normalize_to_box`."""
    return points * scale + center
