"""Pairs of encode and decode between keypoints in a net's input and what the net is trained on.

Names, arguments and conventions are those of MMPose 1.x where it has them. Everything is batched and stays on its
device: keypoints ``(B, K, 2)`` in input pixels, and ``visible`` ``(B, K)``, in; targets and weights out.

By default a codec does what its definition says. ``compat="mmpose"`` (or another peer's name) also reproduces what that
peer's code does differently; the class says what that is.
"""

from .crowd import CenterNetHeatmap, CPMHeatmap
from .heatmap import HourglassHeatmap, MegviiHeatmap, MSRAHeatmap, UDPHeatmap
from .label import IntegralRegressionLabel, RegressionLabel, SimCCLabel

__all__ = [
    "CPMHeatmap",
    "CenterNetHeatmap",
    "HourglassHeatmap",
    "IntegralRegressionLabel",
    "MSRAHeatmap",
    "MegviiHeatmap",
    "RegressionLabel",
    "SimCCLabel",
    "UDPHeatmap",
]
