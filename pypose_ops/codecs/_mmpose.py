"""MMPose's formulas where they deviate from the definitions, batched and on any device."""

import functools
import math
from typing import Any, NamedTuple

import torch

from .._constants import computed, constant
from ._base import within

# The tables of cv2.getGaussianKernel(size, 0), times 256; from size 11 on OpenCV uses a formula.
_TABLES = {
    1: (256,),
    3: (64, 128, 64),
    5: (16, 64, 96, 64, 16),
    7: (8, 28, 56, 72, 56, 28, 8),
    9: (4, 13, 30, 51, 60, 51, 30, 13, 4),
}


class Window(NamedTuple):
    """The window of a blob in MMPose.

    Attributes:
        first: ``(..., 2)``, the first pixel.
        end: ``(..., 2)``, the pixel after the last.
        middle: ``(..., 2)``, the centre pixel of the blob before it is cropped to the map.
    """

    first: torch.Tensor
    end: torch.Tensor
    middle: torch.Tensor

    def meets(self, heatmap_size: tuple[int, int]) -> torch.Tensor:
        """Whether windows overlap the map, including those that end right before it."""
        width, height = heatmap_size
        return (self.first[..., 0] < width) & (self.first[..., 1] < height) & (self.end >= 0).all(-1)


def window_of(at: torch.Tensor, sigma: Any) -> Window:
    """The window around the nearest pixel, as MMPose rounds."""
    return window_around(nearest_pixel(at), sigma)


def nearest_pixel(at: torch.Tensor) -> torch.Tensor:
    return torch.trunc(at + 0.5)


