"""Parses the arguments that several wrappers share."""

import math
import operator
import sys

import torch

_LARGEST = sys.float_info.max


def choice(op, name, value, choices):
    """Returns the index of an option's name, which is its value in C++."""
    try:
        return choices.index(value)
    except ValueError:
        raise ValueError(f"{op}: {name} must be one of {', '.join(choices)}, got {value!r}") from None


def check_tensor(op, name, value):
    """Returns the value, which must be a tensor: later checks read its shape."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    return value


def check_number(op, name, value):
    """One number as a float."""
    if type(value) is float:
        return value
    try:
        if isinstance(value, torch.Tensor):
            raise TypeError  # it may be on another device
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}") from None


def check_missing(op, missing):
    """The coordinates of missing joints, None for NaN: programs of AOTInductor cannot hold NaN arguments."""
    missing = check_number(op, "missing", missing)
    return missing if missing == missing else None  # not math.isnan, which a compiler cannot trace


def check_threshold(op, threshold):
    """What finite pixels must be higher than, None for any: programs of AOTInductor cannot hold infinite arguments."""
    threshold = check_number(op, "threshold", threshold)
    return None if threshold == -math.inf else min(threshold, _LARGEST) if threshold == threshold else threshold


def check_dtype(op, dtype):
    """Refuses other types: torch would interpret an integer as the number of a dtype."""
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{op}: dtype must be a torch.dtype, got {dtype!r}")
    return dtype


def map_dtype(op, dtype, keypoints):
    """The dtype of the maps; None: that of the keypoints."""
    if dtype is None:
        return torch.float64 if keypoints.dtype == torch.float64 else torch.float32
    return check_dtype(op, dtype)


def check_size(op, size):
    """``(height, width)`` as two positive integers (or symbolic ones)."""
    try:
        height, width = size
        if type(height) is int and type(width) is int and height > 0 and width > 0:
            return height, width
        height, width = (n if isinstance(n, torch.SymInt) else operator.index(n) for n in (height, width))
    except (TypeError, ValueError):
        raise ValueError(f"{op}: size must be two integers (height, width), got {size!r}") from None
    if height <= 0 or width <= 0:
        raise ValueError(f"{op}: size must be positive (height, width), got ({height}, {width})")
    return height, width


def expand_sigma(op, sigma, keypoints):
    """A sigma tensor expanded to the shape of ``keypoints``; see gaussian_heatmaps for the two readings."""
    shape = keypoints.shape
    candidates = [(sigma, shape)]
    if sigma.dim() < keypoints.dim():
        candidates.insert(0, (sigma.unsqueeze(-1), shape))
    for candidate, target in candidates:
        if _broadcasts(candidate.shape, target):
            return candidate.expand(target)
    raise ValueError(
        f"{op}: sigma must broadcast to {tuple(shape[:-1])} or {tuple(shape)}, got shape {tuple(sigma.shape)}"
    )


def expand_visible(op, visible, keypoints):
    """A visibility tensor as bool, expanded to the shape of ``keypoints`` without its last axis."""
    check_tensor(op, "visible", visible)
    shape = keypoints.shape[:-1]
    if not _broadcasts(visible.shape, shape):
        raise ValueError(f"{op}: visible must broadcast to {tuple(shape)}, got shape {tuple(visible.shape)}")
    if visible.is_complex():
        raise TypeError(f"{op}: visible must be bool or real numbers, got {visible.dtype}")
    if visible.dtype != torch.bool:
        visible = visible >= 0.5
    return visible.expand(shape)


def expand_weight(op, weight, maps):
    """Weights per map in the arithmetic's dtype, expanded to the shape of ``maps`` without its last two axes."""
    check_tensor(op, "weight", weight)
    shape = maps.shape[:-2]
    if weight.requires_grad:
        raise ValueError(f'{op}: weight must not require a gradient; multiply what reduction="none" returns')
    if not _broadcasts(weight.shape, shape):
        raise ValueError(f"{op}: weight must broadcast to {tuple(shape)}, got shape {tuple(weight.shape)}")
    return weight.to(torch.float64 if maps.dtype == torch.float64 else torch.float32).expand(shape)


def check_pairs(op, name, pairs):
    """Pairs of joints as one flat list of integers."""
    try:
        flat = [operator.index(k) for a, b in pairs for k in (a, b)]
    except (TypeError, ValueError):
        raise ValueError(f"{op}: {name} must be pairs of joints (a, b), got {pairs!r}") from None
    return flat


def _broadcasts(shape, target):
    if len(shape) > len(target):
        return False
    return all(n == 1 or n == m for n, m in zip(reversed(shape), reversed(target), strict=False))
