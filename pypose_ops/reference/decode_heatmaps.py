"""Peaks of heatmaps in plain torch."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F

from ..ops._results import Peaks, PeaksWithCovariance, PeaksWithPixels
from ._arguments import blur_size, longest_step, mirrored

_RIDGE = 2.0**-23  # numpy.finfo(numpy.float32).eps, which MMPose adds


@torch.no_grad()
def decode_heatmaps(
    heatmaps: torch.Tensor,
    *,
    refine: str | None = "dark",
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    compat: str | None = None,
    radius: float | None = None,
    offsets: torch.Tensor | None = None,
    flipped: torch.Tensor | None = None,
    flipped_offsets: torch.Tensor | None = None,
    flip_pairs: Iterable[tuple[int, int]] | None = None,
    flip_shift: bool = False,
    transform: torch.Tensor | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    missing: float = math.nan,
    return_covariance: bool = False,
    return_pixels: bool = False,
) -> Peaks | PeaksWithCovariance | PeaksWithPixels:
    """Definition of :func:`pypose_ops.decode_heatmaps`: whole maps are merged, blurred and searched."""
    if offsets is not None and kernel_size == "auto" and sigma is None:
        kernel_size = None
    size = blur_size(refine, kernel_size, sigma)
    longest = None if compat is not None or offsets is not None else radius if refine == "offset" else 1.0
    max_offset = longest_step(max_offset, longest)
    maps = heatmaps.to(torch.float64 if heatmaps.dtype == torch.float64 else torch.float32)
    permutation = None
    if flipped is not None:
        combined = refine == "offset" and offsets is None
        permutation = mirrored(flip_pairs, maps.shape[1] // (3 if combined else 1))
    if refine != "offset":
        maps = _merged(maps, flipped, permutation, flip_shift)
    else:
        if offsets is None:  # class, x and y of every joint
            maps, offsets = _split(maps)
            flipped, flipped_offsets = (None, None) if flipped is None else _split(flipped)
        else:
            offsets = offsets.to(maps.dtype)
        maps = _merged(maps, flipped, permutation, flip_shift)
        if flipped is not None:  # x points the other way
            sign = torch.tensor([-1, 1], dtype=maps.dtype, device=maps.device)[:, None, None]
            flipped_offsets = flipped_offsets.to(maps.dtype) * sign
        offsets = _merged(offsets, flipped_offsets, permutation, flip_shift)
        if kernel_size is not None:
            maps = _blur(maps, _gaussian_taps(2 * size + 1), "reflect101")

    peak, scores, found = _highest(maps, threshold)
    covariance = None
    if refine == "offset":
        step = radius * torch.stack([_around(offsets[:, :, d], peak)(0, 0) for d in range(2)], -1)
        coords = peak + _limited(step, max_offset)
    else:
        coords, covariance = refined(maps, peak, refine, size, max_offset, compat)
        covariance = torch.where(found[..., None, None], covariance[:, :, 0], torch.nan)
    coords, pixels = coords[:, :, 0], torch.where(found[..., None], peak[:, :, 0], -1)
    if transform is not None:
        transform = transform.to(maps.dtype)
        linear, translation = transform[..., :2], transform[..., None, :, 2]
        coords = coords @ linear.mT + translation
        if return_covariance:
            linear = linear if linear.dim() == 2 else linear[:, None]
            covariance = linear @ covariance @ linear.mT
    coords = torch.where(found[..., None], coords, missing)
    if return_covariance:
        return PeaksWithCovariance(coords, scores, covariance)
    return PeaksWithPixels(coords, scores, pixels) if return_pixels else Peaks(coords, scores)


def _split(maps):
    """Class maps ``(B, K, H, W)`` and offsets ``(B, K, 2, H, W)`` of combined ones ``(B, 3 K, H, W)``."""
    maps = maps.unflatten(1, (maps.shape[1] // 3, 3))
    return maps[:, :, 0], maps[:, :, 1:]


def _merged(maps, flipped, permutation, shift):
    """The mean of maps and the mirrored ones, turned back."""
    if flipped is None:
        return maps
    back = flipped.to(maps.dtype)[:, permutation].flip(-1)
    if shift:
        back = torch.cat([back[..., :1], back[..., :-1]], -1)
    return 0.5 * maps + 0.5 * back


def _highest(maps, threshold):
    """The peaks ``(B, K, 1, 2)``, integers, their values ``(B, K)``, else 0, and whether there is one."""
    height, width = maps.shape[-2:]
    candidates = torch.where(maps.isfinite() & (maps > threshold), maps, -torch.inf).flatten(2)
    scores = candidates.amax(-1)
    found = scores > -torch.inf
    pixels = torch.arange(height * width, device=maps.device)
    index = torch.where(candidates == scores[..., None], pixels, height * width).amin(-1)  # the first of equals
    peak = torch.stack([index % width, index // width], -1)[:, :, None]
    return peak, torch.where(found, scores, 0.0), found


def refined(
    maps: torch.Tensor,
    peak: torch.Tensor,
    refine: str | None,
    kernel_size: int,
    max_offset: float | None,
    compat: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``peak (B, K, M, 2)``, integers, after its step, and the covariances ``(B, K, M, 2, 2)``."""
    covariance = torch.full((*peak.shape, 2), torch.nan, dtype=maps.dtype, device=maps.device)
    if refine is None:
        step = torch.zeros_like(peak, dtype=maps.dtype)
    elif refine == "quarter":
        step = _quarter_step(maps, peak, compat)
    elif refine == "parabola":
        step = _parabola_step(maps, peak)
    elif refine in ("dark", "dark_udp"):
        step, covariance = _dark_step(maps, peak, kernel_size, refine, compat)
    elif refine == "centroid":
        step = _centroid_step(maps, peak, kernel_size)
    else:
        raise ValueError(f"decode_heatmaps: there is no refine {refine!r}")
    return peak + _limited(step, max_offset), covariance


