"""Peaks of heatmaps: coordinates and scores, decoded in one call on the device that the maps are on."""

import functools
import operator
from typing import NamedTuple

import torch

from ._arguments import choice

_ops = torch.ops.pypose_ops

REFINES = ("none", "quarter", "dark")


class Peaks(NamedTuple):
    """One peak per map.

    Attributes:
        coords (Tensor): ``(B, K, 2)``, ``(x, y)``; -1 where a map has no peak.
        scores (Tensor): ``(B, K)``; 0 where a map has no peak.
    """

    coords: torch.Tensor
    scores: torch.Tensor


def decode_heatmaps(
    heatmaps,
    *,
    refine="dark",
    kernel_size=11,
    flipped=None,
    flip_pairs=None,
    flip_shift=False,
    transform=None,
    max_offset=1.0,
):
    """Finds the highest pixel of every map, refines it below the pixel grid and maps it into the image.

    The peak is the highest finite pixel, and the first in row-major order of several equal ones; NaN and infinity never
    win. A map without a positive finite pixel decodes to coordinates -1, also with ``transform``, and score 0.

    The refinements, each a step away from the peak that is never longer than ``max_offset``:

    - ``"none"``.
    - ``"quarter"``: a quarter pixel towards the higher neighbour along each axis (Newell et al., "Stacked Hourglass
      Networks", ECCV 2016), with the border rule of MMPose 1.x: in x for ``1 < x < W - 1`` and ``y > 0``, in y for
      ``1 < y < H - 1`` and ``x > 0``.
    - ``"dark"``: the map is blurred, and one Newton step is taken on its logarithm (Zhang et al., "Distribution-Aware
      Coordinate Representation for Human Pose Estimation", CVPR 2020). Peaks less than two pixels from the border
      are left where they are, as in MMPose. So are, which MMPose lacks, those where the Hessian is not negative
      definite, and those with a pixel that is not finite among the ``kernel_size + 4`` squared pixels around them.
      Only the 13 blurred pixels that the step needs are computed.

    Args:
        heatmaps (Tensor): ``(B, K, H, W)``, float16, bfloat16, float32 or float64, of any strides. ``H`` and ``W`` at
            least 1, at most 2^30 pixels per map.
        refine (str): ``"none"``, ``"quarter"`` or ``"dark"``.
        kernel_size (int): of the blur of ``"dark"``, odd, 1 to 63; its weights are those of
            ``cv2.getGaussianKernel(kernel_size, 0)``. 11 is for maps drawn with sigma 2, 17 for sigma 3.
        flipped (Tensor, optional): the maps of the mirrored image, as the net gave them, with shape, dtype and device
            of ``heatmaps``. They are mirrored back and averaged with ``heatmaps`` on the fly. On CUDA at most 1024
            joints.
        flip_pairs (sequence of pairs of int): the joints that change places in a mirrored image,
            ``[(left, right), ...]``; may be empty. Required with ``flipped``.
        flip_shift (bool): move the mirrored maps one pixel to the right (their column 0 stays), for nets trained
            with MSRA's ``align="index"`` convention, where mirrored maps are off by one. Only with ``flipped``.
        transform (Tensor, optional): ``(B, 2, 3)`` or ``(2, 3)``, float32 or float64, on the maps' device: affine,
            heatmap pixels to image pixels, applied to the coordinates.
        max_offset (float, optional): the longest refinement step, in heatmap pixels; longer ones are scaled back to it.
            None for no limit.

    Returns:
        Peaks: ``coords (B, K, 2)``, ``(x, y)`` in heatmap pixels with pixel centres at integers, or in image pixels with
        ``transform``; ``scores (B, K)``, the maps' values at the peaks. Both contiguous, float32 (float64 for float64
        maps), computed in that type. They are not differentiable.

    Raises:
        ValueError: ``flip_pairs`` is missing, or not pairs of different joints in range; a flip argument comes without
            ``flipped``.
        RuntimeError: another argument has the wrong shape, dtype, device or value; the message names it.

    :func:`pypose_ops.reference.decode_heatmaps` is the definition in plain torch.

    Example:
        >>> maps = gaussian_heatmaps(torch.tensor([[[12.3, 40.0], [20.0, 8.75]]]), 2.0, (64, 48))
        >>> coords, scores = decode_heatmaps(maps)
        >>> coords.round(decimals=2)
        tensor([[[12.3000, 40.0000],
                 [20.0000,  8.7500]]])
    """
    flip_index = None
    if flipped is not None:
        flip_index = flip_permutation("decode_heatmaps", flip_pairs, heatmaps)
    elif flip_pairs is not None or flip_shift:
        raise ValueError("decode_heatmaps: flip_pairs and flip_shift need flipped, got None")
    if torch.is_grad_enabled():
        heatmaps, flipped, transform = detached(heatmaps), detached(flipped), detached(transform)
    return Peaks(
        *_ops.decode_heatmaps.default(
            heatmaps,
            choice("decode_heatmaps", "refine", refine, REFINES),
            kernel_size,
            flipped,
            flip_index,
            flip_shift,
            transform,
            max_offset,
        )
    )


@torch.library.register_fake("pypose_ops::decode_heatmaps")
def _(heatmaps, refine, kernel_size, flipped, flip_index, flip_shift, transform, max_offset):
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
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    return heatmaps.new_empty((batch, joints, 2), dtype=dtype), heatmaps.new_empty((batch, joints), dtype=dtype)


def flip_permutation(op, flip_pairs, heatmaps):
    """``flip_pairs``, checked, as the list of the joints that take each joint's place in a mirrored image."""
    if flip_pairs is None:
        raise ValueError(f"{op}: flip_pairs is required when flipped is given; it may be empty")
    if heatmaps.dim() != 4:
        raise ValueError(f"{op}: heatmaps must be (B, K, H, W), got shape {tuple(heatmaps.shape)}")
    try:
        pairs = tuple(tuple(operator.index(joint) for joint in pair) for pair in flip_pairs)
    except TypeError:
        raise ValueError(f"{op}: flip_pairs must be pairs (left, right) of joint numbers, got {flip_pairs!r}") from None
    build = _permutation.__wrapped__ if torch.compiler.is_compiling() else _permutation
    return build(op, pairs, heatmaps.shape[1])


@functools.lru_cache(maxsize=64)
def _permutation(op, pairs, joints):
    permutation = list(range(joints))
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"{op}: flip_pairs must be pairs (left, right) of joint numbers, got {pair}")
        for joint in pair:
            if not 0 <= joint < joints:
                raise ValueError(f"{op}: flip_pairs must be joints from 0 to {joints - 1}, got {joint} in {pair}")
        left, right = pair
        if left == right or permutation[left] != left or permutation[right] != right:
            raise ValueError(f"{op}: flip_pairs must have each joint once, got one again in {pair}")
        permutation[left], permutation[right] = right, left
    return permutation


def detached(tensor):
    return tensor.detach() if isinstance(tensor, torch.Tensor) and tensor.requires_grad else tensor
