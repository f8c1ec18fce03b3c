"""Peaks of heatmaps: coordinates and scores, decoded in one call on the device that the maps are on."""

import math
from collections.abc import Iterable
from typing import Any, Literal, overload

import torch

from ._arguments import check_missing, check_number, check_tensor, check_threshold
from ._autograd import call, register_fake, vmap_by_batch
from ._peak_arguments import (
    COMPATS,
    check_compat,
    detached,
    flip_permutation,
    kernel_size_of,
    max_offset_of,
    refine_number,
)
from ._peak_arguments import REFINES as REFINES
from ._peak_arguments import kernel_size_for as kernel_size_for
from ._results import Peaks, PeaksWithCovariance, PeaksWithPixels

_decode_heatmaps = torch.ops.pypose_ops.decode_heatmaps.default
_decode_offsets = torch.ops.pypose_ops._decode_offsets.default

_Refine = Literal["quarter", "parabola", "dark", "dark_udp", "centroid", "offset"]
_Compat = Literal["hrnet", "mmpose", "mmpose0", "hf"]


@overload
def decode_heatmaps(
    heatmaps: torch.Tensor,
    *,
    refine: _Refine | None = "dark",
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    compat: _Compat | None = None,
    radius: float | None = None,
    offsets: torch.Tensor | None = None,
    flipped: torch.Tensor | None = None,
    flipped_offsets: torch.Tensor | None = None,
    flip_pairs: Iterable[tuple[int, int]] | None = None,
    flip_shift: bool = False,
    transform: torch.Tensor | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    missing: float = math.nan,
    return_covariance: Literal[False] = False,
    return_pixels: Literal[False] = False,
) -> Peaks: ...


@overload
def decode_heatmaps(
    heatmaps: torch.Tensor,
    *,
    refine: _Refine | None = "dark",
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    compat: _Compat | None = None,
    radius: float | None = None,
    offsets: torch.Tensor | None = None,
    flipped: torch.Tensor | None = None,
    flipped_offsets: torch.Tensor | None = None,
    flip_pairs: Iterable[tuple[int, int]] | None = None,
    flip_shift: bool = False,
    transform: torch.Tensor | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    missing: float = math.nan,
    return_covariance: Literal[True],
    return_pixels: Literal[False] = False,
) -> PeaksWithCovariance: ...


@overload
def decode_heatmaps(
    heatmaps: torch.Tensor,
    *,
    refine: _Refine | None = "dark",
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    compat: _Compat | None = None,
    radius: float | None = None,
    offsets: torch.Tensor | None = None,
    flipped: torch.Tensor | None = None,
    flipped_offsets: torch.Tensor | None = None,
    flip_pairs: Iterable[tuple[int, int]] | None = None,
    flip_shift: bool = False,
    transform: torch.Tensor | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    missing: float = math.nan,
    return_covariance: Literal[False] = False,
    return_pixels: Literal[True],
) -> PeaksWithPixels: ...


