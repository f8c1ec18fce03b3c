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
from .fields import limb_masks, offset_heatmaps, part_affinity_fields, simcc_labels
from .grouping import People, group_by_tags, group_people, score_limbs
from .grouping_oks import Kept, oks, oks_nms
from .heatmaps import gaussian_heatmaps
from .losses import heatmap_mse_loss
from .mrf import mrf_message_passing
from .mrf_tree import Marginals, max_product, sum_product
from .patches import box_vote, crop_patches
from .peaks import Peaks, PeaksWithCovariance, decode_heatmaps
from .peaks_local import PeakSet, find_peaks
from .peaks_simcc import decode_simcc
from .peaks_soft import SoftPeaks, soft_argmax

__version__ = _C.build_info()["version"]

__all__ = [
    "Kept",
    "Marginals",
    "PeakSet",
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
