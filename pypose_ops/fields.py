"""Targets beside Gaussian heatmaps: part affinity fields, limb masks, offset maps and SimCC labels."""

import torch

from ._arguments import (
    check_dtype,
    check_number,
    check_pairs,
    check_size,
    check_tensor,
    choice,
    expand_sigma,
    expand_visible,
)
from ._autograd import call, no_double_backward

_ops = torch.ops.pypose_ops

# In the order of the enumerations in csrc/heatmaps/limbs.h, offset_heatmaps.h and simcc_labels.h.
_LIMB_PROFILES = ("band", "openpose", "trt_pose", "sleap")
_LIMB_COMBINES = ("mean", "sum")
_WINNERS = ("nearest", "last")
_LABEL_PROFILES = ("gaussian", "one_hot")
_CENTERS = ("exact", "rounded")
_LABEL_NORMALIZES = ("peak", "density")


def part_affinity_fields(
    keypoints, limbs, width, size, *, visible=None, profile="band", combine="mean", dtype=torch.float32
):
    """Draws one field of unit vectors per limb (Cao et al., CVPR 2017): which way the limb runs through a pixel.

    A limb is drawn for the people of whom both ends are visible, finite and within 1e6 pixels of the origin. A limb
    shorter than 1e-6 pixels has no direction and draws nothing.

    Args:
        keypoints (Tensor): ``(B, K, 2)``, or ``(B, P, K, 2)`` for P people; float32 or float64; ``(x, y)`` in heatmap
            pixels, pixel centres at integers.
        limbs (sequence of pairs): joints ``(from, to)``, for example ``skeletons.COCO.edges``; at most 256. A pair may
            come twice and is drawn twice.
        width (float): how far from its axis the limb reaches, in pixels, from 1e-6 on; of the soft profiles the sigma.
        size (tuple[int, int]): ``(height, width)`` of the maps.
        visible (Tensor, optional): as in :func:`gaussian_heatmaps`.
        profile (str): the weight of the unit vector, with ``a`` the distance from the axis and ``d`` from the limb:

            - ``"band"``: 1 where ``a <= width``, inside the limb's bounding box grown by ``width``, borders included;
            - ``"openpose"``: the same with the box rounded and its last row and column left out, as OpenPose draws it;
            - ``"trt_pose"``: ``exp(-d^2 / width^2)``, to be combined by ``"sum"``;
            - ``"sleap"``: ``exp(-d^4 / (2 width^2))``, to be combined by ``"sum"``; limbs below a pixel count as one
              pixel long where the nearest point is sought.
        combine (str): of people: ``"mean"`` over those whose band covers the pixel (for the soft profiles, over all
            who are drawn), or ``"sum"``.
        dtype (torch.dtype): of the maps: float16, bfloat16, float32 or float64.

    Returns:
        Tensor: ``(B, 2 * len(limbs), height, width)``, contiguous: x of the first limb, y of the first limb, x of the
        second, ...

    Differentiable with respect to ``keypoints``, deterministically. Of a band only the direction of its vectors has a
    derivative: its edge is a step, and who covers a pixel counts as constant. Twice differentiating is an error.

    Raises:
        ValueError: size is not two positive integers; limbs are not pairs; an unknown option name.
        RuntimeError: a limb names a joint that is not there; width is not positive; another argument is wrong.

    Example:
        >>> keypoints = torch.tensor([[[[10.0, 5.0], [10.0, 50.0]], [[30.0, 5.0], [44.0, 50.0]]]])  # 1 image, 2 people
        >>> part_affinity_fields(keypoints, [(0, 1)], 2.0, (64, 48)).shape
        torch.Size([1, 2, 64, 48])
    """
    op = "part_affinity_fields"
    check_tensor(op, "keypoints", keypoints)
    return call(
        _ops.part_affinity_fields.default,
        (keypoints,),
        keypoints,
        check_pairs(op, "limbs", limbs),
        width,
        None if visible is None else expand_visible(op, visible, keypoints),
        *check_size(op, size),
        choice(op, "profile", profile, _LIMB_PROFILES),
        choice(op, "combine", combine, _LIMB_COMBINES),
        check_dtype(op, dtype),
    )


