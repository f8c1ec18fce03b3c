"""SimCC's targets: one distribution over x and one over y per keypoint."""

from typing import Any, Literal

import torch

from ._arguments import check_number, check_size, check_tensor, choice, expand_sigma, expand_visible
from ._autograd import (
    _empty_gradient,
    call_backward,
    forward_mode,
    register_derivative,
    register_fake,
    vmap_by_batch,
)
from ._out import draw, out_dtype, register_out

_ops = torch.ops.pypose_ops


_LABEL_PROFILES = ("gaussian", "one_hot")


_CENTERS = ("exact", "rounded")


_LABEL_NORMALIZES = ("peak", "density")


def simcc_labels(
    keypoints: torch.Tensor,
    sigma: float | tuple[float, float] | torch.Tensor,
    size: tuple[int, int],
    *,
    split_ratio: float = 2,
    visible: torch.Tensor | None = None,
    profile: Literal["gaussian", "one_hot"] = "gaussian",
    center: Literal["exact", "rounded"] = "rounded",
    normalize: Literal["peak", "density"] = "peak",
    smoothing: float = 0.0,
    dtype: torch.dtype | None = None,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws SimCC's labels (Li et al., ECCV 2022): one distribution over x and one over y per keypoint.

    Bin ``i`` stands for the coordinate ``i / split_ratio``. Invisible and non-finite keypoints draw nothing.

    Args:
        keypoints (Tensor): ``(B, K, 2)``; float32 or float64; ``(x, y)`` in pixels of an image of the given size,
            pixel centres at integers.
        sigma (float, tuple[float, float] or Tensor): standard deviation in bins, of both axes or ``(x, y)``; or a
            tensor as in :func:`gaussian_heatmaps`, broadcastable to ``(B, K)`` or ``(B, K, 2)``, where what is not a
            positive finite number draws nothing.
        size (tuple[int, int]): ``(height, width)`` of the image.
        split_ratio (float): bins per pixel; ``round(width * split_ratio)`` and ``round(height * split_ratio)`` bins,
            halves to even.
        visible (Tensor, optional): broadcastable to ``(B, K)``, as in :func:`gaussian_heatmaps`.
        profile (str): ``"gaussian"`` over the whole axis, also of keypoints outside of it; or ``"one_hot"``:
            ``1 - smoothing`` in the keypoint's bin and ``smoothing / (bins - 1)`` in the others, 0 everywhere when the
            keypoint is in none of them.
        center (str): of a Gaussian: the keypoint's bin, ``"rounded"`` with halves to even, or its ``"exact"`` place.
        normalize (str): of a Gaussian: ``"peak"``, its top is 1, or ``"density"``, ``1 / (sigma sqrt(2 pi))``
            (infinite for sigmas whose density overflows, below 1e-39 in float32).
        smoothing (float): of ``"one_hot"``, in [0, 1].
        dtype (torch.dtype, optional): of the labels: float16, bfloat16, float32 or float64. Default: that of the
            keypoints.
        out (tuple[Tensor, Tensor], optional): what to draw into, of the shapes of x and y, contiguous, on the
            keypoints' device; it is returned. Nothing is allocated, and nothing can be differentiated.

    Returns:
        tuple[Tensor, Tensor]: x ``(B, K, bins of x)`` and y ``(B, K, bins of y)``, contiguous.

    Gaussians are differentiable with respect to ``keypoints`` (``center="exact"``) and a ``sigma`` tensor,
    deterministically; rounded ones and ``"one_hot"`` are piecewise constant in the keypoints. Double backward is
    not supported.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: size is not two positive integers; sigma is not one or two numbers; an unknown option name;
            split_ratio leaves no bins; another argument has the wrong shape, dtype, device or value.

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
    outs = () if out is None else check_pair(op, "out", out)
    return draw(
        _ops.simcc_labels,
        outs,
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
        out_dtype(op, dtype, keypoints, *outs),
    )


def check_pair(op: str, name: str, value: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors, for x and for y."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{op}: {name} must be two tensors, for x and for y, got {type(value).__name__}")
    x, y = value
    return check_tensor(op, name, x), check_tensor(op, name, y)


def check_two(op: str, name: str, value: Any) -> tuple[float, float]:
    """One number for both axes, or two."""
    try:
        x, y = value if isinstance(value, (tuple, list)) else (value, value)
        return float(x), float(y)
    except (TypeError, ValueError):
        raise ValueError(f"{op}: {name} must be one number or two (x, y), got {value!r}") from None


def label_bins(op: str, pixels: int, split_ratio: float) -> int:
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


@register_fake("pypose_ops::simcc_labels")
def _(keypoints, sigma, sigma_x, sigma_y, visible, bins_x, bins_y, ratio, profile, center, normalize, smoothing, dtype):
    torch._check(keypoints.dim() == 3, lambda: "simcc_labels: keypoints must be (B, K, 2)")
    shape = keypoints.shape[:2]
    return keypoints.new_empty((*shape, bins_x), dtype=dtype), keypoints.new_empty((*shape, bins_y), dtype=dtype)


register_out("simcc_labels")


@register_fake("pypose_ops::_simcc_labels_backward")
def _(grad_x, grad_y, keypoints, sigma, sigma_x, sigma_y, visible, ratio, center, normalize):
    return _empty_gradient(keypoints, grad_x), _empty_gradient(keypoints, grad_x)


def _setup_labels(ctx, inputs, output):
    keypoints, sigma, sigma_x, sigma_y, visible, _, _, ratio, _, center, normalize, _, _ = inputs
    ctx.save_for_backward(keypoints, sigma, visible)
    ctx.options = sigma_x, sigma_y, ratio, center, normalize


def _labels_backward(ctx, grad_x, grad_y):
    keypoints, sigma, visible = ctx.saved_tensors
    sigma_x, sigma_y, ratio, center, normalize = ctx.options
    grad_keypoints, grad_sigma = call_backward(
        _ops._simcc_labels_backward.default,
        grad_x,
        grad_y,
        keypoints,
        sigma,
        sigma_x,
        sigma_y,
        visible,
        ratio,
        center,
        normalize,
    )
    grad_sigma = None if sigma is None else grad_sigma.to(sigma.dtype)
    return grad_keypoints.to(keypoints.dtype), grad_sigma, *(None,) * 11


register_derivative("simcc_labels", _setup_labels, _labels_backward)
register_derivative("_simcc_labels_backward")
vmap_by_batch("simcc_labels", 0, 1, 4)
vmap_by_batch("_simcc_labels_backward", 0, 1, 2, 3, 6)


@forward_mode("simcc_labels")
def _(keypoints, sigma, sigma_x, sigma_y, visible, bins_x, bins_y, ratio, profile, center, normalize, smoothing, dtype):
    from .. import reference  # here: it imports result types from this package

    # In bins, of which there is one per pixel: the ratio need not divide their number.
    return reference.simcc_labels(
        keypoints * ratio,
        (sigma_x, sigma_y) if sigma is None else sigma,
        (bins_y, bins_x),
        split_ratio=1,
        visible=visible,
        profile=_LABEL_PROFILES[profile],
        center=_CENTERS[center],
        normalize=_LABEL_NORMALIZES[normalize],
        smoothing=smoothing,
        dtype=dtype,
    )
