"""torchvision's Keypoint R-CNN decoding without a loop over people, and its KeyPoints in and out.

    from pypose_ops.integrations.torchvision import heatmaps_to_keypoints

All functions but :func:`to_tv_tensor` work without torchvision. Its coordinates have pixel centres at halves, those
of pypose_ops at integers.
"""

from typing import Any

import torch

from ._peer import require

VERSIONS = ("0",)


def _cubic_weights(size: torch.Tensor, longest: int, source: int) -> torch.Tensor:
    """``(N, longest, source)``: rows of bicubic interpolation (A = -0.75) from ``source`` to each ``size`` pixels."""
    out = torch.arange(longest, device=size.device, dtype=torch.float32)
    at = (out + 0.5) * (source / size[:, None]) - 0.5
    base = at.floor()
    t = at - base
    a = -0.75
    far, near = t + 1, 1 - t
    weights = torch.stack(
        (
            ((a * far - 5 * a) * far + 8 * a) * far - 4 * a,
            ((a + 2) * t - (a + 3)) * t * t + 1,
            ((a + 2) * near - (a + 3)) * near * near + 1,
            ((a * (near + 1) - 5 * a) * (near + 1) + 8 * a) * (near + 1) - 4 * a,
        ),
        -1,
    )
    taps = (base[..., None] + torch.arange(-1, 3, device=size.device)).clamp(0, source - 1).long()
    rows = torch.zeros((*at.shape, source), device=size.device)
    return rows.scatter_add_(-1, taps, weights)


def heatmaps_to_keypoints(
    maps: torch.Tensor, rois: torch.Tensor, *, chunk: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest pixel of every map after bicubic resizing to its box, as torchvision's function of the same name.

    Args:
        maps: ``(N, K, H, W)``, float32.
        rois: ``(N, 4)``, two corners.
        chunk: people resized at a time, to limit memory.

    Returns:
        ``(N, K, 3)``, x, y and 1, pixel centres at halves, and scores ``(N, K)``.
    """
    extent = (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    whole = extent.ceil()
    longest = [int(n) for n in whole.amax(0).tolist()] if len(rois) else [1, 1]
    coords, scores = [], []
    for some, size in zip(maps.split(chunk), whole.split(chunk), strict=True):
        across = _cubic_weights(size[:, 0], longest[0], maps.shape[-1])
        down = _cubic_weights(size[:, 1], longest[1], maps.shape[-2])
        large = down[:, None] @ (some.float() @ across.mT[:, None])  # (n, K, longest, longest)
        x = torch.arange(longest[0], device=maps.device)
        y = torch.arange(longest[1], device=maps.device)
        outside = (x >= size[:, :1])[:, None, None, :] | (y >= size[:, 1:])[:, None, :, None]
        top, index = large.masked_fill_(outside, float("-inf")).flatten(2).max(-1)
        coords.append(torch.stack((index % longest[0], index // longest[0]), -1))
        scores.append(top)
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