def limb_masks(keypoints, limbs, width, size, *, visible=None, dtype=torch.float32):
    """Draws one mask per limb: 1 within ``width`` of the segment between its ends, 0 elsewhere.

    Arguments are those of :func:`part_affinity_fields`. A limb without length is a disc; the masks of several people
    are united.

    Returns:
        Tensor: ``(B, len(limbs), height, width)``, contiguous. Piecewise constant in the keypoints: not differentiable.

    Example:
        >>> keypoints = torch.tensor([[[10.0, 5.0], [10.0, 50.0]]])
        >>> limb_masks(keypoints, [(0, 1)], 3.0, (64, 48))[0, 0, 20].sum()
        tensor(7.)
    """
    op = "limb_masks"
    return _ops.limb_masks.default(
        check_tensor(op, "keypoints", keypoints).detach(),
        check_pairs(op, "limbs", limbs),
        width,
        None if visible is None else expand_visible(op, visible, keypoints),
        *check_size(op, size),
        check_dtype(op, dtype),
    )


def offset_heatmaps(keypoints, radius, size, *, visible=None, combine="nearest", dtype=torch.float32):
    """Draws UDP's combined target (Huang et al., CVPR 2020): where a joint is near, and how far it is.

    Three maps per joint: 1 within ``radius`` of it (border included) and 0 elsewhere; then, in every pixel of the map,
    the offset to it, ``(x_joint - x) / radius`` and ``(y_joint - y) / radius``. A joint that is invisible, not finite
    or further than 1e6 pixels from the origin leaves its three maps 0.

    Args:
        keypoints (Tensor): ``(B, K, 2)``, or ``(B, P, K, 2)`` for P people; float32 or float64; ``(x, y)`` in heatmap
            pixels, pixel centres at integers.
        radius (float): in pixels, from 0.001 on.
        size (tuple[int, int]): ``(height, width)`` of the maps.
        visible (Tensor, optional): as in :func:`gaussian_heatmaps`.
        combine (str): whose offset a pixel holds: the ``"nearest"`` person's, of equals the first, or the ``"last"``
            person's, as MMPose has it.
        dtype (torch.dtype): of the maps: float16, bfloat16, float32 or float64.

    Returns:
        Tensor: ``(B, 3 * K, height, width)``, contiguous: disc, x and y of the first joint, then of the second, ...

    The offsets are differentiable with respect to ``keypoints``, each pixel's to the person whose it holds,
    deterministically; discs are piecewise constant. Twice differentiating is an error.

    Example:
        >>> maps = offset_heatmaps(torch.tensor([[[12.5, 40.0]]]), 4.0, (64, 48))
        >>> maps[0, :, 40, 12]
        tensor([1.0000, 0.1250, 0.0000])
    """
    op = "offset_heatmaps"
    check_tensor(op, "keypoints", keypoints)
    return call(
        _ops.offset_heatmaps.default,
        (keypoints,),
        keypoints,
        radius,
        None if visible is None else expand_visible(op, visible, keypoints),
        *check_size(op, size),
        choice(op, "combine", combine, _WINNERS),
        check_dtype(op, dtype),
    )


