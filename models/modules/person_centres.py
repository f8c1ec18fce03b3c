"""MoveNet's maps: people's centres, the joints regressed from them, and the peaks near those; decoded and trained.

The constants and the order of steps are those of the graph of MoveNet SinglePose, version 4 (Google, Apache-2.0). How
it was trained was not published: the mean distances of displacements are as in CenterNet ("Objects as Points", 2019).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from pypose_ops import Peaks, find_peaks

STRIDE = 4
NEARNESS = 1.8  # heatmap pixels, added to the distance that divides a probability, by default and of centres
REACH = 1  # heatmap pixels around a centre or joint at which displacements are trained: decoding may pick any of them


class PeopleFound(NamedTuple):
    """People in images.

    Attributes:
        joints (Tensor): ``(B, P, K, 2)`` in image pixels, regressed from the centres; coarse.
        scores (Tensor): ``(B, P)`` of the centres, highest first; 0 in empty places.
        counts (Tensor): ``(B,)`` people of each image.
    """

    joints: torch.Tensor
    scores: torch.Tensor
    counts: torch.Tensor


def _pixel_grid(maps: torch.Tensor) -> torch.Tensor:
    """``(2, h, w)``: x and y of every pixel."""
    height, width = maps.shape[-2:]
    x = torch.arange(width, device=maps.device, dtype=maps.dtype).expand(height, width)
    y = torch.arange(height, device=maps.device, dtype=maps.dtype)[:, None].expand(height, width)
    return torch.stack((x, y))


def _at(maps: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """``(B, C, h, w)`` at ``(B, P, 2)`` pixels: ``(B, P, C)``, at least float32, for bfloat16 rounds pixels to 0.25."""
    flat = pixels[..., 1] * maps.shape[-1] + pixels[..., 0]
    found = maps.flatten(2).transpose(1, 2).gather(1, flat[..., None].expand(-1, -1, maps.shape[1]))
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _regressed(regress: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The joints ``(B, P, K, 2)`` regressed from centres at ``(B, P, 2)`` pixels, in heatmap pixels."""
    return _at(regress, centres).unflatten(-1, (-1, 2)).flip(-1) + centres[:, :, None]


