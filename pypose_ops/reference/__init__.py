"""The definition of every operator in plain torch: same names, same signatures, float64-safe, any device.

Readable first: these are what the kernels are tested against and what the benchmarks compare with.
"""

from .heatmaps import gaussian_heatmaps
from .peaks import decode_heatmaps
from .peaks_local import find_peaks
from .peaks_simcc import decode_simcc
from .peaks_soft import soft_argmax

__all__ = [
    "decode_heatmaps",
    "decode_simcc",
    "find_peaks",
    "gaussian_heatmaps",
    "soft_argmax",
]