def simcc_labels(
    keypoints,
    sigma,
    size,
    *,
    split_ratio=2,
    visible=None,
    profile="gaussian",
    center="rounded",
    normalize="peak",
    smoothing=0.0,
    dtype=torch.float32,
):
    """Draws SimCC's labels (Li et al., ECCV 2022): one distribution over x and one over y per keypoint.

    Bin ``i`` stands for the coordinate ``i / split_ratio``. Keypoints that are invisible or not finite draw nothing.

    Args:
        keypoints (Tensor): ``(B, K, 2)``; float32 or float64; ``(x, y)`` in pixels of a picture of the given size,
            pixel centres at integers.
        sigma (float, tuple[float, float] or Tensor): standard deviation in bins, of both axes or ``(x, y)``; or a
            tensor as in :func:`gaussian_heatmaps`, broadcastable to ``(B, K)`` or ``(B, K, 2)``, where what is not a
            positive finite number draws nothing.
        size (tuple[int, int]): ``(height, width)`` of the picture.
        split_ratio (float): bins per pixel; ``round(width * split_ratio)`` and ``round(height * split_ratio)`` bins,
            halves to even.
        visible (Tensor, optional): broadcastable to ``(B, K)``, as in :func:`gaussian_heatmaps`.
        profile (str): ``"gaussian"`` over the whole axis, also of keypoints outside of it; or ``"one_hot"``:
            ``1 - smoothing`` in the keypoint's bin and ``smoothing / (bins - 1)`` in the others, 0 everywhere when the
            keypoint is in none of them.
        center (str): of a Gaussian: the keypoint's bin, ``"rounded"`` with halves to even, or its ``"exact"`` place.
        normalize (str): of a Gaussian: ``"peak"``, its top is 1, or ``"density"``, ``1 / (sigma sqrt(2 pi))``
            (infinite for sigmas whose density overflows, below 1e-39 in float32).
        smoothing (float): of ``"one_hot"``, in [0, 1).
        dtype (torch.dtype): of the labels: float16, bfloat16, float32 or float64.

    Returns:
        tuple[Tensor, Tensor]: x ``(B, K, bins of x)`` and y ``(B, K, bins of y)``, contiguous.

    Gaussians are differentiable with respect to ``keypoints`` (``center="exact"``) and a ``sigma`` tensor,
    deterministically; rounded ones and ``"one_hot"`` are piecewise constant in the keypoints. Twice differentiating is
    an error.

    Raises:
        ValueError: size is not two positive integers; sigma is not one or two numbers; an unknown option name.
        RuntimeError: split_ratio leaves no bins; another argument has the wrong shape, dtype, device or value.

    Example:
        >>> x, y = simcc_labels(torch.rand(8, 17, 2) * 192, 6.0, (256, 192))
        >>> x.shape, y.shape
        (torch.Size([8, 17, 384]), torch.Size([8, 17, 512]))
    """
    op = "simcc_labels"
    check_tensor(op, "keypoints", keypoints)
    sigma_x = sigma_y = 0.0
    if isinstance(sigma, torch.Tensor):
        sigma = expand_sigma(op, sigma, keypoints)
    else:
        (sigma_x, sigma_y), sigma = check_two(op, "sigma", sigma), None
    height, width = check_size(op, size)
    bins_x, bins_y = (label_bins(op, n, split_ratio) for n in (width, height))
    if profile != "gaussian" or center != "exact":
        keypoints = keypoints.detach()
    if profile != "gaussian" and sigma is not None:
        sigma = sigma.detach()
    return call(
        _ops.simcc_labels.default,
        (keypoints, sigma),
        keypoints,
        sigma,
        sigma_x,
        sigma_y,
        None if visible is None else expand_visible(op, visible, keypoints),
        bins_x,
        bins_y,
        split_ratio,
        choice(op, "profile", profile, _LABEL_PROFILES),
        choice(op, "center", center, _CENTERS),
        choice(op, "normalize", normalize, _LABEL_NORMALIZES),
        smoothing,
        check_dtype(op, dtype),
    )


def check_two(op, name, value):
    """One number for both axes, or two."""
    try:
        x, y = value if isinstance(value, (tuple, list)) else (value, value)
        return float(x), float(y)
    except (TypeError, ValueError):
        raise ValueError(f"{op}: {name} must be one number or two (x, y), got {value!r}") from None


def label_bins(op, pixels, split_ratio):
    """How many bins an axis has."""
    check_number(op, "split_ratio", split_ratio)
    if not 0 < split_ratio < float("inf"):
        raise ValueError(f"{op}: split_ratio must be positive and finite, got {split_ratio}")
    if isinstance(split_ratio, int):
        return pixels * split_ratio
    bins = pixels * split_ratio
    if not bins < 2**62:
        raise ValueError(f"{op}: size times split_ratio must leave fewer than 2^62 bins, got {split_ratio}")
    return round(bins)


@torch.library.register_fake("pypose_ops::part_affinity_fields")
def _(keypoints, limbs, limb_width, visible, height, width, profile, combine, dtype):
    torch._check(keypoints.dim() in (3, 4), lambda: "part_affinity_fields: keypoints must be (B, K, 2) or (B, P, K, 2)")
    return keypoints.new_empty((keypoints.shape[0], len(limbs), height, width), dtype=dtype)