def window_around(pixel: torch.Tensor, sigma: Any) -> Window:
    """From ``pixel - r`` to ``pixel + r + 1`` with ``r = 3 sigma``, truncated to integers."""
    reach = 3 * sigma
    first, end = torch.trunc(pixel - reach), torch.trunc(pixel + reach + 1)
    return Window(first, end, first + (2 * reach + 1) // 2)


def pixels_that_draw(sigma: float, length: int) -> tuple[int, int]:
    """The first and the last pixel whose window meets a map of this length, also outside of the map."""
    return math.floor(-3 * sigma - 2) + 1, math.ceil(length + 3 * sigma) - 1


def windowed_within(at: torch.Tensor, sigma: float, heatmap_size: tuple[int, int]) -> torch.Tensor:
    """:meth:`Window.meets` of the windows of one sigma."""
    (left, right), (top, bottom) = (pixels_that_draw(sigma, length) for length in heatmap_size)
    return within(nearest_pixel(at), (left, top), (right, bottom))


def weigh(at: torch.Tensor, visible: torch.Tensor | None, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and which joints draw.

    The weight is the visibility itself, also above 1, and below 0.5, where nothing is drawn. It is 0 for visible joints
    that are not ``inside`` and for non-finite ones.
    """
    finite = at.isfinite().all(-1)
    if visible is None:
        known = inside & finite
        return known.to(at.dtype), known
    visible = visible.to(at.dtype)
    drawn = visible >= 0.5
    known = drawn & inside & finite
    return torch.where(finite & (known == drawn), visible, 0.0), known


def draw(
    center: torch.Tensor, sigma: Any, size: tuple[int, int], known: torch.Tensor, dtype: torch.dtype, window: Window
) -> torch.Tensor:
    """Gaussians within their windows, as outer products, combined over people by the maximum.

    ``center`` is ``(B, K, 2)`` or ``(B, P, K, 2)``, ``sigma`` a number or one per person, ``(B, P, 1, 1)``.
    """
    profiles = []
    for axis, length in ((0, size[1]), (1, size[0])):
        grid = torch.arange(length, device=center.device, dtype=center.dtype)
        inside = (grid >= window.first[..., axis, None]) & (grid < window.end[..., axis, None]) & known[..., None]
        profiles.append(torch.where(inside, gaussian(grid - center[..., axis, None], sigma), 0.0))
    return over_people(*profiles, dtype)


def gaussian(distance: torch.Tensor, sigma: Any) -> torch.Tensor:
    """``exp(-d^2 / (2 sigma^2))``, not below exp(-80): subnormal results are many times slower."""
    return torch.exp((distance.square() * (-0.5 / sigma**2)).clamp(min=-80))


def draw_windowed(
    at: torch.Tensor, sigma: float, size: tuple[int, int], known: torch.Tensor, dtype: torch.dtype, exact: bool
) -> torch.Tensor:
    """:func:`draw` of the windows of one sigma, from tables of pixels; ``exact`` blobs keep the fraction of ``at``."""
    pixel = nearest_pixel(at)
    center = at if (3 * sigma).is_integer() else window_around(pixel, sigma).middle + at - pixel
    profiles = []
    for axis, length in ((0, size[1]), (1, size[0])):
        first, last = pixels_that_draw(sigma, length)
        table = computed(window_table, sigma, length, exact, at.dtype, device=at.device)
        row = torch.where(known, pixel[..., axis] - first, last + 1 - first)
        profile = rows_of(table, row)
        if exact:
            grid = torch.arange(length, device=at.device, dtype=at.dtype)
            middle = center[..., axis].masked_fill(~known, 0.0)  # 0 times NaN is NaN
            profile = profile * gaussian(grid - middle[..., None], sigma)
        profiles.append(profile)
    return over_people(*profiles, dtype)


def window_table(sigma: float, length: int, exact: bool, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """``(pixels_that_draw + 1, length)``: a pixel's blob, or 1 within its window; the last row is 0."""
    first, last = pixels_that_draw(sigma, length)
    grid = torch.arange(length, device=device, dtype=dtype)
    window = window_around(torch.arange(first, last + 1, device=device, dtype=dtype)[:, None], sigma)
    inside = (grid >= window.first) & (grid < window.end)
    values = inside.to(dtype) if exact else torch.where(inside, gaussian(grid - window.middle, sigma), 0.0)
    return torch.cat((values, values.new_zeros(1, length)))


def rows_of(table: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """``table[row]``, of integers in a tensor of coordinates."""
    return table.index_select(0, row.long().flatten()).unflatten(0, row.shape)


def over_people(x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Outer products of ``(B, K, W)`` and ``(B, K, H)``, or the maximum of those of ``(B, P, K, ...)`` over people."""
    if x.dim() == 3:
        return outer(x, y, dtype)
    maps = x.new_zeros((x.shape[0], x.shape[2], y.shape[-1], x.shape[-1]), dtype=dtype)
    for of_x, of_y in zip(x.unbind(1), y.unbind(1), strict=True):
        maps = torch.maximum(maps, outer(of_x, of_y, dtype))
    return maps


def outer(x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``(B, K, W)`` and ``(B, K, H)`` to ``(B, K, H, W)``."""
    return (y.unsqueeze(-1) * x.unsqueeze(-2)).to(dtype)


@functools.lru_cache(maxsize=32)
def taps_of(kernel_size: int) -> tuple[float, ...]:
    """The ``(kernel_size + 1) / 2`` weights of OpenCV's Gaussian blur, from the centre outwards."""
    half = kernel_size // 2
    if kernel_size in _TABLES:
        return tuple(tap / 256 for tap in _TABLES[kernel_size][half:])
    sigma = 0.3 * (half - 1) + 0.8
    taps = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(half + 1)]
    total = 2 * math.fsum(taps) - 1
    return tuple(tap / total for tap in taps)


def blur(maps: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """Blurs maps like OpenCV with zero padding and restores their maxima.

    Pixels at the same distance are added first, as in OpenCV, so that symmetric maps stay exactly symmetric.
    """
    half = kernel_size // 2
    taps = constant(taps_of(kernel_size), device=maps.device, dtype=maps.dtype).unbind()
    blurred = maps
    for dim in (-1, -2):
        length = blurred.shape[dim]
        padded = torch.nn.functional.pad(blurred, (half, half, 0, 0) if dim == -1 else (0, 0, half, half))
        total = padded.narrow(dim, half, length) * taps[0]
        for i in range(1, half + 1):
            pair = padded.narrow(dim, half - i, length) + padded.narrow(dim, half + i, length)
            total = total + pair * taps[i]
        blurred = total
    return blurred * (maps.amax((-2, -1), keepdim=True) / blurred.amax((-2, -1), keepdim=True))


def mirrored_blob(
    pixel: torch.Tensor, kernel_size: int, size: tuple[int, int], known: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """OpenCV's blur of single pixels ``(B, K, 2)`` or ``(B, P, K, 2)``, scaled to a maximum of 255."""
    profiles = []
    for axis, length, peak in ((0, size[1], 255), (1, size[0], 1)):
        table = computed(mirrored_table, kernel_size, length, peak, pixel.dtype, device=pixel.device)
        profiles.append(rows_of(table, torch.where(known, pixel[..., axis], length)))
    return over_people(*profiles, dtype)


def mirrored_table(
    kernel_size: int, length: int, peak: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """``(length + 1, length)``: the blur of each pixel, reflected at the borders, and a row of 0."""
    half = kernel_size // 2
    taps = torch.tensor(taps_of(kernel_size), device=device, dtype=dtype)
    grid = torch.arange(length, device=device, dtype=dtype)
    at = grid[:, None]
    profile = torch.zeros(length, length, device=device, dtype=dtype)
    # The pixel and its reflections, which coincide with it on the border itself.
    for image, there in ((at, at >= 0), (-at, at > 0), (2 * (length - 1) - at, at < length - 1)):
        distance = (grid - image).abs()
        profile = profile + torch.where((distance <= half) & there, taps[distance.clamp(max=half).long()], 0.0)
    profile = profile * (peak / profile.diagonal()[:, None])
    return torch.cat((profile, profile.new_zeros(1, length)))