def decode_heatmaps(
    heatmaps: torch.Tensor,
    *,
    refine: _Refine | None = "dark",
    kernel_size: int | Literal["auto"] | None = "auto",
    sigma: float | None = None,
    compat: _Compat | None = None,
    radius: float | None = None,
    offsets: torch.Tensor | None = None,
    flipped: torch.Tensor | None = None,
    flipped_offsets: torch.Tensor | None = None,
    flip_pairs: Iterable[tuple[int, int]] | None = None,
    flip_shift: bool = False,
    transform: torch.Tensor | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    missing: float = math.nan,
    return_covariance: bool = False,
    return_pixels: bool = False,
) -> Peaks | PeaksWithCovariance | PeaksWithPixels:
    """Finds the highest pixel of every map, refines it below the pixel grid and maps it into the image.

    The peak is the highest finite pixel above ``threshold``, the first in row-major order among equals; NaN and
    infinity never win. A map without such a pixel decodes to ``missing`` (also with ``transform``) with score 0.

    Args:
        heatmaps: ``(B, K, H, W)``, float16, bfloat16, float32 or float64, any strides. ``H`` and ``W`` at least 1, at
            most 2^30 pixels per map. With ``refine="offset"`` and no ``offsets``: ``(B, 3 K, H, W)``.
        refine: the step away from the highest pixel, never longer than ``max_offset``:

            - ``None``: no step.
            - ``"quarter"``: a quarter pixel towards the higher neighbour along each axis (Newell et al., "Stacked
              Hourglass Networks", ECCV 2016).
            - ``"parabola"``: along each axis, to the top of the parabola through three pixels.
            - ``"dark"``: the map is blurred and one Newton step is taken on its logarithm (Zhang et al.,
              "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020).
            - ``"dark_udp"``: the same with the narrower differences of Huang et al., "The Devil is in the Details",
              CVPR 2020.
            - ``"centroid"``: to the mean of a window, weighted by its positive finite values.
            - ``"offset"``: the vector that the network predicts at the pixel, times ``radius``.

            docs/decoders.md says which to choose, and what each does at the border.
        kernel_size: of the blur of ``"dark"`` and ``"dark_udp"``, odd, 1 to 63, with the weights of
            ``cv2.getGaussianKernel(kernel_size, 0)``; the side of the window of ``"centroid"``, 1 to 63, an even one
            between the pixels; for ``"offset"`` the class map is blurred by ``2 kernel_size + 1`` pixels with reflected
            borders, ``kernel_size`` at most 31. None: no blur. ``"auto"``: what fits ``sigma``, else 11; 7 for
            ``"centroid"``; none with ``offsets``.
        sigma: of the Gaussians that the targets were drawn with, in heatmap pixels, instead of ``kernel_size``: 3 for
            sigma 1, 7 for 1.5, 11 for 2, 17 for 3, and the nearest odd number in between.
        compat: bug-compatible with ``"mmpose"`` (1.x), ``"mmpose0"`` (0.x and UDP), ``"hrnet"`` (and DarkPose) or
            ``"hf"`` (transformers' ViTPose); docs/decoders.md lists the differences.
        radius: length of an offset of 1, in heatmap pixels, required for ``"offset"``. UDP's combined maps: the radius
            of the discs, in MMPose ``0.0546875 * max(H, W)``. DeepLabCut: ``locref_stdev / stride``. PoseNet, whose
            offsets are image pixels: ``1 / stride``.
        offsets: ``(B, K, 2, H, W)``, the x and y offsets where they are not channels of ``heatmaps``, with their dtype
            and device, any strides: views of other layouts cost nothing.
        flipped: the maps of the mirrored image, as predicted, with shape, dtype and device of ``heatmaps``. They are
            mirrored back and averaged with ``heatmaps`` on the fly. On CUDA at most 1024 joints.
        flipped_offsets: the offsets of the mirrored image, as predicted; required with ``offsets`` and ``flipped``.
        flip_pairs: the joints that change places in a mirrored image, ``[(left, right), ...]``; may be empty. Required
            with ``flipped``.
        flip_shift: move the mirrored maps one pixel to the right (column 0 stays), for networks trained with MSRA's
            ``align="index"`` convention, where mirrored maps are off by one. Only with ``flipped``.
        transform: ``(B, 2, 3)`` or ``(2, 3)``, float32 or float64, on the device of the maps: affine from heatmap to
            image pixels, applied to the coordinates.
        max_offset: the longest step, in heatmap pixels; longer ones are shortened to it. None: no limit. ``"auto"``: 1;
            ``radius`` for combined maps; None with ``offsets`` or ``compat``.
        threshold: peaks are higher than this. For maps that may have no positive pixel (logits, linear heads)
            pass ``-math.inf``: the highest finite pixel, whatever its sign.
        missing: the coordinates of maps without a peak.
        return_covariance: also return the covariance of the Gaussian that ``"dark"`` or ``"dark_udp"`` sees in the
            blurred map, through ``transform``.
        return_pixels: also return the highest pixel itself.

    Returns:
        :class:`Peaks` with ``coords (B, K, 2)``, ``(x, y)`` in heatmap pixels (pixel centres at integers) or in image
        pixels with ``transform``, and ``scores (B, K)``, the values at the highest pixels (for ``"offset"``, of the
        blurred map). :class:`PeaksWithCovariance` with ``return_covariance``, :class:`PeaksWithPixels` with
        ``return_pixels``. Contiguous, float32 (float64 for float64 maps), not differentiable.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value, an unknown name, or options that do not go
            together.

    :func:`pypose_ops.reference.decode_heatmaps` is the definition in plain torch.

    Example:
        >>> maps = gaussian_heatmaps(torch.tensor([[[12.3, 40.0], [20.0, 8.75]]]), 2.0, (64, 48))
        >>> coords, scores = decode_heatmaps(maps)
        >>> coords.round(decimals=2)
        tensor([[[12.3000, 40.0000],
                 [20.0000,  8.7500]]])
    """
    op = "decode_heatmaps"
    flips_need_maps = flipped is None and (flip_pairs is not None or flip_shift)
    _check_combination(refine, flips_need_maps, return_covariance, return_pixels, radius, offsets, flipped_offsets)
    channels = 3 if refine == "offset" and offsets is None else 1
    flip_index = None if flipped is None else flip_permutation(op, flip_pairs, heatmaps, channels)
    check_compat(op, refine, compat)
    if offsets is not None and kernel_size == "auto" and sigma is None:
        kernel_size = None
    kernel_size = kernel_size_of(op, refine, kernel_size, sigma)
    longest = None if compat is not None or offsets is not None else radius if refine == "offset" else 1.0
    max_offset = max_offset_of(op, max_offset, longest)
    threshold, missing = check_threshold(op, threshold), check_missing(op, missing)
    check_tensor(op, "heatmaps", heatmaps)
    for name, tensor in (
        ("flipped", flipped),
        ("transform", transform),
        ("offsets", offsets),
        ("flipped_offsets", flipped_offsets),
    ):
        if tensor is not None:
            check_tensor(op, name, tensor)
    heatmaps, flipped, transform = detached(heatmaps), detached(flipped), detached(transform)
    if refine == "offset":
        coords, scores, pixels = call(
            _decode_offsets,
            (),
            heatmaps,
            detached(offsets),
            kernel_size,
            check_number(op, "radius", radius),
            flipped,
            detached(flipped_offsets),
            flip_index,
            flip_shift,
            transform,
            max_offset,
            threshold,
            missing,
            return_pixels,
        )
        return PeaksWithPixels(coords, scores, pixels) if return_pixels else Peaks(coords, scores)
    coords, scores, covariance, pixels = call(
        _decode_heatmaps,
        (),
        heatmaps,
        refine_number(op, refine, ", offset"),
        COMPATS.index(compat),
        1 if kernel_size is None else kernel_size,
        flipped,
        flip_index,
        flip_shift,
        transform,
        max_offset,
        threshold,
        missing,
        return_covariance,
        return_pixels,
    )
    if return_covariance:
        return PeaksWithCovariance(coords, scores, covariance)
    return PeaksWithPixels(coords, scores, pixels) if return_pixels else Peaks(coords, scores)


