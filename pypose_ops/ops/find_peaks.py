"""The local maxima of heatmaps: several people's joints at once."""

import math
from typing import Literal, overload

import torch

from ._arguments import check_missing, check_tensor, check_threshold
from ._autograd import call, is_plain, register_fake, vmap_by_batch
from ._peak_arguments import detached, kernel_size_of, max_offset_of, refine_number
from ._results import LocalPeaks, LocalPeaksWithPixels

_ops = torch.ops.pypose_ops

_Refine = Literal["quarter", "parabola", "dark", "dark_udp", "centroid"]


@overload
def find_peaks(
    heatmaps: torch.Tensor,
    *,
    threshold: float | torch.Tensor = 0.1,
    radius: int = 1,
    max_peaks: int = 32,
    refine: _Refine | None = None,
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    transform: torch.Tensor | None = None,
    missing: float = math.nan,
    return_pixels: Literal[False] = False,
) -> LocalPeaks: ...


@overload
def find_peaks(
    heatmaps: torch.Tensor,
    *,
    threshold: float | torch.Tensor = 0.1,
    radius: int = 1,
    max_peaks: int = 32,
    refine: _Refine | None = None,
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    transform: torch.Tensor | None = None,
    missing: float = math.nan,
    return_pixels: Literal[True],
) -> LocalPeaksWithPixels: ...


def find_peaks(
    heatmaps: torch.Tensor,
    *,
    threshold: float | torch.Tensor = 0.1,
    radius: int = 1,
    max_peaks: int = 32,
    refine: _Refine | None = None,
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    transform: torch.Tensor | None = None,
    missing: float = math.nan,
    return_pixels: bool = False,
) -> LocalPeaks | LocalPeaksWithPixels:
    """Finds the best local maxima of every map, sorted by score, with output shapes that do not depend on the data.

    A peak is a plateau above ``threshold`` with no higher pixel nearby. Equal pixels within ``radius`` of one another
    (in x and in y) belong to one plateau, usually a single pixel; a plateau is a peak if no pixel within ``radius`` of
    any of its pixels is higher. Each plateau gives one peak, at its first pixel in row-major order. NaN and infinity
    are lower than every other pixel.

    Peaks are sorted by falling score, equal ones in row-major order. If a map has more than ``max_peaks``, the first of
    that order are returned; ``counts`` says how many there were.

    Args:
        heatmaps: ``(B, K, H, W)``, float16, bfloat16, float32 or float64, any strides. ``H`` and ``W`` at least 1, at
            most 2^30 pixels per map.
        threshold: peaks are higher than this; a number, or ``(K,)``, one per joint, float32 or float64, on the device
            of the maps. It may be negative or infinite; a NaN number is refused, and a joint whose entry in a tensor
            is NaN has no peaks.
        radius: half the side of the window, 1 to 64; 1 compares with the 8 neighbours.
        max_peaks: ``M``, the places per map, 1 to 1024; may exceed the number of pixels.
        refine: as in :func:`decode_heatmaps`, for every peak; not ``"offset"``.
        kernel_size: as in :func:`decode_heatmaps`.
        sigma: as in :func:`decode_heatmaps`.
        max_offset: as in :func:`decode_heatmaps`; ``"auto"``: 1.
        transform: as in :func:`decode_heatmaps`.
        missing: the coordinates of empty places.
        return_pixels: also return the pixels of the peaks, before refinement.

    Returns:
        :class:`LocalPeaks` with ``coords (B, K, M, 2)``, ``scores (B, K, M)`` and ``counts (B, K)``;
        :class:`LocalPeaksWithPixels` with ``return_pixels``. Coordinates and scores are float32 (float64 for float64
        maps), not differentiable.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value, or an unknown name.

    :func:`pypose_ops.reference.find_peaks` is the definition in plain torch.

    Example:
        >>> two_people = torch.tensor([[[[12.0, 40.0]], [[30.0, 20.0]]]])
        >>> maps = gaussian_heatmaps(two_people, 2.0, (64, 48))
        >>> peaks = find_peaks(maps, max_peaks=3)
        >>> peaks.coords[0, 0].tolist(), peaks.counts.item()
        ([[30.0, 20.0], [12.0, 40.0], [nan, nan]], 2)
    """
    op = "find_peaks"
    thresholds, threshold = (
        (threshold, 0.0) if isinstance(threshold, torch.Tensor) else (None, check_threshold(op, threshold))
    )
    kernel_size = kernel_size_of(op, refine, kernel_size, sigma)
    check_tensor(op, "heatmaps", heatmaps)
    coords, scores, counts, pixels = call(
        _ops.find_peaks.default,
        (),
        detached(heatmaps),
        detached(thresholds),
        threshold,
        radius,
        max_peaks,
        refine_number(op, refine),
        1 if kernel_size is None else kernel_size,
        max_offset_of(op, max_offset, 1.0),
        detached(transform),
        check_missing(op, missing),
        return_pixels,
    )
    if return_pixels:
        return LocalPeaksWithPixels(coords, scores, counts, pixels)
    return LocalPeaks(coords, scores, counts)


@register_fake("pypose_ops::find_peaks")
def _(
    heatmaps,
    threshold,
    threshold_value,
    radius,
    max_peaks,
    refine,
    kernel_size,
    max_offset,
    transform,
    missing,
    pixels,
):
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
        heatmaps.new_empty((batch, joints, max_peaks, 2) if pixels else (0,), dtype=torch.int64),
    )


vmap_by_batch("find_peaks")


def list_peaks(
    heatmaps: torch.Tensor, threshold: float, window: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """All peaks of maps ``(B, K, H, W)`` as lists in one call, by sample, row, column and map; for integrations.

    None where it takes more: off the CPU, and where something is compiled or transformed.

    Args:
        heatmaps: see :func:`find_peaks`.
        threshold: a number.
        window: side of the window of ``refine="centroid"``, 0 for no refinement.

    Returns:
        Coordinates ``(n, 2)`` and scores ``(n,)``, as :func:`find_peaks` gives them; samples ``(n,)`` and maps of the
        sample ``(n,)``, int32.
    """
    heatmaps = detached(heatmaps)
    if not is_plain(heatmaps):
        return None
    return call(_ops._list_peaks.default, (), heatmaps, check_threshold("list_peaks", threshold), window)


vmap_by_batch("_list_peaks")


@register_fake("pypose_ops::_list_peaks")
def _(heatmaps, threshold, window):
    found = torch.library.get_ctx().new_dynamic_size()
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    return (
        heatmaps.new_empty((found, 2), dtype=dtype),
        heatmaps.new_empty((found,), dtype=dtype),
        heatmaps.new_empty((found,), dtype=torch.int32),
        heatmaps.new_empty((found,), dtype=torch.int32),
    )
