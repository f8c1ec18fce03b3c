"""Kernels for 2D human pose estimation as torch operators.

Coordinates are ``(x, y)`` in pixels with pixel centres at integers, sizes are ``(height, width)``, maps are
``(B, K, H, W)``.
Every operator exists for CPU and CUDA; :mod:`pypose_ops.reference` holds its definition in plain torch.
"""

import importlib
from typing import TYPE_CHECKING

from . import _build, geometry
from ._build import build_info
from .ops import (
    LocalPeaks,
    Marginals,
    NmsResult,
    Peaks,
    PeaksWithCovariance,
    People,
    SoftPeaks,
    box_vote,
    crop_patches,
    decode_heatmaps,
    decode_simcc,
    find_peaks,
    gaussian_heatmaps,
    group_by_tags,
    group_people,
    heatmap_mse_loss,
    limb_masks,
    max_product,
    mrf_message_passing,
    offset_heatmaps,
    oks,
    oks_nms,
    part_affinity_fields,
    score_limbs,
    simcc_labels,
    soft_argmax,
    sum_product,
)

if TYPE_CHECKING:
    from . import reference

__version__ = _build.binary_info()["version"]

__all__ = [
    "NmsResult",
    "Marginals",
    "LocalPeaks",
    "Peaks",
    "PeaksWithCovariance",
    "People",
    "SoftPeaks",
    "box_vote",
    "build_info",
    "crop_patches",
    "decode_heatmaps",
    "decode_simcc",
    "find_peaks",
    "gaussian_heatmaps",
    "geometry",
    "group_by_tags",
    "group_people",
    "heatmap_mse_loss",
    "limb_masks",
    "max_product",
    "mrf_message_passing",
    "offset_heatmaps",
    "oks",
    "oks_nms",
    "part_affinity_fields",
    "reference",
    "score_limbs",
    "simcc_labels",
    "soft_argmax",
    "sum_product",
]


def __getattr__(name: str):
    """The definitions in plain torch are imported by whoever asks for them: kernels do without."""
    if name == "reference":
        return importlib.import_module(".reference", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
