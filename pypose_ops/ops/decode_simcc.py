"""Coordinates from SimCC's vectors: one score per bin of x and one per bin of y."""

import math
from collections.abc import Sequence
from typing import Literal

import torch

from ._arguments import check_missing, check_number, check_tensor, check_threshold
from ._autograd import call, register_fake, vmap_by_batch
from ._peak_arguments import detached, max_offset_of, simcc_kernels
from ._results import Peaks

_ops = torch.ops.pypose_ops


def decode_simcc(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    split_ratio: float = 2.0,
    refine: Literal["dark"] | None = None,
    sigma: float | Sequence[float] = 6.0,
    kernel_size: int | Sequence[int] | Literal["auto"] | None = "auto",
    compat: Literal["mmpose"] | None = None,
    transform: torch.Tensor | None = None,
    max_offset: float | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    missing: float = math.nan,
) -> Peaks:
    """Finds the highest bin of every joint's x and y (Li et al., "SimCC", ECCV 2022).

    The highest bin is the highest finite one above ``threshold``, the first among equals. The score is the lower of the
    two bins'. If an axis has no such bin, the joint decodes to ``missing`` (also with ``transform``) with score 0.

    ``refine="dark"`` blurs each vector and takes one Newton step on its logarithm, from differences two bins wide
    (SimCC-DARK). Near the ends the differences are those around the nearest bin that has two on each side, and the blur
    narrows to what the vector holds. No step is taken where the logarithm does not curve down, beyond its rounding, or
    if one of the blurred bins is not finite; the step over both axes is never longer than ``max_offset``.

    Args:
        x: ``(B, K, W * split_ratio)``, the scores of the bins, float16, bfloat16, float32 or float64, any strides. Bin
            ``i`` stands for coordinate ``i / split_ratio``.
        y: ``(B, K, H * split_ratio)``, likewise, with dtype and device of ``x``.
        split_ratio: bins per pixel.
        refine: None or ``"dark"``.
        sigma: of the Gaussians that the labels were drawn with, in bins, one number or one for x and one for y: the
            blur has ``(20 sigma - 7) // 3`` bins, one less if that is even, as in MMPose.
        kernel_size: bins of the blur instead, odd, 1 to 127; None: no blur; ``"auto"``: from ``sigma``.
        compat: bug-compatible with ``"mmpose"``; docs/decoders.md lists the differences.
        transform: ``(B, 2, 3)`` or ``(2, 3)``, float32 or float64: affine, applied to the coordinates.
        max_offset: the longest step, in pixels; None: no limit; ``"auto"``: 1, None with ``compat``.
        threshold: bins must be higher than this; ``-math.inf`` for vectors that need not be positive (logits).
        missing: the coordinates of joints without a peak.

    Returns:
        :class:`Peaks` with ``coords (B, K, 2)``, in pixels, and ``scores (B, K)``; float32 (float64 for float64
        vectors), not differentiable.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value, or an unknown name.

    :func:`pypose_ops.reference.decode_simcc` is the definition in plain torch.

    Example:
        >>> bins = torch.arange(96.0)
        >>> x = torch.exp(-((bins - 24.6) ** 2) / 72)[None, None]
        >>> y = torch.exp(-((bins - 60.0) ** 2) / 72)[None, None]
        >>> decode_simcc(x, y, refine="dark").coords.round(decimals=2)
        tensor([[[12.3000, 30.0000]]])
    """
    op = "decode_simcc"
    if refine not in (None, "dark"):
        raise ValueError(f"{op}: refine must be None or dark, got {refine!r}")
    if compat not in (None, "mmpose"):
        raise ValueError(f"{op}: compat must be None or mmpose, got {compat!r}")
    kernel_x, kernel_y = simcc_kernels(kernel_size, sigma)
    check_tensor(op, "x", x)
    check_tensor(op, "y", y)
    return Peaks(
        *call(
            _ops.decode_simcc.default,
            (),
            detached(x),
            detached(y),
            check_number(op, "split_ratio", split_ratio),
            refine == "dark",
            compat is not None,
            1 if kernel_x is None else kernel_x,
            1 if kernel_y is None else kernel_y,
            max_offset_of(op, max_offset, 1.0 if compat is None else None),
            detached(transform),
            check_threshold(op, threshold),
            check_missing(op, missing),
        )
    )


@register_fake("pypose_ops::decode_simcc")
def _(x, y, split_ratio, dark, compat, kernel_x, kernel_y, max_offset, transform, threshold, missing):
    for rows in (x, y):
        torch._check(rows.dim() == 3, lambda: "decode_simcc: x and y must be (B, K, bins)")
    for a, b in zip(x.shape[:2], y.shape[:2], strict=True):
        torch._check(a == b, lambda: "decode_simcc: x and y must have the same B and K")
    if transform is not None:
        torch._check(transform.dim() in (2, 3), lambda: "decode_simcc: transform must be (2, 3) or (B, 2, 3)")
        if transform.dim() == 3:
            torch._check(
                transform.shape[0] == x.shape[0], lambda: "decode_simcc: transform must be (2, 3) or (B, 2, 3)"
            )
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty((*x.shape[:2], 2), dtype=dtype), x.new_empty(x.shape[:2], dtype=dtype)


vmap_by_batch("decode_simcc")
