"""Boxes and affine transforms: batched, differentiable.

Points are ``(x, y)`` in pixels with pixel centres at integers, sizes ``(height, width)``. Transforms ``(..., 2, 3)``
map **patch pixels to image pixels**, as :func:`pypose_ops.crop_patches` wants them.

How a box meets the pixels of a patch is a convention, ``align``:

========== ================================= ============================== ================================
align      patch px -> image px              the whole W x H image is       used by
========== ================================= ============================== ================================
"index"    centre + (p - w/2) * W/w          centre (W/2, H/2), W x H       HRNet, MMPose's default
"center"   centre + (p - (w-1)/2) * W/w      centre ((W-1)/2, ..), W x H    torchvision, detectron2, OpenCV's resize
"corners"  centre + (p - (w-1)/2) * W/(w-1)  centre ((W-1)/2, ..), W-1 x .. UDP, MMPose's use_udp, Hugging Face
========== ================================= ============================== ================================
"""

import math
from typing import Any, Literal, TypeAlias

import torch

from ._constants import computed
from .ops._arguments import check_size, choice
from .ops._autograd import call, is_plain, register_fake, vmap_by_batch
from .ops._flip import check_points, flip_heatmaps, flip_keypoints, reorder

__all__ = [
    "ALIGNS",
    "Align",
    "box_to_center_and_scale",
    "box_to_transform",
    "compose_transforms",
    "denormalize_from_box",
    "flip_heatmaps",
    "flip_keypoints",
    "invert_transform",
    "joint_boxes",
    "normalize_to_box",
    "reorder",
    "scale_coordinates",
    "transform_points",
]

_box_transforms = torch.ops.pypose_ops._box_transforms.default
_box_centers = torch.ops.pypose_ops._box_centers.default

Align: TypeAlias = Literal["index", "center", "corners"]
ALIGNS = ("index", "center", "corners")
_MOST_DIMS = 5  # of centres, with one call


