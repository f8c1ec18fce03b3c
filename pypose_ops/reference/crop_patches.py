"""Batched affine crops. In plain torch."""

from collections.abc import Sequence
from typing import Literal

import torch


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
) -> torch.Tensor:
    """Definition of :func:`pypose_ops.crop_patches`: patch after patch, sample after sample."""
    height, width = size
    if isinstance(images, torch.Tensor):
        images = images if images.dim() == 4 else images[None]
    first = images[0] if len(images) else images
    if dtype is None:
        dtype = first.dtype if first.is_floating_point() else torch.float32
    acc = torch.float64 if torch.float64 in (first.dtype, dtype) else torch.float32
    count, channels = len(transforms), first.shape[-3]
    affine = transforms.to(acc)
    affine = torch.where(affine.isfinite().all(-1).all(-1)[:, None, None], affine, torch.nan)
    if image_index is None:
        image_index = range(count) if len(images) != 1 else [0] * count
    fill = _per_channel(fill, channels, affine)
    patches, cut = [], affine
    if isinstance(image_index, torch.Tensor) and isinstance(images, torch.Tensor) and len(images):
        # By gathering rather than one by one: it can be exported. A transform of NaN shows nothing.
        known = (image_index >= 0) & (image_index < len(images))
        cut = torch.where(known[:, None, None], affine, torch.nan)
        images, image_index = images[image_index.long().clamp(0, len(images) - 1)], range(count)
    for n, index in enumerate(map(int, image_index)):
        if 0 <= index < len(images):
            patches.append(_crop(images[index].to(acc), cut[n], (height, width), mode, padding, antialias, fill))
        else:
            patches.append(fill.expand(channels, height, width))
    if patches:
        out = torch.stack(patches)
    else:  # nothing, but of the inputs
        pixels = images if isinstance(images, torch.Tensor) else torch.cat([image.flatten() for image in images])
        out = affine.new_zeros(0, channels, height, width) + affine.sum() + pixels.to(acc).sum()
    if mean is not None:
        out = out - _per_channel(mean, channels, affine)
    if std is not None:
        out = out / _per_channel(std, channels, affine)
    if mask is not None:
        u, v = _positions(affine[:, None, None], height, width, 0.0, 0.0)
        x1, y1, x2, y2 = mask.to(acc)[:, :, None, None].unbind(1)
        inside = (u >= x1) & (u <= x2) & (v >= y1) & (v <= y2)
        out = torch.cat([out, inside[:, None].to(acc)], 1)
    if dtype == torch.uint8:
        out = torch.floor(out.nan_to_num(nan=0.0).clamp(0, 255) + 0.5)
    return out.to(dtype)


