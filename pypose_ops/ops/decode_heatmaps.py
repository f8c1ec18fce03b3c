"""Peaks of heatmaps: coordinates and scores, decoded in one call on the device that the maps are on."""

import torch

from ._arguments import check_number, check_tensor
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
from ._results import Peaks, PeaksWithCovariance

_decode_heatmaps = torch.ops.pypose_ops.decode_heatmaps.default
_decode_offsets = torch.ops.pypose_ops._decode_offsets.default


def decode_heatmaps(
    heatmaps,
    *,
    refine="dark",
    kernel_size="auto",
    sigma=None,
    compat=None,
    radius=None,
    flipped=None,
    flip_pairs=None,
    flip_shift=False,
    transform=None,
    max_offset="auto",
    return_covariance=False,
):
    """Finds the highest pixel of every map, refines it below the pixel grid and maps it into the image.

    The peak is the highest finite pixel, and the first in row-major order of several equal ones; NaN and infinity never
    win. A map without a positive finite pixel decodes to coordinates -1, also with ``transform``, and score 0.

    The refinements, each a step away from the peak that is never longer than ``max_offset``:

    - ``"none"``.
    - ``"quarter"``: a quarter pixel towards the higher neighbour along each axis (Newell et al., "Stacked Hourglass
      Networks", ECCV 2016), with the border rule of MMPose 1.x: in x for ``1 < x < W - 1`` and ``y > 0``, in y for
      ``1 < y < H - 1`` and ``x > 0``.
    - ``"parabola"``: along each axis to the top of the parabola through the peak and its two neighbours; none at the
      border.
    - ``"dark"``: the map is blurred, and one Newton step is taken on its logarithm (Zhang et al., "Distribution-Aware
      Coordinate Representation for Human Pose Estimation", CVPR 2020). Less than two pixels from the border the
      differences are those around the nearest pixel that has two to each side, and where the blur would leave the map
      it narrows along that axis to what is there: Gaussians are found exactly at the border too. (MMPose blurs with
      zeros around the map, and leaves peaks less than two pixels from the border where they are: ``compat``.) Peaks are
      left where they are, which MMPose lacks, where the Hessian is not negative definite or only so by rounding (its
      lesser curvature below some 64 epsilons of the logarithm: Gaussians wider than 350 pixels in float32), and with a
      pixel that is not finite among the ``kernel_size + 4`` squared pixels around them. Only the 13 blurred pixels that
      the step needs are computed.
    - ``"dark_udp"``: the same with the narrower differences of Huang et al., "The Devil is in the Details", CVPR 2020,
      of one pixel to each side.
    - ``"centroid"``: to the mean of the ``kernel_size`` squared pixels around the peak that are in the map, weighted by
      their values where these are positive and finite.
    - ``"offset"``: for UDP's "combined" maps, ``(B, 3 K, H, W)`` with a class map, x and y offsets per joint. The peak
      is that of the class map after a blur of ``2 kernel_size + 1`` pixels with reflected borders (pixels that are not
      finite count as 0), the score its blurred value, the step the pixel's own offset times ``radius``.

    ``compat`` reproduces a peer's numbers, its faults included: steps are not limited (unless ``max_offset`` says so),
    and those of ``"dark"`` and ``"dark_udp"`` are taken also where the Hessian is not negative definite. A map without
    a peak still decodes to -1 with score 0. In full:

    - ``"mmpose"`` (1.x). ``"quarter"`` and ``"offset"``: only the above. ``"dark"``: the blur has zeros around the map,
      and peaks less than two pixels from the border stay. ``"dark_udp"``: zeros around the map too; the blurred map is
      scaled back to the height of the peak and clamped to [0.001, 50], at the border the logarithm's border pixels are
      repeated, 1.2e-7 is added to the Hessian's diagonal. (MMPose scales by the whole map's maximum, here it is that of
      the 13 pixels, the same unless the blur moves the maximum away.)
    - ``"mmpose0"`` (0.x, and UDP's own code). ``"quarter"``: HRNet's border rule. ``"dark"``: as ``"mmpose"``.
      ``"dark_udp"``: as ``"mmpose"``, without the scaling, the blur with reflected borders (OpenCV's reflect-101).
    - ``"hrnet"`` (and DarkPose). ``"quarter"``: both axes only for ``1 < x < W - 1`` and ``1 < y < H - 1``. ``"dark"``:
      as ``"mmpose"``.
    - ``"hf"`` (transformers' ViTPose). ``"dark_udp"``: as ``"mmpose0"``, but the blur has sigma 0.8 whatever
      ``kernel_size``, and its borders repeat the edge (SciPy's "reflect").

    Args:
        heatmaps (Tensor): ``(B, K, H, W)``, float16, bfloat16, float32 or float64, of any strides. ``H`` and ``W`` at
            least 1, at most 2^30 pixels per map. With ``"offset"`` ``(B, 3 K, H, W)``.
        refine (str): one of the above.
        kernel_size (int, optional): of the blur of ``"dark"`` and ``"dark_udp"``, odd, 1 to 63; its weights are those
            of ``cv2.getGaussianKernel(kernel_size, 0)``. Also the window of ``"centroid"``, and of ``"offset"``, there
            at most 31. Default: that of ``sigma``, else 11, for ``"centroid"`` 7.
        sigma (float, optional): that the targets were drawn with, in heatmap pixels, instead of ``kernel_size``: 3 for
            sigma 1, 7 for 1.5, 11 for 2, 17 for 3, the nearest odd number on the line between them.
        compat (str, optional): a peer to agree with, see above.
        radius (float, optional): of the discs of ``"offset"``, in heatmap pixels: what an offset of 1 means. Required
            there; MMPose's is ``0.0546875 * max(H, W)``.
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
            None for no limit. Default: 1, for ``"offset"`` ``radius``, none with ``compat``.
        return_covariance (bool): also return the covariance -H^-1 of the Gaussian that ``"dark"`` or ``"dark_udp"``
            sees in the blurred map, through ``transform``.

    Returns:
        Peaks: ``coords (B, K, 2)``, ``(x, y)`` in heatmap pixels with pixel centres at integers, or in image pixels
        with ``transform``; ``scores (B, K)``, the maps' values at the peaks. Both contiguous, float32 (float64 for
        float64 maps), computed in that type. They are not differentiable. :class:`PeaksWithCovariance` with
        ``return_covariance``.

    Raises:
        ValueError: ``flip_pairs`` is missing, or not pairs of different joints in range; a flip argument comes without
            ``flipped``; an unknown name; options that do not go together.
        RuntimeError: another argument has the wrong shape, dtype, device or value; the message names it.

    :func:`pypose_ops.reference.decode_heatmaps` is the definition in plain torch.

    Example:
        >>> maps = gaussian_heatmaps(torch.tensor([[[12.3, 40.0], [20.0, 8.75]]]), 2.0, (64, 48))
        >>> coords, scores = decode_heatmaps(maps)
        >>> coords.round(decimals=2)
        tensor([[[12.3000, 40.0000],
                 [20.0000,  8.7500]]])
    """
    op = "decode_heatmaps"
    channels = 3 if refine == "offset" else 1
    flip_index = None
    if flipped is not None:
        flip_index = flip_permutation(op, flip_pairs, heatmaps, channels)
    elif flip_pairs is not None or flip_shift:
        raise ValueError(f"{op}: flip_pairs and flip_shift need flipped, got None")
    check_compat(op, refine, compat)
    kernel_size = kernel_size_of(op, refine, kernel_size, sigma)
    max_offset = max_offset_of(op, max_offset, None if compat is not None else radius if refine == "offset" else 1.0)
    check_tensor(op, "heatmaps", heatmaps)
    for name, tensor in (("flipped", flipped), ("transform", transform)):
        if tensor is not None:
            check_tensor(op, name, tensor)
    heatmaps, flipped, transform = detached(heatmaps), detached(flipped), detached(transform)
    if return_covariance and refine not in ("dark", "dark_udp"):
        raise ValueError(f"{op}: return_covariance is for refine dark and dark_udp, got {refine!r}")
    if refine == "offset":
        if radius is None:
            raise ValueError(f"{op}: radius is required with refine 'offset'")
        radius = check_number(op, "radius", radius)
        try:
            return Peaks(
                *_decode_offsets(heatmaps, kernel_size, radius, flipped, flip_index, flip_shift, transform, max_offset)
            )
        except RuntimeError as error:  # torch refuses an argument of a wrong type by the operator's own name
            if "_decode_offsets" not in str(error):
                raise
            raise type(error)(str(error).replace("_decode_offsets", op)) from None
    if radius is not None:
        raise ValueError(f"{op}: radius is for refine 'offset', got {refine!r}")
    coords, scores, covariance = _decode_heatmaps(
        heatmaps,
        refine_number(op, refine, ", offset"),
        COMPATS.index(compat),
        kernel_size or 1,
        flipped,
        flip_index,
        flip_shift,
        transform,
        max_offset,
        return_covariance,
    )
    return PeaksWithCovariance(coords, scores, covariance) if return_covariance else Peaks(coords, scores)


@torch.library.register_fake("pypose_ops::decode_heatmaps")
def _(heatmaps, refine, compat, kernel_size, flipped, flip_index, flip_shift, transform, max_offset, covariance):
    batch, joints, dtype = _check_shapes(heatmaps, flipped, transform)
    return (
        heatmaps.new_empty((batch, joints, 2), dtype=dtype),
        heatmaps.new_empty((batch, joints), dtype=dtype),
        heatmaps.new_empty((batch, joints, 2, 2) if covariance else (0,), dtype=dtype),
    )


@torch.library.register_fake("pypose_ops::_decode_offsets")
def _(heatmaps, kernel_size, radius, flipped, flip_index, flip_shift, transform, max_offset):
    batch, channels, dtype = _check_shapes(heatmaps, flipped, transform)
    joints = channels // 3
    return heatmaps.new_empty((batch, joints, 2), dtype=dtype), heatmaps.new_empty((batch, joints), dtype=dtype)


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
