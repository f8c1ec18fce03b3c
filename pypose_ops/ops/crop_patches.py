"""Batched affine crops."""

from collections.abc import Sequence
from typing import Literal

import torch

from ._arguments import check_dtype, check_size, check_tensor, choice
from ._autograd import call_backward, forward_mode, register_derivative, register_fake, vmap_by_batch
from ._out import draw, register_out

_ops = torch.ops.pypose_ops


# In the order of the enumerations in csrc/patches/crop_patches.h; zeros is constant (3 modulo 3) with fill 0.
_MODES = ("bilinear", "nearest", "bicubic")


_PADDINGS = ("constant", "border", "reflect", "zeros")


def crop_patches(
    images: torch.Tensor | Sequence[torch.Tensor],
    transforms: torch.Tensor,
    size: tuple[int, int],
    *,
    image_index: torch.Tensor | None = None,
    mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding: Literal["zeros", "constant", "border", "reflect"] = "zeros",
    fill: float | Sequence[float] = 0.0,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    antialias: bool = False,
    mask: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Crops patches from images or feature maps by affine transforms: resampled, normalised and batched in one call.

    Patch pixel ``(x, y)`` shows the image at ``(u, v) = transform @ (x, y, 1)``. :mod:`pypose_ops.geometry` makes
    transforms of boxes. A horizontal flip is a transform too.

    Args:
        images (Tensor or list[Tensor]): ``(B, C, H, W)`` or ``(C, H, W)``, or a list of ``(C, H, W)`` of different
            sizes; uint8, float16, bfloat16, float32 or float64, any strides (an ``(H, W, 3)`` image is
            ``image.permute(2, 0, 1)``, at no cost).
        transforms (Tensor): ``(N, 2, 3)``, float32 or float64: affine from patch pixels to image pixels, pixel
            centres at integers on both sides.
        size (tuple[int, int]): ``(height, width)`` of the patches.
        image_index (Tensor, optional): ``(N,)`` integers: the image of each patch. None: patch n is cut from image
            n, or all patches from the only image. An index without an image (for example -1) gives a patch of ``fill``.
        mode (str): ``"bilinear"``; ``"nearest"``, halves up; or ``"bicubic"``, Keys's kernel of 4 x 4 pixels, with
            a = -0.75 as in OpenCV and in torch's ``grid_sample`` and ``interpolate``. May overshoot the image's range.
        padding (str): the values outside the image: ``"zeros"``; ``"constant"``, ``fill``; ``"border"``, the
            nearest pixel; ``"reflect"``, the mirror at the centre of the outermost pixels. A transform that is not
            finite gives ``fill`` (0 but for ``"constant"``) in all cases, and a mask of 0.
        fill (float or list): in the units of the image, so normalised too; one number, or one for each channel.
        mean, std (float or list, optional): the patch is ``(sample - mean) / std``; one number, or one for each
            channel. Of ``fill``, ``mean`` and ``std``, lists may have up to 64 entries.
        antialias (bool): where a patch pixel covers more than one image pixel, take the mean over its area: bilinear
            samples in a regular grid, as many along each side as it covers image pixels (32 at most). With
            ``"bicubic"`` the kernel becomes as much wider along each axis of the image, a is -0.5, and at the
            ``"border"`` only pixels inside count, as in Pillow and in torch's antialiased ``interpolate``.
        mask (Tensor, optional): ``(N, 4)``, float32 or float64, boxes ``(x1, y1, x2, y2)`` in image pixels: appends
            a channel that is 1 where a patch pixel's centre lies in the patch's box, edges included, else 0; an
            inverted box contains nothing.
        dtype (torch.dtype, optional): of the patches: float16, bfloat16, float32, float64, or uint8 (rounded and
            clamped). Default: that of floating images, float32 for uint8. Arithmetic is float32, with float64 images or
            patches float64.
        out (Tensor, optional): what to draw into, of the shape that is returned, contiguous, on the device of the
            transforms; it is returned. Nothing is allocated, and nothing can be differentiated.

    Returns:
        Tensor: ``(N, C, height, width)``, with a mask ``(N, C + 1, height, width)``; contiguous.

    Differentiable with respect to floating ``images`` and, but for nearest patches, ``transforms``; deterministically,
    on every device. At a kink of bilinear patches (a transform that hits pixel centres) the slope is the one to the
    right; in mirrored copies, and at the last pixel of ``"border"`` and ``"reflect"``, the one to the left. Double
    backward is not supported.

    On CUDA a list of images is passed in kernel parameters: 32 images per launch, one per launch in the backward.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: size is not two positive integers; an unknown option name; ``antialias`` with nearest samples;
            ``fill`` without ``padding="constant"``; another argument has
            the wrong shape, dtype, device or value; the message names it.

    Example:
        >>> image = torch.randint(256, (1, 3, 720, 1280), dtype=torch.uint8)
        >>> half = torch.tensor([[[2.0, 0.0, 100.0], [0.0, 2.0, 50.0]]])
        >>> crop_patches(image, half, (256, 192), mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)).shape
        torch.Size([1, 3, 256, 192])
    """
    op = "crop_patches"
    height, width = check_size(op, size)
    images = _images(images)
    check_tensor(op, "transforms", transforms)
    if mask is not None:
        check_tensor(op, "mask", mask)
    mode, padding, fill = _options(mode, padding, fill, antialias)
    if dtype is None and out is not None:
        dtype = check_tensor(op, "out", out).dtype
    elif dtype is None:
        dtype = images[0].dtype if images and images[0].is_floating_point() else torch.float32
    check_dtype(op, dtype)
    if image_index is not None and not check_tensor(op, "image_index", image_index).is_floating_point():
        image_index = image_index.to(torch.int64)
    if mode == 1:
        transforms = transforms.detach()
    return draw(
        _ops.crop_patches,
        () if out is None else (out,),
        (*images, transforms),
        images,
        transforms,
        height,
        width,
        image_index,
        mode,
        padding,
        fill,
        _numbers(op, "mean", 0.0 if mean is None else mean),
        _numbers(op, "std", 1.0 if std is None else std),
        antialias,
        mask,
        dtype,
    )


def _images(images):
    if isinstance(images, torch.Tensor):
        return [images]
    if not isinstance(images, list | tuple) or not all(isinstance(image, torch.Tensor) for image in images):
        raise TypeError(f"crop_patches: images must be a tensor or a list of tensors, got {type(images).__name__}")
    if len(images) == 1 and images[0].dim() == 4:
        raise ValueError(f"crop_patches: a list of images must hold (C, H, W), got shape {tuple(images[0].shape)}")
    return list(images)


def _options(mode, padding, fill, antialias):
    """The options' numbers, and fill as a list."""
    op = "crop_patches"
    mode = choice(op, "mode", mode, _MODES)
    constant = padding == "constant"
    padding = choice(op, "padding", padding, _PADDINGS) % 3
    fill = _numbers(op, "fill", fill)
    if any(fill) and not constant:
        raise ValueError(f"{op}: fill needs padding='constant'")
    if antialias and mode == 1:
        raise ValueError(f"{op}: antialias needs mode='bilinear' or 'bicubic'")
    return mode, padding, fill