def _limited(step, max_offset):
    """No longer than ``max_offset``, and none where it is not finite."""
    step = torch.where(step.isfinite().all(-1, keepdim=True), step, 0.0)
    if max_offset is None:
        return step
    length = step.norm(dim=-1, keepdim=True)
    return torch.where(length > max_offset, step * (max_offset / length), step)


def _around(maps, peak):
    """``f(dx, dy)``: the maps' values at that offset from the peaks, (B, K, M); outside those of the border."""
    height, width = maps.shape[-2:]
    flat = maps.flatten(2)

    def at(dx, dy):
        x = (peak[..., 0] + dx).clamp(0, width - 1)
        y = (peak[..., 1] + dy).clamp(0, height - 1)
        return flat.gather(-1, y * width + x)

    return at


def _quarter_step(maps, peak, compat):
    height, width = maps.shape[-2:]
    x, y = peak.unbind(-1)
    at = _around(maps, peak)

    def towards(low, high):
        return 0.25 * ((high > low).to(maps.dtype) - (high < low).to(maps.dtype))

    inside_x, inside_y = (x > 1) & (x < width - 1), (y > 1) & (y < height - 1)
    if compat in ("hrnet", "mmpose0"):
        allowed_x = allowed_y = inside_x & inside_y
    else:
        allowed_x, allowed_y = inside_x & (y > 0), inside_y & (x > 0)
    step_x = torch.where(allowed_x, towards(at(-1, 0), at(1, 0)), 0.0)
    step_y = torch.where(allowed_y, towards(at(0, -1), at(0, 1)), 0.0)
    return torch.stack([step_x, step_y], -1)


def _parabola_step(maps, peak):
    at = _around(maps, peak)
    steps = []
    for axis in range(2):
        before, after = (at(*(sign * (axis == d) for d in range(2))) for sign in (-1, 1))
        curvature = before - 2 * at(0, 0) + after
        inside = (peak[..., axis] > 0) & (peak[..., axis] < maps.shape[-1 - axis] - 1)
        steps.append(torch.where(inside & (curvature < 0), 0.5 * (before - after) / curvature, 0.0))
    return torch.stack(steps, -1)


