"""The local maxima of heatmaps: several people's joints at once."""

import torch

from ._arguments import check_number, check_tensor
from ._peak_arguments import detached, kernel_size_of, max_offset_of, refine_number
from ._results import LocalPeaks

_ops = torch.ops.pypose_ops


def find_peaks(
    heatmaps,
    *,
    threshold=0.1,
    radius=1,
    max_peaks=32,
    refine=None,
    kernel_size="auto",
    sigma=None,
    max_offset="auto",
    transform=None,
):
    """Finds the best local maxima of every map, sorted, with the shapes of the output known beforehand.

    A peak is a plateau above ``threshold`` with no higher pixel in reach. Equal pixels within ``radius`` of one another
    (in x and in y) belong to one plateau, most of which are single pixels; a plateau is a peak where no pixel within
    ``radius`` of any of its pixels is higher. Each plateau is one peak, at its first pixel in row-major order. NaN and
    infinity are lower than every other pixel. Of more than ``max_peaks`` peaks the highest are kept, of equal ones the
    first in row-major order; that is also the order of the output.

    Args:
        heatmaps (Tensor): ``(B, K, H, W)``, float16, bfloat16, float32 or float64, of any strides. ``H`` and ``W`` at
            least 1, at most 2^30 pixels per map.
        threshold (float or Tensor): peaks are higher than this; a number, or ``(K,)``, one for each joint, float32 or
            float64, on the maps' device. It may be negative; where it is NaN there are no peaks.
        radius (int): half the side of the window, 1 to 64; 1 compares with the 8 neighbours.
        max_peaks (int): ``M``, the places per map, 1 to 1024; may be more than there are pixels.
        refine (str): as in :func:`decode_heatmaps`, for every peak; not ``"offset"``.
        kernel_size (int, optional), sigma (float, optional), transform (Tensor, optional): as there.
        max_offset (float, optional): as there; default 1.

    Returns:
        LocalPeaks: ``coords (B, K, M, 2)``, ``scores (B, K, M)`` and ``counts (B, K)``. Coordinates and scores are
        float32 (float64 for float64 maps); nothing is differentiable. The same bits on every run.

    Raises:
        ValueError: unknown ``refine``; both ``kernel_size`` and ``sigma``.
        RuntimeError: another argument has the wrong shape, dtype, device or value; the message names it.

    :func:`pypose_ops.reference.find_peaks` is the definition in plain torch.

    Example:
        >>> two_people = torch.tensor([[[[12.0, 40.0]], [[30.0, 20.0]]]])
        >>> maps = gaussian_heatmaps(two_people, 2.0, (64, 48))
        >>> peaks = find_peaks(maps, max_peaks=3)
        >>> peaks.coords[0, 0].tolist(), peaks.counts.item()
        ([[30.0, 20.0], [12.0, 40.0], [-1.0, -1.0]], 2)
    """
    thresholds, threshold = (
        (threshold, 0.0)
        if isinstance(threshold, torch.Tensor)
        else (None, check_number("find_peaks", "threshold", threshold))
    )
    kernel_size = kernel_size_of("find_peaks", refine, kernel_size, sigma)
    check_tensor("find_peaks", "heatmaps", heatmaps)
    heatmaps, thresholds, transform = detached(heatmaps), detached(thresholds), detached(transform)
    return LocalPeaks(
        *_ops.find_peaks.default(
            heatmaps,
            thresholds,
            threshold,
            radius,
            max_peaks,
            refine_number("find_peaks", refine),
            kernel_size or 1,
            max_offset_of("find_peaks", max_offset, 1.0),
            transform,
        )
    )


@torch.library.register_fake("pypose_ops::find_peaks")
def _(heatmaps, threshold, threshold_value, radius, max_peaks, refine, kernel_size, max_offset, transform):
    torch._check(heatmaps.dim() == 4, lambda: "find_peaks: heatmaps must be (B, K, H, W)")
    batch, joints = heatmaps.shape[:2]
    if threshold is not None:
        torch._check(threshold.dim() == 1, lambda: "find_peaks: threshold must be a number or (K,)")
        torch._check(threshold.shape[0] == joints, lambda: "find_peaks: threshold must be a number or (K,)")
    if transform is not None:
        torch._check(transform.dim() in (2, 3), lambda: "find_peaks: transform must be (2, 3) or (B, 2, 3)")
        if transform.dim() == 3:
            torch._check(transform.shape[0] == batch, lambda: "find_peaks: transform must be (2, 3) or (B, 2, 3)")
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    return (
        heatmaps.new_empty((batch, joints, max_peaks, 2), dtype=dtype),
        heatmaps.new_empty((batch, joints, max_peaks), dtype=dtype),
        heatmaps.new_empty((batch, joints), dtype=torch.int64),
    )
