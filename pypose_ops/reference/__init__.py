"""The definition of every operator in plain torch: same names, same signatures, float64-safe, any device.

Readable first: these are what the kernels are tested against and what the benchmarks compare with.
"""

from .heatmaps import gaussian_heatmaps
from .mrf import mrf_message_passing
from .peaks import decode_heatmaps

__all__ = ["decode_heatmaps", "gaussian_heatmaps", "mrf_message_passing"]
