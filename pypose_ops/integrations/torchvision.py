"""torchvision's Keypoint R-CNN decoding without a loop over people, and its KeyPoints in and out.

    from pypose_ops.integrations.torchvision import heatmaps_to_keypoints

All functions but :func:`to_tv_tensor` work without torchvision. Its coordinates have pixel centres at halves, those
of pypose_ops at integers.
"""

import math
from typing import Any

import torch

from ..ops.decode_roi_heatmaps import decode_roi_heatmaps
from ._peer import require

VERSIONS = ("0",)


def heatmaps_to_keypoints(maps: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest pixel of every map after bicubic resizing to its box, as torchvision's function of the same name.

    :func:`pypose_ops.decode_roi_heatmaps`, with torchvision's third column. Nothing waits for the device.

    Args:
        maps: ``(N, K, H, W)``.
        rois: ``(N, 4)``, two corners.

    Returns:
        ``(N, K, 3)``, x, y and 1, pixel centres at halves, and scores ``(N, K)``.
    """
    coords, scores = decode_roi_heatmaps(maps, rois)
    return torch.cat((coords, torch.ones_like(coords[..., :1])), -1), scores


def to_tv_tensor(keypoints: torch.Tensor, size: tuple[int, int], visible: torch.Tensor | None = None) -> Any:
    """Keypoints ``(..., 2)``, pixel centres at integers, as ``tv_tensors.KeyPoints`` of an image of that size.

    Shifted by half a pixel: torchvision resizes and rotates keypoints with pixel centres at halves. Its flips assume
    integers, so flipped joints come back a pixel off, to the left or above. Missing joints stay NaN, as do those that
    are not ``visible`` (``(...)``, below 0.5): ``KeyPoints`` have no place for it, and its transforms keep NaN.

    Raises:
        ValueError: ``visible`` of another shape.
    """
    points = require("torchvision.tv_tensors", "torchvision", VERSIONS, "KeyPoints").KeyPoints
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
