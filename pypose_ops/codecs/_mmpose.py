"""MMPose's formulas where they deviate from the definitions, batched and on any device."""

import functools
import math
from typing import Any, NamedTuple

import torch

from .._constants import constant

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
    """From ``mu - r`` to ``mu + r + 1`` with ``r = 3 sigma``, truncated to integers."""
    reach = 3 * sigma
    pixel = torch.trunc(at + 0.5)
    first, end = torch.trunc(pixel - reach), torch.trunc(pixel + reach + 1)
    return Window(first, end, first + (2 * reach + 1) // 2)


def exact_window(at: torch.Tensor, sigma: Any) -> Window:
    """The window that decides whether a blob on the whole map counts."""
    return Window(at - 3 * sigma, at + 3 * sigma + 1, at)


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
    return torch.where(finite & (inside | ~drawn), visible, 0.0), known


def draw(
    center: torch.Tensor,
    sigma: Any,
    size: tuple[int, int],
    known: torch.Tensor,
    dtype: torch.dtype,
    window: Window | None = None,
) -> torch.Tensor:
    """Gaussians within their windows, as outer products, combined over people by the maximum.

    ``center`` is ``(B, K, 2)`` or ``(B, P, K, 2)``, ``sigma`` a number or one per person, ``(B, P, 1, 1)``.
    """
    profiles = []
    for axis, length in ((0, size[1]), (1, size[0])):
        grid = torch.arange(length, device=center.device, dtype=center.dtype)
        profile = torch.exp((grid - center[..., axis, None]).square() * (-0.5 / sigma**2))
        drawn = known[..., None]
        if window is not None:
            drawn = drawn & (grid >= window.first[..., axis, None]) & (grid < window.end[..., axis, None])
        profiles.append(torch.where(drawn, profile, 0.0))
    x, y = profiles
    if center.dim() == 3:
        return outer(x, y, dtype)
    maps = center.new_zeros((center.shape[0], center.shape[2], *size), dtype=dtype)
    for of_x, of_y in zip(x.unbind(1), y.unbind(1), strict=True):
        maps = torch.maximum(maps, outer(of_x, of_y, dtype))
    return maps


def outer(x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``(B, K, W)`` and ``(B, K, H)`` to ``(B, K, H, W)``."""
    return (y[..., :, None] * x[..., None, :]).to(dtype)


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
    """OpenCV's blur of single pixels ``(B, K, 2)``, reflected at the borders and scaled to a maximum of 255."""
    half = kernel_size // 2
    taps = constant(taps_of(kernel_size), device=pixel.device, dtype=pixel.dtype)
    profiles = []
    for axis, length in ((0, size[1]), (1, size[0])):
        at = torch.where(known, pixel[..., axis], 0.0)[..., None]
        grid = torch.arange(length, device=pixel.device, dtype=pixel.dtype)
        profile = torch.zeros((*known.shape, length), device=pixel.device, dtype=pixel.dtype)
        # The pixel and its reflections, which coincide with it on the border itself.
        for image, there in ((at, None), (-at, at > 0), (2 * (length - 1) - at, at < length - 1)):
            distance = (grid - image).abs()
            tap = taps[distance.clamp(max=half).long()]
            inside = distance <= half if there is None else (distance <= half) & there
            profile = profile + torch.where(inside, tap, 0.0)
        top = profile.gather(-1, at.long())
        profiles.append(torch.where(known[..., None], profile / top, 0.0))
    return outer(profiles[0] * 255, profiles[1], dtype)
