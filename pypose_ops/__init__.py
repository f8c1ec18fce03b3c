"""Kernels for 2D human pose estimation as torch operators.

Coordinates are ``(x, y)`` in pixels with pixel centres at integers, sizes are ``(height, width)``, maps ``(B, K, H, W)``.
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

from . import reference
from ._build import build_info
from .heatmaps import gaussian_heatmaps
from .peaks import Peaks, PeaksWithCovariance, decode_heatmaps
from .peaks_local import PeakSet, find_peaks
from .peaks_simcc import decode_simcc
from .peaks_soft import SoftPeaks, soft_argmax

__version__ = _C.build_info()["version"]

__all__ = [
    "PeakSet",
    "Peaks",
    "PeaksWithCovariance",
    "SoftPeaks",
    "build_info",
    "decode_heatmaps",
    "decode_simcc",
    "find_peaks",
    "gaussian_heatmaps",
    "reference",
    "soft_argmax",
]