def box_to_center_and_scale(
    boxes: torch.Tensor,
    size: tuple[int, int],
    *,
    padding: float = 1.25,
    format: Literal["xyxy", "xywh"] = "xyxy",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres and scales of boxes that are padded and enlarged to the aspect ratio of a patch.

    The rule of HRNet, MMPose and Hugging Face's function of the same name: the shorter side grows to the aspect
    ratio, then both by ``padding``. Codes with a ``pixel_std`` or ``normalize_factor`` of 200 expect these scales /
    200.

    Args:
        boxes (Tensor): ``(..., 4)``, floating, image pixels.
        size (tuple[int, int]): ``(height, width)`` of the patch.
        padding (float): 1 for none.
        format (str): ``"xyxy"`` (two corners) or ``"xywh"`` (corner, width, height).

    Returns:
        tuple[Tensor, Tensor]: centres and scales, ``(..., 2)`` each; a scale is the width and height in image pixels.

    Raises:
        ValueError: size is not two positive integers; an unknown format; a box of negative width or height (checked on
            the CPU in eager mode only).
    """
    height, width = check_size("box_to_center_and_scale", size)
    corners = choice("box_to_center_and_scale", "format", format, ("xyxy", "xywh")) == 0
    if _in_one_call(boxes) and isinstance(padding, int | float):
        try:
            return call(_box_centers, (), boxes, width / height, padding, corners)
        except ValueError:
            if boxes.shape[-1:] != (4,):
                raise
            # The steps name the box.
    corner, extent = boxes[..., :2], boxes[..., 2:]
    if corners:
        extent = extent - corner
    if (inverted := _negative(extent)) is not None:
        box = boxes[inverted][0].tolist()
        raise ValueError(f"box_to_center_and_scale: boxes must not be inverted (x1 <= x2, y1 <= y2), got {box}")
    aspect = width / height
    w, h = extent.unbind(-1)
    scale = torch.stack((torch.maximum(w, h * aspect), torch.maximum(h, w / aspect)), -1) * padding
    return corner + extent / 2, scale


def _negative(sizes: torch.Tensor) -> torch.Tensor | None:
    """Which of sizes ``(..., 2)`` are negative; None: none are, or looking at values would need a synchronisation."""
    if sizes.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    wrong = sizes.detach() < 0
    try:
        return wrong.any(-1) if bool(wrong.any()) else None
    except RuntimeError:  # under torch.func.vmap and fake tensors there are no values
        return None


def _check_scale(op: str, scale: torch.Tensor) -> None:
    """Refuses inverted boxes, which would mirror in silence."""
    if (inverted := _negative(scale)) is not None:
        got = scale[inverted][0].tolist()
        raise ValueError(f"{op}: scale must not be negative, a box's width and height, got {got}")


def box_to_transform(
    center: torch.Tensor,
    scale: torch.Tensor,
    rotation: float | torch.Tensor,
    size: tuple[int, int],
    *,
    align: Align = "index",
    flip: bool | torch.Tensor = False,
) -> torch.Tensor:
    """The transforms that show boxes in patches.

    ``u = center + R(rotation) diag(scale / extent) (p - middle)``; extent and middle follow ``align``, see the top of
    this module. HRNet and MMPose take the width's ratio for both axes: the same once the scale has the patch's aspect
    ratio. UDP's closed form (``get_udp_warp_matrix``) rotates the other way: pass ``-rotation``.

    Args:
        center (Tensor): ``(..., 2)`` image pixels, float32 or float64.
        scale (Tensor): ``(..., 2)`` the box's width and height in image pixels.
        rotation (float or Tensor): ``(...)`` degrees; the box is rotated from x towards y (clockwise on screen).
        size (tuple[int, int]): ``(height, width)`` of the patch.
        align (str): ``"index"``, ``"center"`` or ``"corners"``.
        flip (bool or Tensor): ``(...)`` bool: mirror the patch from left to right.

    Returns:
        Tensor: ``(..., 2, 3)``, patch pixels -> image pixels.

    Raises:
        ValueError: size is not two positive integers, or below 2 with ``"corners"``; an unknown rule; a negative scale
            (checked on the CPU in eager mode only): ``flip`` mirrors.

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
    # Numbers instead of tensors, which would have to be copied to the device.
    (extent_x, extent_y), (middle_x, middle_y) = _patch_axes((height, width), align)
    of_numbers = not isinstance(rotation, torch.Tensor) and not isinstance(flip, torch.Tensor)
    if of_numbers and _in_one_call(center, scale):
        middle = (width - 1) - middle_x if flip else middle_x
        turn = _cos_and_sin(rotation, center)
        try:
            return call(_box_transforms, (), center, scale, extent_x, extent_y, middle, middle_y, *turn, bool(flip))
        except ValueError:
            _check_scale(op, scale)  # names the box
            raise
    _check_scale(op, scale)
    if of_numbers and rotation == 0 and _few_steps(center, scale):
        return _upright_transforms(center, scale, (height, width), align, bool(flip))
    step_x, step_y = scale[..., 0] / extent_x, scale[..., 1] / extent_y
    # A mirrored patch has column w - 1 - x in place of x.
    if isinstance(flip, torch.Tensor):
        flip = flip.to(center.device)
        step_x = torch.where(flip, -step_x, step_x)
        middle_x = torch.where(flip, (width - 1) - middle_x, middle_x)
    elif flip:
        step_x, middle_x = -step_x, (width - 1) - middle_x
    x, y = center.unbind(-1)
    cos, sin = _cos_and_sin(rotation, center)
    xx, xy = step_x * cos, -step_y * sin
    yx, yy = step_x * sin, step_y * cos
    x0 = x - xx * middle_x - xy * middle_y
    y0 = y - yx * middle_x - yy * middle_y
    rows = torch.stack(torch.broadcast_tensors(xx, xy, x0, yx, yy, y0), -1)
    return rows.unflatten(-1, (2, 3))


def _patch_axes(size: tuple[int, int], align: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """What a patch of ``(height, width)`` divides a box by, and its middle, x first."""
    height, width = size
    less = 1 if align == "corners" else 0
    middle = (width / 2, height / 2) if align == "index" else ((width - 1) / 2, (height - 1) / 2)
    return (width - less, height - less), middle


def _in_one_call(*tensors: Any) -> bool:
    """Whether one call on the host does all: of a few boxes every operation of torch counts.

    For tensors of the CPU, outside of compilers, tracers and transforms, where nothing is differentiated.
    """
    if not is_plain(*tensors):
        return False
    first = tensors[0]
    for tensor in tensors:
        if tensor.dim() > _MOST_DIMS:
            return False
        if tensor.dtype != first.dtype or tensor.shape != first.shape:
            return False
    return first.dtype in (torch.float32, torch.float64)


def _few_steps(center: torch.Tensor, scale: torch.Tensor) -> bool:
    """Whether :func:`_upright_transforms` applies: on the CPU, where constants need no copy to the device."""
    if type(center) is not torch.Tensor or type(scale) is not torch.Tensor or torch.compiler.is_compiling():
        return False
    like = center.shape == scale.shape and center.dtype == scale.dtype and center.is_floating_point()
    return like and center.is_cpu and scale.is_cpu


def _upright_transforms(
    center: torch.Tensor, scale: torch.Tensor, size: tuple[int, int], align: str, flip: bool
) -> torch.Tensor:
    """The same numbers as :func:`box_to_transform`, both axes at once: where one call is not possible."""
    extent, turn, middle = computed(_upright_constants, size, align, flip, center.dtype, device=center.device)
    linear = scale.unsqueeze(-2) / extent * turn
    back_x, back_y = (linear * middle).unbind(-1)
    return torch.cat((linear, (center - back_x - back_y).unsqueeze(-1)), -1)


def _upright_constants(
    size: tuple[int, int], align: str, flip: bool, dtype: torch.dtype, device: torch.device
) -> list[torch.Tensor]:
    """Extent of a patch; what mirrors its columns or leaves them; and its middle."""
    extent, (middle_x, middle_y) = _patch_axes(size, align)
    turn = ((-1.0 if flip else 1.0, -0.0), (0.0, 1.0))
    values = extent, turn, ((size[1] - 1) - middle_x if flip else middle_x, middle_y)
    return [torch.tensor(value, dtype=dtype, device=device) for value in values]


@register_fake("pypose_ops::_box_transforms")
def _(center, scale, extent_x, extent_y, middle_x, middle_y, cos, sin, flip):
    return center.new_empty((*center.shape, 3))


@register_fake("pypose_ops::_box_centers")
def _(boxes, aspect, padding, corners):
    return boxes.new_empty((*boxes.shape[:-1], 2)), boxes.new_empty((*boxes.shape[:-1], 2))


vmap_by_batch("_box_transforms")
vmap_by_batch("_box_centers")


def _cos_and_sin(degrees: float | torch.Tensor, like: torch.Tensor) -> tuple[Any, Any]:
    if isinstance(degrees, torch.Tensor):
        angle = degrees.to(like) * (math.pi / 180)
        return angle.cos(), angle.sin()
    angle = math.radians(degrees)
    return math.cos(angle), math.sin(angle)


def invert_transform(transform: torch.Tensor) -> torch.Tensor:
    """The inverse affine, ``(..., 2, 3)``; computed in float64. Singular ones give infinities or NaN."""
    wide = transform.double()
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in wide.unbind(-2))
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    rows = torch.stack((a, b, -(a * x + b * y)), -1), torch.stack((c, d, -(c * x + d * y)), -1)
    return torch.stack(rows, -2).to(transform.dtype)


def compose_transforms(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """The affine that applies ``inner`` and then ``outer``; both ``(..., 2, 3)``."""
    linear = outer[..., :2] @ inner
    return torch.cat((linear[..., :2], linear[..., 2:] + outer[..., 2:]), -1)


def transform_points(points: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """Points ``(..., K, 2)`` under affines ``(..., 2, 3)``."""
    return points @ transform[..., :2].transpose(-1, -2) + transform[..., 2].unsqueeze(-2)


def joint_boxes(pose: torch.Tensor, torso: tuple[int, int], *, sigma: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """DeepPose's boxes around the joints of the last stage's estimate (Toshev & Szegedy, CVPR 2014, 3.2).

    ``b_i = (y_i, sigma diam(y), sigma diam(y))``, diam the distance between opposing torso joints.

    Args:
        pose (Tensor): ``(..., K, 2)`` image pixels.
        torso (tuple[int, int]): the two torso joints, left shoulder and right hip: :attr:`.Skeleton.torso`.
        sigma (float): not negative; the paper has 1.0 for FLIC and 2.0 for LSP.

    Returns:
        tuple[Tensor, Tensor]: centres ``(..., K, 2)``, the joints; scales ``(..., K, 2)``.

    Raises:
        ValueError: sigma is negative.
    """
    if not sigma >= 0:
        raise ValueError(f"joint_boxes: sigma must not be negative, got {sigma}")
    first, second = torso
    diameter = torch.linalg.vector_norm(pose[..., first, :] - pose[..., second, :], dim=-1)
    return pose, (sigma * diameter)[..., None, None].expand_as(pose)


def normalize_to_box(points: torch.Tensor, center: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """DeepPose's ``N(y; b) = (y - b_c) / (b_w, b_h)``: in [-1/2, 1/2] inside of the box. All ``(..., 2)``.

    Raises:
        ValueError: a negative scale (checked on the CPU in eager mode only).
    """
    _check_scale("normalize_to_box", scale)
    return (points - center) / scale


def denormalize_from_box(points: torch.Tensor, center: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`normalize_to_box`, with the same error."""
    _check_scale("denormalize_from_box", scale)
    return points * scale + center


def scale_coordinates(
    keypoints: torch.Tensor, from_size: tuple[int, int], to_size: tuple[int, int], *, align: Align
) -> torch.Tensor:
    """Converts coordinates between two pixel grids of the same image.

    With ``n`` pixels on an axis of the first grid and ``m`` on that of the second, pixel centres at integers:

    - ``align="index"``: ``x * m / n``; pixel 0 on pixel 0 (MSRA, most of MMPose).
    - ``align="center"``: ``(x + 0.5) * m / n - 0.5``; the images' borders on each other (CPM, OpenPose, torchvision).
    - ``align="corners"``: ``x * (m - 1) / (n - 1)``; the outermost pixel centres on each other (UDP).

    Args:
        keypoints (Tensor): ``(..., 2)``, floating, ``(x, y)`` in pixels of the first grid.
        from_size, to_size (tuple[int, int]): ``(height, width)`` of the two grids.
        align (str): the rule; swapping the sizes gives the inverse.

    Returns:
        Tensor: ``(..., 2)`` of the same dtype, in pixels of the second grid. Differentiable.

    Raises:
        ValueError: an unknown rule; a size that is not positive, or with ``"corners"`` below 2.

    Example:
        >>> scale_coordinates(torch.tensor([191.0, 255.0]), (256, 192), (64, 48), align="corners")
        tensor([47., 63.])
    """
    check_points("scale_coordinates", keypoints)
    if align not in ALIGNS:
        raise ValueError(f"scale_coordinates: align must be one of {', '.join(ALIGNS)}, got {align!r}")
    smallest = 2 if align == "corners" else 1
    for name, size in (("from_size", from_size), ("to_size", to_size)):
        if len(size) != 2 or min(size) < smallest:
            raise ValueError(
                f"scale_coordinates: {name} must be (height, width) of at least {smallest} with align={align!r}, "
                f"got {tuple(size)}"
            )
    less = 1 if align == "corners" else 0
    half = 0.5 if align == "center" else 0.0
    # Numbers instead of a tensor, which would have to be copied to the device.
    ratios = [(to_size[d] - less) / (from_size[d] - less) for d in (1, 0)]
    if ratios[0] == ratios[1]:
        return (keypoints + half) * ratios[0] - half if half else keypoints * ratios[0]
    return torch.stack([(v + half) * r - half for v, r in zip(keypoints.unbind(-1), ratios, strict=True)], -1)
