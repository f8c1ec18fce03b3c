"""Codecs encode keypoints in input pixels as training targets, and decode predictions.

Names, arguments and conventions are those of MMPose 1.x where it has them. Everything is batched and stays on its
device: keypoints ``(B, K, 2)`` in input pixels and ``visible (B, K)`` in, targets and weights out.

By default a codec follows its definition. ``compat="mmpose"`` (or another library) also reproduces the deviations of
that library's code, which each class lists. Joints that are not found are NaN, with score 0.
"""

from .associative import AssociativeEmbedding, AssociativeTargets, GroupedPeople
from .crowd import CenterNetHeatmap, CPMHeatmap
from .heatmap import HourglassHeatmap, MegviiHeatmap, MSRAHeatmap, UDPHeatmap
from .instances import EDPoseLabel, InstanceLabels, Instances, boxes_around_keypoints
from .label import IntegralRegressionLabel, RegressionLabel
from .roots import SPR, DecoupledHeatmap, DecoupledTargets, DisplacementTargets, RootedPeople
from .simcc import Labels3D, Peaks3D, PeaksWithVisibility, SimCC3DLabel, SimCCLabel

__all__ = [
    "AssociativeEmbedding",
    "AssociativeTargets",
    "CPMHeatmap",
    "CenterNetHeatmap",
    "DecoupledHeatmap",
    "DecoupledTargets",
    "DisplacementTargets",
    "EDPoseLabel",
    "GroupedPeople",
    "HourglassHeatmap",
    "InstanceLabels",
    "Instances",
    "IntegralRegressionLabel",
    "Labels3D",
    "MSRAHeatmap",
    "MegviiHeatmap",
    "Peaks3D",
    "PeaksWithVisibility",
    "RegressionLabel",
    "RootedPeople",
    "SPR",
    "SimCC3DLabel",
    "SimCCLabel",
    "UDPHeatmap",
    "boxes_around_keypoints",
]
