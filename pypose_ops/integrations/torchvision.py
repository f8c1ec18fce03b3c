"""torchvision's Keypoint R-CNN decoding without a loop over people, and its KeyPoints in and out.

    from pypose_ops.integrations.torchvision import heatmaps_to_keypoints

All functions but :func:`to_tv_tensor` work without torchvision. Its coordinates have pixel centres at halves, those
of pypose_ops at integers.
"""

import math
from typing import Any, NamedTuple

import torch

from ..ops.crop_patches import crop_patches
from ..ops.decode_heatmaps import decode_heatmaps
from ._peer import require

VERSIONS = ("0",)


# Torch's bicubic interpolation, a = -0.75: the most that its two negative weights along an axis add up to.
NEGATIVE = 0.1875
SIDE = 9  # pixels of a region around a peak
TURNS = 4  # peaks of a map that are looked at before the whole map is resized
GROUPS = 8  # of windows that are about as large


def heatmaps_to_keypoints(maps: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest pixel of every map after bicubic resizing to its box, as torchvision's function of the same name.

    Only the parts of a resized map that can hold its maximum are computed: what the interpolation can make of the
    pixels of a map is bounded.

    Args:
        maps: ``(N, K, H, W)``, float32.
        rois: ``(N, 4)``, two corners.

    Returns:
        ``(N, K, 3)``, x, y and 1, pixel centres at halves, and scores ``(N, K)``.
    """
    people, joints, height, width = maps.shape
    if maps.numel() == 0:
        return maps.new_zeros((people, joints, 3)), maps.new_zeros((people, joints))
    extent = (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    sizes = extent.ceil().long()
    if torch.compiler.is_compiling():
        coords, scores = _highest_of_all(maps.detach().float(), sizes)
        return _in_image(coords, extent, rois), scores
    sizes = sizes.repeat_interleave(joints, 0)  # (N K, 2)
    flat = maps.detach().float().reshape(-1, 1, height, width)
    coords, scores, rest = _highest(flat, sizes)
    for person in rest.div(joints, rounding_mode="floor").unique().tolist():  # with maps that are no peaks: noise
        of_person = slice(person * joints, (person + 1) * joints)
        found = _highest_of_all(maps[person : person + 1].detach().float(), sizes[of_person][:1])
        coords[of_person], scores[of_person] = found[0][0], found[1][0]
    return _in_image(coords.view(people, joints, 2), extent, rois), scores.view(people, joints)


def _in_image(coords: torch.Tensor, extent: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    """Pixels ``(N, K, 2)`` of resized maps in the image, with torchvision's 1."""
    at = (coords + 0.5) * (extent / extent.ceil())[:, None] + rois[:, None, :2]
    return torch.cat((at, torch.ones_like(at[..., :1])), -1)


class _Windows(NamedTuple):
    """Parts of resized maps.

    Attributes:
        of_map: ``(n,)``, the number of the map.
        first: ``(n, 2)``, their first pixel, x and y.
        last: ``(n, 2)``, their last pixel.
    """

    of_map: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor


def _highest_of_all(maps: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest pixels of maps ``(N, K, H, W)``, all pixels of which are resized to ``sizes (N, 2)``.

    Coordinates ``(N, K, 2)`` and scores ``(N, K)``. The number of pixels depends on values; graphs can have that.
    """
    largest: list[Any] = [side.item() for side in sizes.amax(0).unbind()]  # not int(): symbols, when exported
    columns, rows = largest
    torch._check(columns > 0)
    torch._check(rows > 0)
    step = torch.stack([maps.shape[3] / sizes[:, 0], maps.shape[2] / sizes[:, 1]], 1)
    large = _resized(maps, step, torch.zeros_like(sizes), (rows, columns), None)
    x, y = torch.arange(columns, device=maps.device), torch.arange(rows, device=maps.device)
    beyond = (x >= sizes[:, :1])[:, None, :] | (y >= sizes[:, 1:])[:, :, None]
    peaks = decode_heatmaps(large.masked_fill(beyond[:, None], -math.inf), refine=None, threshold=-math.inf)
    return peaks.coords, peaks.scores


def _highest(flat: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The highest pixel of maps ``(M, 1, H, W)`` resized to ``sizes (M, 2)``, width and height; the first of equals.

    And the numbers of the maps with too many pixels that might be the highest, which have no result.
    """
    step = torch.tensor(flat.shape[:1:-1], device=flat.device) / sizes
    windows, rest = _windows(flat, step, sizes)
    order = (windows.last - windows.first).amax(1).argsort()
    windows = _Windows(*(part[order] for part in windows))
    extents, limits = windows.last - windows.first + 1, sizes[windows.of_map]
    groups = list(zip(*(part.chunk(GROUPS) for part in (*windows, extents, limits)), strict=True))
    sides = torch.stack([torch.cat((extent.amax(0), limit.amin(0))) for *_, extent, limit in groups]).tolist()
    places, scores = [], []
    for (index, first, _, _, limit), (columns, rows, *least) in zip(groups, sides, strict=True):
        start = torch.minimum(first, limit - limit.new_tensor([columns, rows])).clamp(min=0)
        values = _resized(flat, step[index], start, (rows, columns), index)
        if columns > least[0] or rows > least[1]:  # some windows end beyond their map
            x, y = torch.arange(columns, device=flat.device), torch.arange(rows, device=flat.device)
            beyond = (x >= (limit - start)[:, :1])[:, None, :] | (y >= (limit - start)[:, 1:])[:, :, None]
            values.masked_fill_(beyond[:, None], -math.inf)
        peaks = decode_heatmaps(values, refine=None, threshold=-math.inf)
        x, y = (peaks.coords[:, 0].double() + start).unbind(1)
        places.append(y * limit[:, 0] + x)
        scores.append(peaks.scores[:, 0])
    score, place = torch.cat(scores), torch.cat(places)
    best = score.new_full((len(flat),), -math.inf).scatter_reduce(0, windows.of_map, score, "amax")
    place = place.masked_fill(score < best[windows.of_map], math.inf)
    first = place.new_full((len(flat),), math.inf).scatter_reduce(0, windows.of_map, place, "amin")
    row = (first / sizes[:, 0]).floor()
    return torch.stack((first - row * sizes[:, 0], row), 1).float(), best, rest


def _resized(
    flat: torch.Tensor, step: torch.Tensor, start: torch.Tensor, size: tuple[int, int], index: torch.Tensor | None
) -> torch.Tensor:
    """Pixels of resized maps from ``start (M, 2)`` on, ``(M, 1, *size)``: the grid of torch's ``interpolate``."""
    origin = (start + 0.5) * step - 0.5
    transforms = torch.cat((torch.diag_embed(step), origin[..., None]), 2)
    return crop_patches(flat, transforms, size, image_index=index, mode="bicubic", padding="border")


def _windows(flat: torch.Tensor, step: torch.Tensor, sizes: torch.Tensor) -> tuple[_Windows, torch.Tensor]:
    """All pixels of resized maps that may be the highest: windows around one peak of a map after the other.

    And the numbers of the maps of which these would be most pixels. Of the 16 pixels that a resized one is made of, the
    inner four have positive weights: where these are below a bar, it is below another one.
    """
    height, width = flat.shape[2:]
    rows, columns = (torch.arange(min(SIDE, n), device=flat.device) for n in (height, width))
    corners = sizes.new_tensor([width - len(columns), height - len(rows)])  # the last ones of regions
    todo, rest, found = torch.arange(len(flat), device=flat.device), flat.nan_to_num(-math.inf, math.inf, -math.inf), []
    peaks = decode_heatmaps(flat, refine=None, threshold=-math.inf)
    peak = peaks.coords[:, 0].nan_to_num().long()
    bar = _bar(flat, peak, peaks.scores[:, 0], step, sizes)
    for _ in range(TURNS):
        corner = torch.minimum(peak - SIDE // 2, corners).clamp(min=0)
        pixels = ((corner[:, 1:] + rows) * width)[:, :, None] + (corner[:, :1] + columns)[:, None, :]
        region = rest.flatten(1).gather(1, pixels.flatten(1)).view(pixels.shape)
        rest.flatten(1).scatter_(1, pixels.flatten(1), -math.inf)
        bounds = []
        for axis in (0, 1):
            reached = (region.amax(1 + axis) >= bar[todo, None]).byte()
            begin, end = reached.argmax(1), reached.shape[1] - 1 - reached.flip(1).argmax(1)
            of_map, low = step[todo, axis], corner[:, axis]
            first = ((low + begin - 0.5) / of_map - 0.5).ceil().clamp(min=0).long()
            last = ((low + end + 1.5) / of_map - 0.5).floor().long()
            first, last = (torch.minimum(place, sizes[todo, axis] - 1) for place in (first, last))
            bounds.append((first, torch.maximum(first, last)))  # at least one pixel, also of maps made smaller
        found.append((todo, *(torch.stack(part, 1) for part in zip(*bounds, strict=True))))
        left = (rest.flatten(1).amax(1) >= bar[todo]).nonzero()[:, 0]
        if len(left) == 0 or len(left) > len(flat) // 2:
            todo = todo[left]
            break
        todo, rest = todo[left], rest[left]
        peak = decode_heatmaps(rest, refine=None, threshold=-math.inf).coords[:, 0].nan_to_num().long()
    return _Windows(*(torch.cat(part) for part in zip(*found, strict=True))), todo


def _bar(
    flat: torch.Tensor, peak: torch.Tensor, top: torch.Tensor, step: torch.Tensor, sizes: torch.Tensor
) -> torch.Tensor:
    """What one of the inner four pixels must reach for a resized one to be as high as that at the map's peak, ``(M,)``.

    With ``n`` for ``NEGATIVE``, a pixel is at most ``(1 + n)^2 inner + n^2 top - 2 n (1 + n) low``: of its inner pixels
    and of the highest and lowest ones of the map.
    """
    nearest = torch.minimum(((peak + 0.5) / step - 0.5).round().clamp(min=0).long(), sizes - 1)
    known = _resized(flat, step, nearest, (1, 1), None).flatten()
    low = flat.flatten(1).amin(1)
    bar = (known - NEGATIVE**2 * top + 2 * NEGATIVE * (1 + NEGATIVE) * low) / (1 + NEGATIVE) ** 2
    bar = bar - 1e-5 * torch.maximum(top.abs(), low.abs())  # rounding
    return bar.masked_fill(~bar.isfinite(), -math.inf)


def to_tv_tensor(keypoints: torch.Tensor, size: tuple[int, int], visible: torch.Tensor | None = None) -> Any:
    """Keypoints ``(..., 2)``, pixel centres at integers, as ``tv_tensors.KeyPoints`` of an image of that size.

    Shifted by half a pixel: torchvision resizes and rotates keypoints with pixel centres at halves. Its flips assume
    integers, so flipped joints come back a pixel off, to the left or above. Missing joints stay NaN, as do those that
    are not ``visible`` (``(...)``, below 0.5): ``KeyPoints`` have no place for it, and its transforms keep NaN.

    Raises:
        ValueError: ``visible`` of another shape.
    """
    points = require("torchvision.tv_tensors", "torchvision", VERSIONS).KeyPoints
    moved = keypoints + 0.5
    if visible is not None:
        if visible.shape != keypoints.shape[:-1]:
            raise ValueError(
                f"to_tv_tensor: visible must be {tuple(keypoints.shape[:-1])}, got shape {tuple(visible.shape)}"
            )
        moved = moved.masked_fill(~(visible >= 0.5)[..., None], math.nan)
    return points(moved, canvas_size=size)


def from_tv_tensor(keypoints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``tv_tensors.KeyPoints`` of an image as keypoints ``(..., 2)``, pixel centres at integers, and visibility.

    Joints that are finite and on the canvas are visible.
    """
    height, width = keypoints.canvas_size  # type: ignore[attr-defined]
    plain = keypoints.as_subclass(torch.Tensor)
    x, y = plain.unbind(-1)
    visible = plain.isfinite().all(-1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return plain - 0.5, visible