def _centroid_step(maps, peak, size):
    height, width = maps.shape[-2:]
    at = _around(torch.where(maps.isfinite() & (maps > 0), maps, 0.0), peak)
    x, y = peak.unbind(-1)
    total = torch.zeros_like(at(0, 0))
    moment = torch.zeros_like(peak, dtype=maps.dtype)

    def pixel(dx, dy):
        inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
        return torch.where(inside, at(dx, dy), 0.0)

    # Points of an odd window are pixels, those of an even one lie between them and are read bilinearly.
    points = [i - (size - 1) / 2 for i in range(size)]
    around = (0, 1) if size % 2 == 0 else (0,)
    for point_y in points:
        for point_x in points:
            x0, y0 = math.floor(point_x), math.floor(point_y)
            weight = sum(pixel(x0 + i, y0 + j) for i in around for j in around) / len(around) ** 2
            total = total + weight
            moment = moment + weight[..., None] * torch.tensor([point_x, point_y], dtype=maps.dtype, device=maps.device)
    return moment / total[..., None]


def _dark_step(maps, peak, kernel_size, refine, compat):
    if compat is None:
        return _dark_step_inside(maps, peak, kernel_size, refine)
    height, width = maps.shape[-2:]
    x, y = peak.unbind(-1)
    taps = _gaussian_taps(kernel_size) if compat != "hf" else _gaussian(kernel_size, 0.8)
    legacy = {"mmpose0": "reflect101", "hf": "reflect"} if refine == "dark_udp" else {}
    blurred = _around(_blur(maps, taps, legacy.get(compat, "zeros")), peak)
    if refine == "dark_udp":
        diamond = [
            _inside(maps, peak, dx, dy) * blurred(dx, dy)
            for dx in range(-2, 3)
            for dy in range(-2, 3)
            if abs(dx) + abs(dy) <= 2
        ]
        scale = _around(maps, peak)(0, 0) / torch.stack(diamond).amax(0).clamp(min=0) if compat == "mmpose" else 1.0

        def h(dx, dy):
            return (blurred(dx, dy) * scale).clamp(1e-3, 50).log()
    else:

        def h(dx, dy):
            return blurred(dx, dy).clamp(min=1e-10).log()

    border = 2 if refine == "dark" else 0
    ridge = 0.0 if refine == "dark" else _RIDGE
    step, covariance, is_maximum = _newton_step(h, refine, ridge)
    inside = (x >= border) & (x < width - border) & (y >= border) & (y < height - border)
    valid = inside & ~_spoilt(maps, peak, kernel_size)
    covariance = torch.where((valid & is_maximum)[..., None, None], covariance, torch.nan)
    return torch.where(valid[..., None], step, 0.0), covariance


def _dark_step_inside(maps, peak, kernel_size, refine):
    """As near to the peak as the differences stay in the map, of a blur narrowed until it does."""
    height, width = maps.shape[-2:]
    reach, radius = 2 if refine == "dark" else 1, kernel_size // 2
    if min(height, width) <= 2 * reach:
        return torch.zeros_like(peak, dtype=maps.dtype), torch.full((*peak.shape, 2), torch.nan).to(maps)
    last = torch.tensor([width - 1, height - 1], device=maps.device)
    center = torch.minimum(peak.clamp(min=reach), last - reach)  # (B, K, M, 2)
    room = torch.minimum(center - reach, last - reach - center).clamp(max=radius)
    # The pixels around the centre, and what each weighs for the five blurred columns and rows.
    away = torch.arange(-radius - 2, radius + 3, device=maps.device)
    index = torch.minimum((center[..., None] + away).clamp(min=0), last[:, None])
    pixels = index[..., 1, :, None] * width + index[..., 0, None, :]
    patch = torch.where(maps.isfinite(), maps, 0.0).flatten(2)
    patch = patch.gather(-1, pixels.flatten(2)).view(pixels.shape)
    distance = away - torch.arange(-2, 3, device=maps.device)[:, None]
    taps = _gaussian_taps(kernel_size).to(maps)[(distance + radius).clamp(0, kernel_size - 1)]
    weights = torch.where(distance.abs() <= room[..., None, None], taps, 0.0)  # (B, K, M, 2, 5, n)
    blurred = weights[..., 1, :, :] @ patch @ weights[..., 0, :, :].mT
    logs = blurred.clamp(min=1e-10).log()

    step, covariance, is_maximum = _newton_step(lambda dx, dy: logs[..., 2 + dy, 2 + dx], refine)
    valid = is_maximum & ~_spoilt(maps, center, kernel_size)
    covariance = torch.where(valid[..., None, None], covariance, torch.nan)
    return torch.where(valid[..., None], center - peak + step, 0.0), covariance