def near_person(
    maps: torch.Tensor, center: torch.Tensor, regress: torch.Tensor, nearness: float = NEARNESS
) -> torch.Tensor:
    """Weighs the maps of joints by their distance from the person in the middle.

    Args:
        maps (Tensor): ``(B, K, h, w)`` probabilities.
        center (Tensor): ``(B, 1, h, w)`` probabilities of people's centres.
        regress (Tensor): ``(B, 2 K, h, w)``: y and x of each joint from a centre at the pixel, in heatmap pixels.
        nearness (float): heatmap pixels, added to the distance from the regressed joint, by whose sum a
            probability is divided. The larger, the farther from there a joint may be.

    Returns:
        Tensor: ``(B, K, h, w)``.
    """
    height, width = maps.shape[-2:]
    grid = _pixel_grid(maps)
    middle = (grid - grid.new_tensor([width / 2, height / 2])[:, None, None]).square().sum(0).sqrt()
    best = (center[:, 0] / (middle + NEARNESS)).flatten(1).argmax(1)
    centres = torch.stack((best % width, best // width), -1)[:, None]
    joints = _regressed(regress, centres)[:, 0]
    away = (grid - joints[..., None, None]).square().sum(2).sqrt()
    return maps / (away + nearness)


def joint_pixels(maps: torch.Tensor, offset: torch.Tensor, pixels: torch.Tensor) -> Peaks:
    """Joints in image pixels.

    Args:
        maps (Tensor): ``(B, K, h, w)`` probabilities.
        offset (Tensor): ``(B, K, 2, h, w)``: x and y of the joint from the corner of its pixel, in heatmap pixels.
        pixels (Tensor): ``(B, K, 2)`` int64, the joints' heatmap pixels.
    """
    pixels = pixels.clamp(min=0)  # -1: a map without a peak
    batch, joints = maps.shape[:2]
    flat = pixels.flatten(0, 1)[:, None]
    scores = _at(maps.flatten(0, 1)[:, None], flat).view(batch, joints)
    within = _at(offset.flatten(0, 1), flat).view(batch, joints, 2)
    return Peaks((pixels + within) * STRIDE - 0.5, scores)


def people_at_centres(center: torch.Tensor, regress: torch.Tensor, threshold: float, most: int) -> PeopleFound:
    """People at the peaks of the map of centres; arguments as :func:`near_person`."""
    peaks = find_peaks(center, threshold=threshold, max_peaks=most, return_pixels=True)
    centres = peaks.pixels[:, 0].clamp(min=0)  # -1: an empty place
    joints = (_regressed(regress, centres) + 0.5) * STRIDE - 0.5
    return PeopleFound(joints, peaks.scores[:, 0], peaks.counts[:, 0].clamp(max=most))


def person_centers(keypoints: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the joints ``(..., K, 2)`` that are visible, by ``(..., K)`` bool: ``(..., 2)``, and if any is."""
    count = visible.sum(-1)
    total = torch.where(visible[..., None], keypoints, 0).sum(-2)
    return total / count.clamp(min=1)[..., None], count > 0


def regress_loss(
    regress: torch.Tensor, centers: torch.Tensor, keypoints: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """The mean distance in x and y, in heatmap pixels, of the joints regressed from people's centres.

    Args:
        regress (Tensor): ``(B, 2 K, h, w)``, as :func:`near_person`.
        centers (Tensor): ``(B, P, 2)`` in image pixels; arbitrary for people without visible joints.
        keypoints (Tensor): ``(B, P, K, 2)`` in image pixels; arbitrary for joints that are not visible.
        visible (Tensor): ``(B, P, K)`` bool.
    """
    keypoints = torch.where(visible[..., None], keypoints, 0.0)  # a masked NaN has a gradient
    pixels, inside = _pixels_around(centers, regress.shape[-2:])
    joints = _regressed(regress, pixels.flatten(1, 2)).unflatten(1, pixels.shape[1:3])  # (B, P, N, K, 2)
    wanted = (keypoints + 0.5) / STRIDE - 0.5
    return _mean_distance(joints, wanted[:, :, None], inside[..., None] & visible[:, :, None])


def offset_loss(offset: torch.Tensor, keypoints: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """The mean distance in x and y, in heatmap pixels, of joints from where the offsets of nearby pixels put them.

    Args:
        offset (Tensor): ``(B, K, 2, h, w)``, as :func:`joint_pixels`.
        keypoints (Tensor): ``(B, P, K, 2)`` in image pixels; arbitrary for joints that are not visible.
        visible (Tensor): ``(B, P, K)`` bool.
    """
    visible = visible.transpose(1, 2)
    keypoints = torch.where(visible[..., None], keypoints.transpose(1, 2), 0.0)
    pixels, inside = _pixels_around(keypoints, offset.shape[-2:])  # (B, K, P, N, 2)
    within = _at(offset.flatten(0, 1), pixels.flatten(2, 3).flatten(0, 1)).view(pixels.shape)
    wanted = (keypoints + 0.5) / STRIDE
    return _mean_distance(pixels + within, wanted[:, :, :, None], inside & visible[..., None])


def _pixels_around(points: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Heatmap pixels ``(..., N, 2)`` within ``REACH`` of points ``(..., 2)`` of the image, and which are in the map."""
    steps = torch.arange(-REACH, REACH + 1, device=points.device)
    window = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).flatten(0, 1)
    limit = torch.tensor([size[1], size[0]], device=points.device)
    nearest = ((points + 0.5) / STRIDE).clamp(-1e4, 1e4).floor().long()  # far outside: any such pixel
    pixels = nearest[..., None, :] + window
    inside = ((pixels >= 0) & (pixels < limit)).all(-1)
    return torch.minimum(pixels.clamp(min=0), limit - 1), inside


def _mean_distance(found: torch.Tensor, wanted: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The mean of ``|found - wanted|`` ``(..., 2)`` where ``counts``; 0 if nowhere."""
    away = torch.where(counts[..., None], (found - wanted).abs(), 0.0)
    return away.sum() / (2 * counts.sum()).clamp(min=1)
