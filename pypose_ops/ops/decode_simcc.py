"""Coordinates from SimCC's vectors: one score per bin of x and one per bin of y."""

import torch

from ._arguments import check_number, check_tensor
from ._peak_arguments import detached, max_offset_of, simcc_kernels
from ._results import Peaks

_ops = torch.ops.pypose_ops


def decode_simcc(
    x,
    y,
    *,
    split_ratio=2.0,
    refine=None,
    sigma=6.0,
    kernel_size="auto",
    compat=None,
    transform=None,
    max_offset="auto",
):
    """Finds the highest bin of every joint's x and y (Li et al., "SimCC", ECCV 2022).

    The highest is the highest finite bin, the first of several equal ones. The score is the lower of the two bins'. A
    joint with an axis without a positive finite bin decodes to coordinates -1, also with ``transform``, and score 0.

    ``refine="dark"`` blurs each vector and takes one Newton step on its logarithm, from differences two bins wide
    (SimCC-DARK). Near the ends the differences are those around the nearest bin that has two to each side, and the blur
    narrows to what the vector holds. There is no step where the logarithm does not curve down, beyond its rounding, or
    where a bin that is not finite is among those blurred; the step over both axes is never longer than ``max_offset``.
    Only the five blurred bins that the step needs are computed.

    Args:
        x, y (Tensor): ``(B, K, W * split_ratio)`` and ``(B, K, H * split_ratio)``, the scores of the bins, float16,
            bfloat16, float32 or float64, of any strides. Bin ``i`` stands for coordinate ``i / split_ratio``.
        split_ratio (float): bins per pixel.
        refine (str): ``"none"`` or ``"dark"``.
        sigma (float or (float, float)): that the labels were drawn with, in bins, for x and y: the blur has
            ``(20 sigma - 7) // 3`` bins, one less where that is even, as in MMPose.
        kernel_size (int or (int, int), optional): the blur's bins instead, odd, 1 to 127.
        compat (str, optional): ``"mmpose"``: the step has no limit (unless ``max_offset`` says so); the blur has
            zeros around the vector; the blurred vector is scaled back to the height of the peak and clamped to
            [0.001, 50]; at the ends the outermost logarithms are repeated; 1e-9 is added to the second difference.
            (MMPose scales by the whole vector's maximum, here it is that of the five bins.)
        transform (Tensor, optional): ``(B, 2, 3)`` or ``(2, 3)``, float32 or float64: affine, of the coordinates.
        max_offset (float, optional): the longest step, in pixels; None for no limit. Default: 1, none with ``compat``.

    Returns:
        Peaks: ``coords (B, K, 2)``, in pixels, and ``scores (B, K)``; float32 (float64 for float64 vectors). They are
        not differentiable.

    Raises:
        ValueError: an unknown name, a sigma that is not positive.
        RuntimeError: another argument has the wrong shape, dtype, device or value; the message names it.

    :func:`pypose_ops.reference.decode_simcc` is the definition in plain torch.

    Example:
        >>> bins = torch.arange(96.0)
        >>> x = torch.exp(-((bins - 24.6) ** 2) / 72)[None, None]
        >>> y = torch.exp(-((bins - 60.0) ** 2) / 72)[None, None]
        >>> decode_simcc(x, y, refine="dark").coords.round(decimals=2)
        tensor([[[12.3000, 30.0000]]])
    """
    if refine not in (None, "dark"):
        raise ValueError(f"decode_simcc: refine must be None or dark, got {refine!r}")
    if compat not in (None, "mmpose"):
        raise ValueError(f"decode_simcc: compat must be None or mmpose, got {compat!r}")
    kernel_x, kernel_y = (size or 1 for size in simcc_kernels(kernel_size, sigma))
    max_offset = max_offset_of("decode_simcc", max_offset, 1.0 if compat is None else None)
    check_tensor("decode_simcc", "x", x)
    check_tensor("decode_simcc", "y", y)
    x, y, transform = detached(x), detached(y), detached(transform)
    return Peaks(
        *_ops.decode_simcc.default(
            x,
            y,
            check_number("decode_simcc", "split_ratio", split_ratio),
            refine == "dark",
            compat is not None,
            kernel_x,
            kernel_y,
            max_offset,
            transform,
        )
    )


@torch.library.register_fake("pypose_ops::decode_simcc")
def _(x, y, split_ratio, dark, compat, kernel_x, kernel_y, max_offset, transform):
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
