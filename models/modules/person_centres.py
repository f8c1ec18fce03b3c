"""Decodes MoveNet's maps: people's centres, the joints regressed from them, and the peaks near those.

The constants and the order of steps are those of the graph of MoveNet SinglePose, version 4 (Google, Apache-2.0).
"""

from typing import NamedTuple

import torch

from pypose_ops import Peaks, find_peaks

STRIDE = 4
NEARNESS = 1.8  # heatmap pixels, added to the distance that divides a probability


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
    """``(B, C, h, w)`` at ``(B, P, 2)`` pixels: ``(B, P, C)``."""
    flat = pixels[..., 1] * maps.shape[-1] + pixels[..., 0]
    return maps.flatten(2).transpose(1, 2).gather(1, flat[..., None].expand(-1, -1, maps.shape[1]))


def _regressed(regress: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The joints ``(B, P, K, 2)`` regressed from centres at ``(B, P, 2)`` pixels, in heatmap pixels."""
    return _at(regress, centres).unflatten(-1, (-1, 2)).flip(-1) + centres[:, :, None]


def near_person(maps: torch.Tensor, center: torch.Tensor, regress: torch.Tensor) -> torch.Tensor:
    """Weighs the maps of joints by their distance from the person in the middle.

    Args:
        maps (Tensor): ``(B, K, h, w)`` probabilities.
        center (Tensor): ``(B, 1, h, w)`` probabilities of people's centres.
        regress (Tensor): ``(B, 2 K, h, w)``: y and x of each joint from a centre at the pixel, in heatmap pixels.

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
    return maps / (away + NEARNESS)


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
