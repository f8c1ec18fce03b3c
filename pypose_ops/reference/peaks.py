"""Peaks of heatmaps in plain torch."""

import math

import torch
import torch.nn.functional as F

from ..peaks import REFINES, Peaks, flip_permutation


@torch.no_grad()
def decode_heatmaps(
    heatmaps,
    *,
    refine="dark",
    kernel_size=11,
    flipped=None,
    flip_pairs=None,
    flip_shift=False,
    transform=None,
    max_offset=1.0,
):
    """Definition of :func:`pypose_ops.decode_heatmaps`: whole maps are merged, blurred and searched."""
    maps = heatmaps.to(torch.float64 if heatmaps.dtype == torch.float64 else torch.float32)
    if flipped is not None:
        back = flipped[:, flip_permutation("decode_heatmaps", flip_pairs, heatmaps)].to(maps.dtype).flip(-1)
        if flip_shift:
            back = torch.cat([back[..., :1], back[..., :-1]], -1)
        maps = 0.5 * (maps + back)

    height, width = maps.shape[-2:]
    candidates = torch.where(maps.isfinite() & (maps > 0), maps, 0.0).flatten(2)
    scores = candidates.amax(-1)
    pixels = torch.arange(height * width, device=maps.device)
    index = torch.where(candidates == scores[..., None], pixels, height * width).amin(-1)  # the first of equals
    peak = torch.stack([index % width, index // width], -1)

    coords = refined(maps, peak[:, :, None], refine, kernel_size, max_offset)[:, :, 0]
    if transform is not None:
        transform = transform.to(maps.dtype)
        linear, translation = transform[..., :2], transform[..., None, :, 2]
        coords = coords @ linear.mT + translation
    coords = torch.where(scores[..., None] > 0, coords, -1.0)
    return Peaks(coords, scores)


def refined(maps, peak, refine, kernel_size, max_offset):
    """``peak (B, K, M, 2)``, integers, after its step."""
    if refine == "none":
        step = torch.zeros_like(peak, dtype=maps.dtype)
    elif refine == "quarter":
        step = _quarter_step(maps, peak)
    elif refine == "dark":
        step = _dark_step(maps, peak, kernel_size)
    else:
        raise ValueError(f"refine must be one of {', '.join(REFINES)}, got {refine!r}")
    if max_offset is not None:
        length = step.norm(dim=-1, keepdim=True)
        step = torch.where(length > max_offset, step * (max_offset / length), step)
    return peak + step


def _around(maps, peak):
    """``f(dx, dy)``: the maps' values at that offset from the peaks, (B, K, M); 0 outside."""
    padded = F.pad(maps, (2, 2, 2, 2))
    width = padded.shape[-1]
    flat = padded.flatten(2)

    def at(dx, dy):
        index = (peak[..., 1] + dy + 2) * width + peak[..., 0] + dx + 2
        return flat.gather(-1, index)

    return at


def _quarter_step(maps, peak):
    height, width = maps.shape[-2:]
    x, y = peak.unbind(-1)
    at = _around(maps, peak)

    def towards(low, high):
        return 0.25 * ((high > low).to(maps.dtype) - (high < low).to(maps.dtype))

    step_x = torch.where((x > 1) & (x < width - 1) & (y > 0), towards(at(-1, 0), at(1, 0)), 0.0)
    step_y = torch.where((y > 1) & (y < height - 1) & (x > 0), towards(at(0, -1), at(0, 1)), 0.0)
    return torch.stack([step_x, step_y], -1)


def _dark_step(maps, peak, kernel_size):
    height, width = maps.shape[-2:]
    x, y = peak.unbind(-1)
    logs = _blur(maps, kernel_size).clamp(min=1e-10).log()
    # A pixel that is not finite spoils every step whose patch it lies in.
    reach = kernel_size // 2 + 2
    spoilt = (~maps.isfinite()).to(maps.dtype).flatten(0, 1)[:, None]
    spoilt = F.max_pool2d(spoilt, 2 * reach + 1, stride=1, padding=reach).view_as(maps)
    h, bad = _around(logs, peak), _around(spoilt, peak)

    dx = 0.5 * (h(1, 0) - h(-1, 0))
    dy = 0.5 * (h(0, 1) - h(0, -1))
    dxx = 0.25 * (h(2, 0) - 2 * h(0, 0) + h(-2, 0))
    dyy = 0.25 * (h(0, 2) - 2 * h(0, 0) + h(0, -2))
    dxy = 0.25 * (h(1, 1) - h(1, -1) - h(-1, 1) + h(-1, -1))
    determinant = dxx * dyy - dxy * dxy
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / determinant[..., None]

    inside = (x >= 2) & (x < width - 2) & (y >= 2) & (y < height - 2)
    is_maximum = (dxx < 0) & (determinant > 0)
    valid = inside & is_maximum & (bad(0, 0) == 0) & step.isfinite().all(-1)
    return torch.where(valid[..., None], step, 0.0)


def _blur(maps, kernel_size):
    """cv2.GaussianBlur(map, (kernel_size, kernel_size), 0) with zeros around the map."""
    taps = _gaussian_taps(kernel_size).to(maps)
    radius = kernel_size // 2
    planes = maps.nan_to_num(0.0, 0.0, 0.0).flatten(0, 1)[:, None]
    planes = F.conv2d(planes, taps.view(1, 1, -1, 1), padding=(radius, 0))
    planes = F.conv2d(planes, taps.view(1, 1, 1, -1), padding=(0, radius))
    return planes.view_as(maps)


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
    sigma = 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8
    radius = kernel_size // 2
    weights = [math.exp(-((i - radius) ** 2) / (2 * sigma**2)) for i in range(kernel_size)]
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)
