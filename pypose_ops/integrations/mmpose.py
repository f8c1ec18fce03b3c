"""The codecs of :mod:`pypose_ops.codecs` for MMPose 1.x: importing this module registers them.

    custom_imports = dict(imports=["pypose_ops.integrations.mmpose"])
    codec = dict(type="pypose_ops.MSRAHeatmap", input_size=(192, 256), heatmap_size=(48, 64), sigma=2)

Unmodified configs use them after :func:`replace`. Like MMPose's they take and return numpy arrays, and default to
``compat="mmpose"``: the values are MMPose's, so its later corrections still apply. ``batch_decode``, which MMPose's
heads call, takes the tensors of a batch on any device.

Not included: the codecs that lift 2-D poses to 3-D (ImagePoseLifting, VideoPoseLifting, MotionBERTLabel,
Hand3DHeatmap).
"""

import importlib.util
from collections.abc import Callable
from typing import Any

from ._mmpose_people import SPR, AssociativeEmbedding, DecoupledHeatmap, EDPoseLabel, YOLOXPoseAnnotationProcessor
from ._mmpose_single import (
    IntegralRegressionLabel,
    MegviiHeatmap,
    MSRAHeatmap,
    RegressionLabel,
    SimCC3DLabel,
    SimCCLabel,
    UDPHeatmap,
)
from ._peer import Replacement, require

VERSIONS = ("1",)

CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        MSRAHeatmap, UDPHeatmap, MegviiHeatmap, RegressionLabel, IntegralRegressionLabel, SimCCLabel, SimCC3DLabel,
        AssociativeEmbedding, SPR, DecoupledHeatmap, EDPoseLabel, YOLOXPoseAnnotationProcessor,
    )
}  # fmt: skip


def register() -> Any:
    """Registers the codecs in MMPose's ``KEYPOINT_CODECS`` as ``pypose_ops.NAME``; returns their registry."""
    peer = require("mmpose.registry", "mmpose", VERSIONS)
    registry = peer.KEYPOINT_CODECS.children.get("pypose_ops")
    if registry is None:
        from mmengine.registry import Registry

        registry = Registry("keypoint codec", parent=peer.KEYPOINT_CODECS, scope="pypose_ops")
        for cls in CLASSES.values():
            registry.register_module(module=cls)
    return registry


def replace() -> Replacement:
    """Replaces MMPose's codecs of the same names, for unmodified configs; see ``Replacement``."""
    peer = require("mmpose.codecs", "mmpose", VERSIONS)
    own = require("mmpose.registry", "mmpose", VERSIONS).KEYPOINT_CODECS
    base: Callable[[type], type] = require("mmpose.codecs.base", "mmpose", VERSIONS).BaseKeypointCodec.register
    done = Replacement()
    for name, cls in CLASSES.items():
        base(cls)
        if hasattr(peer, name):
            done.everywhere("mmpose", {getattr(peer, name): cls})
        if name in own.module_dict:
            done.put(own._module_dict, name, cls)
    return done


CODECS = register() if importlib.util.find_spec("mmpose") else None