def _per_channel(value, channels, like):
    """A number, or one for each channel, as (C, 1, 1)."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1, 1).expand(channels, 1, 1)


def _positions(affine, height, width, dx, dy):
    """Image coordinates of every patch pixel, moved by a part of a patch pixel."""
    x = torch.arange(width, dtype=affine.dtype, device=affine.device) + dx
    y = torch.arange(height, dtype=affine.dtype, device=affine.device)[:, None] + dy
    (xx, xy, x0), (yx, yy, y0) = (row.unbind(-1) for row in affine.unbind(-2))
    return xx * x + xy * y + x0, yx * x + yy * y + y0


def _crop(image, affine, size, mode, padding, antialias, fill):
    """One patch: the mean of its samples."""
    # Samples along each side of a patch pixel; a rotation by exactly 2 is 2 long, up to rounding.
    counts = [1, 1]
    if antialias and torch.compiler.is_exporting():
        raise RuntimeError(
            "crop_patches: the number of samples of antialias=True follows from the transforms' values, so the "
            "definition cannot be exported with it; export the operator"
        )
    if mode == "bicubic":
        u, v = _positions(affine, *size, 0.0, 0.0)
        # Image pixels that a patch pixel covers along x and y of the image.
        reach = affine[:, :2].square().sum(1)
        widths = torch.where((reach > 1) & (reach < 1024), reach, reach.detach().clamp(1, 1024)).sqrt()
        width_u, width_v = widths if antialias else (None, None)
        rows = list(_cubic_taps(v, image.shape[-2], padding, width_v))
        return _weighted_sum(image, rows, list(_cubic_taps(u, image.shape[-1], padding, width_u)), fill)
    if antialias:
        lengths = affine[:, :2].detach().norm(dim=0).nan_to_num(nan=0.0)
        counts = (lengths - 1e-3).ceil().clamp(1, 32).int().tolist()
    offsets = [[(2 * i + 1 - n) / (2 * n) for i in range(n)] for n in counts]
    total = 0
    for dy in offsets[1]:
        for dx in offsets[0]:
            u, v = _positions(affine, *size, dx, dy)
            total = total + _sample(image, u, v, mode, padding, fill)
    return total / (counts[0] * counts[1])


def _sample(image, u, v, mode, padding, fill):
    """Bilinear or nearest samples (C, ...) at coordinates of any shape."""
    height, width = image.shape[-2:]
    return _weighted_sum(image, list(_taps(v, height, mode, padding)), list(_taps(u, width, mode, padding)), fill)


def _weighted_sum(image, rows, columns, fill):
    """Of pixels, from lists of indices and weights along both axes; what is missing of the weights is fill."""
    value, covered = 0, 0
    for j, wy in rows:
        for i, wx in columns:
            weight = wy * wx
            pixel = image[:, j, i]
            # A pixel with weight 0 counts as 0, even when it is NaN.
            value = value + weight * torch.where((weight == 0) & ~pixel.isfinite(), 0.0, pixel)
            covered = covered + weight
    return value + fill * (1 - covered)


def _taps(u, size, mode, padding):
    """The two pixels around each coordinate and their weights, 0 outside of the image."""
    if padding == "reflect" and size > 1:
        period = 2.0 * (size - 1)
        u = u - torch.floor(u / period) * period
        u = torch.where(u > size - 1, period - u, u)
    closed = padding in ("border", "reflect")
    if closed:
        # Of a single pixel the slope is 0, also at 0 itself.
        u = u.clamp(0, size - 1) if size > 1 else u.clamp(0, 0).detach() + 0 * u.nan_to_num(0.0, 0.0, 0.0)
    u = torch.where(u.isnan(), -2.0, u)  # outside
    if mode == "nearest":
        u = torch.floor(u + 0.5)
    below = torch.floor(u).detach()
    if closed:  # nothing lies beyond the last pixel that a slope could lead to
        below = below.clamp(max=max(size - 2, 0))
    for index, weight in ((below, 1 - (u - below)), (below + 1, u - below)):
        inside = (index >= 0) & (index < size)
        yield index.clamp(0, size - 1).long(), torch.where(inside, weight, 0.0)


def _cubic_taps(u, size, padding, width):
    """The pixels under a cubic kernel around each coordinate and their weights; antialiased: ``width`` times wider."""
    a, antialias = (-0.75, False) if width is None else (-0.5, True)
    width = torch.ones((), dtype=u.dtype, device=u.device) if width is None else width.nan_to_num(nan=1.0)
    if padding == "border":
        u = u.clamp(-0.5, size - 0.5) if antialias else u.clamp(-3, size + 2)
    if padding == "reflect":
        u = u - torch.floor(u / max(2 * size - 2, 1)).detach() * max(2 * size - 2, 1)
    known = u.abs() < 1e8
    u = torch.where(known, u, 0.0)
    first = torch.floor(u - 2 * width).detach() + 1
    count = 4 if not antialias else int((4 * width.detach()).ceil())
    taps = []
    for k in range(count):
        index = first + k
        z = ((index - u) / width).abs()
        far = a * (((z - 5) * z + 8) * z - 4)
        weight = torch.where(z < 1, ((a + 2) * z - (a + 3)) * z * z + 1, torch.where(z < 2, far, 0.0))
        inside = known & (index >= 0) & (index < size)
        if padding == "border" and not antialias or padding == "reflect":
            inside = known
        taps.append((index, weight, inside))
    total = 1.0
    if antialias:  # outside of a border there is nothing that could weigh
        total = sum(torch.where(inside, w, 0.0) if padding == "border" else w for _, w, inside in taps)
    for index, weight, inside in taps:
        if padding == "reflect" and size > 1:
            index = index.remainder(2 * size - 2)
            index = torch.where(index > size - 1, 2 * size - 2 - index, index)
        yield index.clamp(0, size - 1).long(), torch.where(inside, weight / total, 0.0)
