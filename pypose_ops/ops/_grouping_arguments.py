"""Parses the arguments that the grouping operators share."""

import operator
from typing import Any

import torch

from ._arguments import check_tensor

# In the order of the enumerations in csrc/grouping.
RULES = ("openpose", "trt_pose", "trapezoid")
ASSIGNMENTS = ("optimal", "greedy")


def flat_limbs(op: str, name: str, limbs: Any, count: int | None = None) -> list[int]:
    """Pairs of integers as one flat list."""
    limbs = limbs.tolist() if hasattr(limbs, "tolist") else limbs
    flat: list[int] = []
    pairs = True
    try:
        for a, b in limbs:  # a comprehension takes three times as long
            flat += operator.index(a), operator.index(b)
    except ValueError:
        pairs = False
    except TypeError:
        raise ValueError(f"{op}: {name} must be pairs of integers, got {limbs!r}") from None
    if not pairs or (count is not None and len(flat) != 2 * count):
        raise ValueError(f"{op}: {name} must be {'pairs' if count is None else f'{count} pairs'}, got {limbs!r}")
    return flat


def joint_list(op: str, name: str, joints: Any) -> list[int]:
    """Joint numbers as a list."""
    try:
        return [operator.index(k) for k in joints]
    except TypeError:
        raise ValueError(f"{op}: {name} must be joints, got {joints!r}") from None


def check_peaks(op: str, peaks: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates and scores of LocalPeaks, or of anything that has its three tensors."""
    values: list[Any] = [getattr(peaks, name, None) for name in ("coords", "scores", "counts")]
    coords, scores, counts = values
    if not (isinstance(coords, torch.Tensor) and isinstance(scores, torch.Tensor) and isinstance(counts, torch.Tensor)):
        for name, value in (("coords", coords), ("scores", scores), ("counts", counts)):
            check_tensor(op, f"peaks.{name}", value)
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        raise ValueError(f"{op}: peaks.counts must be integers, got {counts.dtype}")
    return coords, scores


def check_whole_peaks(op: str, peaks: Any) -> None:
    """As :func:`check_peaks`, for operators that gather the coordinates in Python."""
    coords, scores = check_peaks(op, peaks)
    if not coords.is_floating_point():
        raise ValueError(f"{op}: peaks.coords must be float32 or float64, got {coords.dtype}")
    if coords.dim() != 4 or coords.shape[-1] != 2:
        raise ValueError(f"{op}: peaks.coords must be (B, K, M, 2), got shape {tuple(coords.shape)}")
    if scores.shape != coords.shape[:-1]:
        raise ValueError(f"{op}: peaks.scores must be {tuple(coords.shape[:-1])}, got shape {tuple(scores.shape)}")
