"""The operators, one module each: wrapper with documentation, fake kernel and autograd."""

from ._results import (
    LocalPeaks,
    LocalPeaksWithPixels,
    NmsResult,
    Peaks,
    PeaksWithCovariance,
    PeaksWithPixels,
    People,
    SoftPeaks,
)
from .box_vote import box_vote
from .crop_patches import crop_patches
from .decode_heatmaps import decode_heatmaps
from .decode_roi_heatmaps import decode_roi_heatmaps
from .decode_simcc import decode_simcc
from .find_peaks import find_peaks
from .gaussian_heatmaps import gaussian_heatmaps
from .group_by_tags import group_by_tags
from .group_people import group_people
from .heatmap_mse_loss import heatmap_mse_loss
from .limb_masks import limb_masks
from .max_product import BestPose, max_product
from .mrf_message_passing import mrf_message_passing
from .offset_heatmaps import offset_heatmaps
from .oks import oks
from .oks_nms import oks_nms
from .part_affinity_fields import part_affinity_fields
from .score_limbs import score_limbs
from .simcc_labels import simcc_labels
from .soft_argmax import soft_argmax
from .sum_product import Marginals, sum_product

__all__ = [
    "BestPose",
    "NmsResult",
    "Marginals",
    "LocalPeaks",
    "LocalPeaksWithPixels",
    "Peaks",
    "PeaksWithCovariance",
    "PeaksWithPixels",
    "People",
    "SoftPeaks",
    "box_vote",
    "crop_patches",
    "decode_heatmaps",
    "decode_roi_heatmaps",
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
