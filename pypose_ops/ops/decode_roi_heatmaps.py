"""Peaks of heatmaps of regions, as Keypoint R-CNN predicts them: in the map resized to its box."""

import torch

from ._arguments import check_tensor
from ._autograd import call, register_fake, vmap_by_batch
from ._peak_arguments import detached
from ._results import Peaks

_ops = torch.ops.pypose_ops


def decode_roi_heatmaps(heatmaps: torch.Tensor, boxes: torch.Tensor) -> Peaks:
    """Finds the highest pixel of every map after bicubic resizing to its box (He et al., "Mask R-CNN", ICCV 2017).

    A map is resized to as many pixels as its box is wide and high, rounded up and at least 1, with the values of
    torch's ``interpolate(mode="bicubic", align_corners=False)``. Its peak is the highest finite pixel, whatever its
    sign, the first in row-major order among equals; pixels that are equal up to rounding may be taken for one another.
    A pixel is finite if the 16 that it is interpolated from are. The resized maps are not made: only those parts are
    computed in which a bound leaves room for a higher pixel.

    Maps without a finite pixel, and those of boxes that are not finite or have a side above 32768, decode to NaN with
    score 0. Corners in the wrong order are a box of one pixel.

    Args:
        heatmaps: ``(B, K, H, W)``, float16, bfloat16, float32 or float64, any strides: ``K`` maps of every box. ``H``
            and ``W`` at least 1, at most 2^30 pixels per map.
        boxes: ``(B, 4)``, float32 or float64, ``(x1, y1, x2, y2)``, the outer edges of the maps' outermost pixels, in
            image pixels. Narrowed to float32 unless the maps are float64.

    Returns:
        :class:`Peaks` with ``coords (B, K, 2)``, ``(x, y)`` in the boxes' coordinates: with pixel centres at halves
        for boxes of torchvision, at integers if those of the boxes are. ``scores (B, K)`` are the resized maps' values
        there. Contiguous, float32 (float64 for float64 maps), not differentiable.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype or device.

    :func:`pypose_ops.reference.decode_roi_heatmaps` is the definition in plain torch.

    Example:
        >>> maps = gaussian_heatmaps(torch.tensor([[[14.25, 27.375]]]), 2.5, (56, 56))
        >>> decode_roi_heatmaps(maps, torch.tensor([[100.0, 50.0, 212.0, 274.0]])).coords
        tensor([[[129.5000, 161.5000]]])
    """
    op = "decode_roi_heatmaps"
    check_tensor(op, "heatmaps", heatmaps)
    check_tensor(op, "boxes", boxes)
    return Peaks(*call(_ops.decode_roi_heatmaps.default, (), detached(heatmaps), detached(boxes)))


@register_fake("pypose_ops::decode_roi_heatmaps")
def _(heatmaps, boxes):
    torch._check(heatmaps.dim() == 4, lambda: "decode_roi_heatmaps: heatmaps must be (B, K, H, W)")
    torch._check(boxes.dim() == 2, lambda: "decode_roi_heatmaps: boxes must be (B, 4)")
    for size, wanted in zip(boxes.shape, (heatmaps.shape[0], 4), strict=True):
        torch._check(size == wanted, lambda: "decode_roi_heatmaps: boxes must be (B, 4)")
    batch, joints = heatmaps.shape[:2]
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    return heatmaps.new_empty((batch, joints, 2), dtype=dtype), heatmaps.new_empty((batch, joints), dtype=dtype)


vmap_by_batch("decode_roi_heatmaps")
