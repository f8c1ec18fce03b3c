"""The definition of every operator in plain torch: same names, same signatures, float64-safe, any device.

Readable first: these are what the kernels are tested against and what the benchmarks compare with.
"""

from .grouping import group_by_tags, group_people, oks, oks_nms, score_limbs
from .heatmaps import gaussian_heatmaps
from .mrf import mrf_message_passing
from .peaks import decode_heatmaps

__all__ = [
    "decode_heatmaps",
    "gaussian_heatmaps",
    "group_by_tags",
    "group_people",
    "mrf_message_passing",
    "oks",
    "oks_nms",
    "score_limbs",
]