def _numbers(op, name, value):
    """A number, or a list or tuple of numbers, as a list."""
    try:
        if isinstance(value, torch.Tensor):
            raise TypeError  # its numbers may be on another device
        if not isinstance(value, list | tuple):
            return [float(value)]
        if len(value) == 0:
            raise ValueError
        return [float(v) for v in value]
    except (TypeError, ValueError):
        raise TypeError(f"{op}: {name} must be a number or a list of numbers, got {value!r}") from None


@register_fake("pypose_ops::crop_patches")
def _(images, transforms, height, width, image_index, mode, padding, fill, mean, std, antialias, mask, dtype):
    torch._check(len(images) > 0, lambda: "crop_patches: images must be (B, C, H, W) or a list of (C, H, W)")
    torch._check(transforms.dim() == 3, lambda: "crop_patches: transforms must be (N, 2, 3)")
    channels = images[0].shape[-3] + (mask is not None)
    return transforms.new_empty((transforms.shape[0], channels, height, width), dtype=dtype)


register_out("crop_patches")


@register_fake("pypose_ops::_crop_patches_images_backward")
def _(grad, images, transforms, image_index, mode, padding, std, antialias):
    return [torch.empty(image.shape, dtype=image.dtype, device=image.device) for image in images]


@register_fake("pypose_ops::_crop_patches_transforms_backward")
def _(grad, images, transforms, image_index, mode, padding, fill, std, antialias):
    double = torch.float64 in (grad.dtype, images[0].dtype)
    return transforms.new_empty(transforms.shape, dtype=torch.float64 if double else torch.float32)


def _setup_context(ctx, inputs, output):
    images, transforms, _, _, image_index, mode, padding, fill, _, std, antialias, _, _ = inputs
    ctx.save_for_backward(transforms, image_index, *images)
    ctx.options = (mode, padding, fill, std, antialias)


def _backward(ctx, grad):
    transforms, image_index, *images = ctx.saved_tensors
    mode, padding, fill, std, antialias = ctx.options
    grad_images = grad_transforms = None
    if any(ctx.needs_input_grad[0]):
        grad_images = call_backward(
            _ops._crop_patches_images_backward.default,
            grad,
            images,
            transforms,
            image_index,
            mode,
            padding,
            std,
            antialias,
        )
    else:
        grad_images = [None] * len(images)
    if ctx.needs_input_grad[1]:
        grad_transforms = call_backward(
            _ops._crop_patches_transforms_backward.default,
            grad,
            images,
            transforms,
            image_index,
            mode,
            padding,
            fill,
            std,
            antialias,
        ).to(transforms.dtype)
    return grad_images, grad_transforms, *(None,) * 11


register_derivative("crop_patches", _setup_context, _backward)
register_derivative("_crop_patches_images_backward")

register_derivative("_crop_patches_transforms_backward")
vmap_by_batch("crop_patches")
vmap_by_batch("_crop_patches_images_backward")
vmap_by_batch("_crop_patches_transforms_backward")


@forward_mode("crop_patches")
def _(images, transforms, height, width, image_index, mode, padding, fill, mean, std, antialias, mask, dtype):
    from .. import reference  # here: it imports result types from this package

    return reference.crop_patches(
        images[0] if len(images) == 1 else images,
        transforms,
        (height, width),
        image_index=image_index,
        mode=_MODES[mode],
        padding=_PADDINGS[padding],
        fill=fill,
        mean=mean,
        std=std,
        antialias=antialias,
        mask=mask,
        dtype=dtype,
    )
