"""The definition of every operator in plain torch: same names, same signatures, float64-safe, any device.

Readable first: these are what the kernels are tested against and what the benchmarks compare with.
"""

from .fields import limb_masks, offset_heatmaps, part_affinity_fields, simcc_labels
from .grouping import group_by_tags, group_people, score_limbs
from .grouping_oks import oks, oks_nms
from .heatmaps import gaussian_heatmaps
from .losses import heatmap_mse_loss
from .mrf import mrf_message_passing
from .mrf_tree import max_product, sum_product
from .patches import box_vote, crop_patches
from .peaks import decode_heatmaps
from .peaks_local import find_peaks
from .peaks_simcc import decode_simcc
from .peaks_soft import soft_argmax

__all__ = [
    "box_vote",
    "crop_patches",
    "decode_heatmaps",
    "decode_simcc",
    "find_peaks",
    "gaussian_heatmaps",
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
    "score_limbs",
    "simcc_labels",
    "soft_argmax",
    "sum_product",
]
