"""torchvision's Keypoint R-CNN decoding without a loop over people, and its KeyPoints in and out.

    from pypose_ops.integrations.torchvision import heatmaps_to_keypoints

All functions but :func:`to_tv_tensor` work without torchvision. Its coordinates have pixel centres at halves, those
of pypose_ops at integers.
"""

from typing import Any, Literal

import torch

from ..ops.crop_patches import crop_patches
from ..ops.decode_heatmaps import decode_heatmaps
from ._peer import require

VERSIONS = ("0",)


def heatmaps_to_keypoints(
    maps: torch.Tensor, rois: torch.Tensor, *, chunk: int | Literal["auto"] = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest pixel of every map after bicubic resizing to its box, as torchvision's function of the same name.

    Args:
        maps: ``(N, K, H, W)``, float32.
        rois: ``(N, 4)``, two corners.
        chunk: people resized at a time, to limit memory; "auto": 1 on the CPU, else 8.

    Returns:
        ``(N, K, 3)``, x, y and 1, pixel centres at halves, and scores ``(N, K)``.
    """
    extent = (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    whole = extent.ceil()
    sizes = [(int(h), int(w)) for w, h in whole.tolist()]
    coords, scores = [], []
    chunk = (1 if maps.device.type == "cpu" else 8) if chunk == "auto" else chunk
    for begin in range(0, len(maps), chunk):
        some, size = maps[begin : begin + chunk].float(), whole[begin : begin + chunk]
        height, width = (max(sides) for sides in zip(*sizes[begin : begin + chunk], strict=True))
        # The grid of torch's bicubic interpolate, from each person's size to the map.
        step = torch.stack((maps.shape[-1] / size[:, 0], maps.shape[-2] / size[:, 1]), 1)
        transforms = torch.cat((torch.diag_embed(step), (0.5 * step - 0.5)[..., None]), 2)
        large = crop_patches(some, transforms, (height, width), mode="bicubic", padding="border")
        if len(set(sizes[begin : begin + chunk])) > 1:
            x, y = torch.arange(width, device=maps.device), torch.arange(height, device=maps.device)
            outside = (x >= size[:, :1])[:, None, None, :] | (y >= size[:, 1:])[:, None, :, None]
            large.masked_fill_(outside, float("-inf"))
        peaks = decode_heatmaps(large, refine=None, threshold=float("-inf"))
        coords.append(peaks.coords)
        scores.append(peaks.scores)
    if not coords:
        return maps.new_zeros((0, maps.shape[1], 3)), maps.new_zeros((0, maps.shape[1]))
    at = (torch.cat(coords) + 0.5) * (extent / whole)[:, None] + rois[:, None, :2]
    return torch.cat((at, torch.ones_like(at[..., :1])), -1), torch.cat(scores)


def to_tv_tensor(keypoints: torch.Tensor, size: tuple[int, int]) -> Any:
    """Keypoints ``(..., 2)``, pixel centres at integers, as ``tv_tensors.KeyPoints`` of an image of that size.

    Shifted by half a pixel: torchvision resizes and rotates keypoints with pixel centres at halves. Its flips assume
    integers, so flipped joints come back a pixel off, to the left or above. Missing joints stay NaN.
    """
    points = require("torchvision.tv_tensors", "torchvision", VERSIONS).KeyPoints
    return points(keypoints + 0.5, canvas_size=size)


def from_tv_tensor(keypoints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``tv_tensors.KeyPoints`` of an image as keypoints ``(..., 2)``, pixel centres at integers, and visibility.

    Joints that are finite and on the canvas are visible.
    """
    height, width = keypoints.canvas_size  # type: ignore[attr-defined]
    plain = keypoints.as_subclass(torch.Tensor)
    x, y = plain.unbind(-1)
    visible = plain.isfinite().all(-1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return plain - 0.5, visible
