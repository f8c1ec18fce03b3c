"""Kernels for 2D human pose estimation as torch operators.

Coordinates are ``(x, y)`` in pixels with pixel centres at integers, sizes are ``(height, width)``, maps are
``(B, K, H, W)``.
Every operator exists for CPU and CUDA; :mod:`pypose_ops.reference` holds its definition in plain torch.
"""

import torch  # noqa: F401  (libtorch must be loaded before _C)

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        "pypose_ops is not built here: run `pip install .` and start Python outside the source folder, or "
        f"`pip install -e .` ({error})"
    ) from error

from . import geometry, reference
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

__version__ = _C.build_info()["version"]

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