def _newton_step(h, refine, ridge=0.0):
    """From the logarithms ``h(dx, dy)``: the step to the top, the covariance, and whether there is a top."""
    dx = 0.5 * (h(1, 0) - h(-1, 0))
    dy = 0.5 * (h(0, 1) - h(0, -1))
    if refine == "dark":
        dxx = 0.25 * (h(2, 0) - 2 * h(0, 0) + h(-2, 0))
        dyy = 0.25 * (h(0, 2) - 2 * h(0, 0) + h(0, -2))
        dxy = 0.25 * (h(1, 1) - h(1, -1) - h(-1, 1) + h(-1, -1))
    else:
        dxx = h(1, 0) - 2 * h(0, 0) + h(-1, 0)
        dyy = h(0, 1) - 2 * h(0, 0) + h(0, -1)
        dxy = 0.5 * (h(1, 1) - h(1, 0) - h(0, 1) + 2 * h(0, 0) - h(-1, 0) - h(0, -1) + h(-1, -1))
    dxx, dyy = dxx + ridge, dyy + ridge
    determinant = dxx * dyy - dxy * dxy
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / determinant[..., None]
    covariance = torch.stack([-dyy, dxy, dxy, -dxx], -1).unflatten(-1, (2, 2)) / determinant[..., None, None]
    # No maximum by rounding alone: determinant / trace lies between half of the lesser curvature and the whole.
    is_maximum = (dxx < 0) & (dyy < 0) & (determinant > -(dxx + dyy) * least_curvature(h(0, 0)))
    return step, covariance, is_maximum


def least_curvature(log: torch.Tensor) -> torch.Tensor:
    """The smallest curvature of logarithms near ``log`` that is not their rounding."""
    return 64 * torch.finfo(log.dtype).eps * (1 + log.abs())


def _spoilt(maps, center, kernel_size):
    """Whether a pixel that is not finite lies in the patch around a centre."""
    reach = kernel_size // 2 + 2
    spoilt = (~maps.isfinite()).to(maps.dtype).flatten(0, 1)[:, None]
    spoilt = F.max_pool2d(spoilt, 2 * reach + 1, stride=1, padding=reach).view_as(maps)
    return _around(spoilt, center)(0, 0) > 0


def _inside(maps, peak, dx, dy):
    x, y = peak[..., 0] + dx, peak[..., 1] + dy
    return ((x >= 0) & (x < maps.shape[-1]) & (y >= 0) & (y < maps.shape[-2])).to(maps.dtype)


def _blur(maps, taps, border):
    """cv2.GaussianBlur(map, (len(taps), len(taps)), 0) with that border around the map."""
    radius = len(taps) // 2
    taps = taps.to(maps)
    planes = torch.where(maps.isfinite(), maps, 0.0).flatten(0, 1)[:, None]
    if border == "zeros":
        planes = F.pad(planes, (radius,) * 4)
    else:
        for dim in (-2, -1):
            n = planes.shape[dim]
            index = [_outside(i, n, border) for i in range(-radius, n + radius)]
            planes = planes.index_select(dim, torch.tensor(index, device=maps.device))
    planes = F.conv2d(F.conv2d(planes, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return planes.view_as(maps)


def _outside(i, n, border):
    """Which pixel of a line of n stands at i: dcb|abcd|cba, or with the border twice, cba|abcd|dcb."""
    if n == 1:
        return 0
    period = 2 * n - 2 if border == "reflect101" else 2 * n
    i %= period
    return min(i, period - i if border == "reflect101" else period - 1 - i)


def _gaussian(size, sigma):
    weights = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)


def _gaussian_taps(kernel_size):
    """cv2.getGaussianKernel(kernel_size, 0): fixed tables up to 9, the formula from 11 on."""
    tables = {
        1: [1],
        3: [0.25, 0.5, 0.25],
        5: [0.0625, 0.25, 0.375, 0.25, 0.0625],
        7: [0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125],
        9: [n / 256 for n in (4, 13, 30, 51, 60, 51, 30, 13, 4)],
    }
    if kernel_size in tables:
        return torch.tensor(tables[kernel_size], dtype=torch.float64)
    return _gaussian(kernel_size, 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8)