def _check_combination(
    refine: str | None,
    flips_need_maps: bool,
    covariance: bool,
    pixels: bool,
    radius: Any,
    offsets: Any,
    flipped_offsets: Any,
) -> None:
    """Refuses options that do not go together."""
    op = "decode_heatmaps"
    if flips_need_maps:
        raise ValueError(f"{op}: flip_pairs and flip_shift need flipped, got None")
    if covariance and refine not in ("dark", "dark_udp"):
        raise ValueError(f"{op}: return_covariance is for refine dark and dark_udp, got {refine!r}")
    if covariance and pixels:
        raise ValueError(f"{op}: return_covariance and return_pixels do not go together")
    if refine == "offset":
        if radius is None:
            raise ValueError(f"{op}: radius is required with refine 'offset'")
        return
    for name, given in (("radius is", radius), ("offsets are", offsets), ("flipped_offsets are", flipped_offsets)):
        if given is not None:
            raise ValueError(f"{op}: {name} for refine 'offset', got {refine!r}")


@register_fake("pypose_ops::decode_heatmaps")
def _(
    heatmaps,
    refine,
    compat,
    kernel_size,
    flipped,
    flip_index,
    flip_shift,
    transform,
    max_offset,
    threshold,
    missing,
    covariance,
    pixels,
):
    batch, joints, dtype = _check_shapes(heatmaps, flipped, transform)
    return (
        heatmaps.new_empty((batch, joints, 2), dtype=dtype),
        heatmaps.new_empty((batch, joints), dtype=dtype),
        heatmaps.new_empty((batch, joints, 2, 2) if covariance else (0,), dtype=dtype),
        heatmaps.new_empty((batch, joints, 2) if pixels else (0,), dtype=torch.int64),
    )


@register_fake("pypose_ops::_decode_offsets")
def _(
    heatmaps,
    offsets,
    kernel_size,
    radius,
    flipped,
    flipped_offsets,
    flip_index,
    flip_shift,
    transform,
    max_offset,
    threshold,
    missing,
    pixels,
):
    batch, channels, dtype = _check_shapes(heatmaps, flipped, transform)
    for name, maps in (("offsets", offsets), ("flipped_offsets", flipped_offsets)):
        if maps is not None:
            torch._check(maps.dim() == 5, lambda name=name: f"decode_heatmaps: {name} must be (B, K, 2, H, W)")
            wanted = (batch, channels, 2, *heatmaps.shape[2:])
            for size, want in zip(maps.shape, wanted, strict=True):
                torch._check(size == want, lambda name=name: f"decode_heatmaps: {name} must be (B, K, 2, H, W)")
    joints = channels if offsets is not None else channels // 3
    return (
        heatmaps.new_empty((batch, joints, 2), dtype=dtype),
        heatmaps.new_empty((batch, joints), dtype=dtype),
        heatmaps.new_empty((batch, joints, 2) if pixels else (0,), dtype=torch.int64),
    )


def _check_shapes(heatmaps, flipped, transform):
    torch._check(heatmaps.dim() == 4, lambda: "decode_heatmaps: heatmaps must be (B, K, H, W)")
    batch, joints = heatmaps.shape[:2]
    if flipped is not None:
        torch._check(flipped.dim() == 4, lambda: "decode_heatmaps: flipped must be (B, K, H, W)")
        for size, wanted in zip(flipped.shape, heatmaps.shape, strict=True):
            torch._check(size == wanted, lambda: "decode_heatmaps: flipped must have the shape of heatmaps")
    if transform is not None:
        torch._check(transform.dim() in (2, 3), lambda: "decode_heatmaps: transform must be (2, 3) or (B, 2, 3)")
        if transform.dim() == 3:
            torch._check(transform.shape[0] == batch, lambda: "decode_heatmaps: transform must be (2, 3) or (B, 2, 3)")
    return batch, joints, torch.float64 if heatmaps.dtype == torch.float64 else torch.float32


vmap_by_batch("decode_heatmaps")
vmap_by_batch("_decode_offsets")