@torch.library.register_fake("pypose_ops::limb_masks")
def _(keypoints, limbs, limb_width, visible, height, width, dtype):
    torch._check(keypoints.dim() in (3, 4), lambda: "limb_masks: keypoints must be (B, K, 2) or (B, P, K, 2)")
    return keypoints.new_empty((keypoints.shape[0], len(limbs) // 2, height, width), dtype=dtype)


@torch.library.register_fake("pypose_ops::offset_heatmaps")
def _(keypoints, radius, visible, height, width, combine, dtype):
    torch._check(keypoints.dim() in (3, 4), lambda: "offset_heatmaps: keypoints must be (B, K, 2) or (B, P, K, 2)")
    return keypoints.new_empty((keypoints.shape[0], 3 * keypoints.shape[-2], height, width), dtype=dtype)


@torch.library.register_fake("pypose_ops::simcc_labels")
def _(keypoints, sigma, sigma_x, sigma_y, visible, bins_x, bins_y, ratio, profile, center, normalize, smoothing, dtype):
    torch._check(keypoints.dim() == 3, lambda: "simcc_labels: keypoints must be (B, K, 2)")
    shape = keypoints.shape[:2]
    return keypoints.new_empty((*shape, bins_x), dtype=dtype), keypoints.new_empty((*shape, bins_y), dtype=dtype)


def _empty_gradient(keypoints, grad):
    """A gradient as the kernels give it: with an axis of people where the operator knows people."""
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    return keypoints.new_empty(keypoints.shape, dtype=dtype)


@torch.library.register_fake("pypose_ops::_part_affinity_fields_backward")
def _(grad, keypoints, limbs, limb_width, visible, profile, combine):
    return _empty_gradient(keypoints if keypoints.dim() == 4 else keypoints[:, None], grad)


@torch.library.register_fake("pypose_ops::_offset_heatmaps_backward")
def _(grad, keypoints, radius, visible, combine):
    return _empty_gradient(keypoints if keypoints.dim() == 4 else keypoints[:, None], grad)


@torch.library.register_fake("pypose_ops::_simcc_labels_backward")
def _(grad_x, grad_y, keypoints, sigma, sigma_x, sigma_y, visible, ratio, center, normalize):
    return _empty_gradient(keypoints, grad_x), _empty_gradient(keypoints, grad_x)


def _setup_fields(ctx, inputs, output):
    keypoints, limbs, limb_width, visible, _, _, profile, combine, _ = inputs
    ctx.save_for_backward(keypoints, visible)
    ctx.options = limbs, limb_width, profile, combine


def _fields_backward(ctx, grad):
    keypoints, visible = ctx.saved_tensors
    limbs, limb_width, profile, combine = ctx.options
    grad_keypoints = _ops._part_affinity_fields_backward.default(
        grad, keypoints, limbs, limb_width, visible, profile, combine
    )
    return grad_keypoints.view_as(keypoints).to(keypoints.dtype), *(None,) * 8


def _setup_offsets(ctx, inputs, output):
    keypoints, radius, visible, _, _, combine, _ = inputs
    ctx.save_for_backward(keypoints, visible)
    ctx.options = radius, combine


def _offsets_backward(ctx, grad):
    keypoints, visible = ctx.saved_tensors
    radius, combine = ctx.options
    grad_keypoints = _ops._offset_heatmaps_backward.default(grad, keypoints, radius, visible, combine)
    return grad_keypoints.view_as(keypoints).to(keypoints.dtype), *(None,) * 6


def _setup_labels(ctx, inputs, output):
    keypoints, sigma, sigma_x, sigma_y, visible, _, _, ratio, _, center, normalize, _, _ = inputs
    ctx.save_for_backward(keypoints, sigma, visible)
    ctx.options = sigma_x, sigma_y, ratio, center, normalize


def _labels_backward(ctx, grad_x, grad_y):
    keypoints, sigma, visible = ctx.saved_tensors
    sigma_x, sigma_y, ratio, center, normalize = ctx.options
    grad_keypoints, grad_sigma = _ops._simcc_labels_backward.default(
        grad_x, grad_y, keypoints, sigma, sigma_x, sigma_y, visible, ratio, center, normalize
    )
    grad_sigma = None if sigma is None else grad_sigma.to(sigma.dtype)
    return grad_keypoints.to(keypoints.dtype), grad_sigma, *(None,) * 11


for _name, _backward, _setup in (
    ("part_affinity_fields", _fields_backward, _setup_fields),
    ("offset_heatmaps", _offsets_backward, _setup_offsets),
    ("simcc_labels", _labels_backward, _setup_labels),
):
    torch.library.register_autograd(f"pypose_ops::{_name}", _backward, setup_context=_setup)
    no_double_backward(f"_{_name}_backward")
