"""Classic pose systems as thin modules over the operators."""

import dataclasses
import importlib
from typing import Any

from .modules.joint_graphs import full_edges, limb_edges, tree_edges
from .modules.spatial_model import SpatialModel
from .systems.system import Batch, System, SystemConfig
from .weights import mmpose
from .weights.checkpoint import load_checkpoint

__all__ = [
    "SYSTEMS",
    "Batch",
    "SpatialModel",
    "System",
    "SystemConfig",
    "build",
    "full_edges",
    "limb_edges",
    "load_checkpoint",
    "mmpose",
    "pretrained",
    "system_class",
    "tree_edges",
]

# name -> module and class; imported when asked for.
SYSTEMS: dict[str, str] = {
    "cnn_mrf": "systems.cnn_mrf:CnnMrf",
    "deeppose": "systems.deeppose:DeepPose",
    "dual_source": "systems.dual_source:DualSource",
    "heatmap_net": "systems.heatmap_net:HeatmapNet",
    "cpm": "systems.cpm:ConvolutionalPoseMachine",
    "paf_net": "systems.paf_net:PafNet",
    "part_heatmap_regression": "systems.part_heatmap_regression:PartHeatmapRegression",
    "stacked_hourglass": "systems.stacked_hourglass:StackedHourglass",
}


def system_class(name: str) -> type[System]:
    """The class of a system by its name in ``SYSTEMS``."""
    if name not in SYSTEMS:
        raise ValueError(f"models: unknown system {name!r}; there are {', '.join(SYSTEMS)}")
    module, cls = SYSTEMS[name].split(":")
    return getattr(importlib.import_module(f".{module}", __name__), cls)


def build(name: str, num_joints: int = 14, preset: str = "paper", **options: Any) -> System:
    """A system by name.

    Args:
        name (str): one of ``SYSTEMS``.
        num_joints (int): K.
        preset (str): ``"paper"``, or ``"compact"`` (at most 3 M parameters, for a CPU).
        options: fields of the system's config, over those of the preset.

    Raises:
        ValueError: unknown system, preset or option.
    """
    cls = system_class(name)
    if preset not in cls.presets:
        raise ValueError(f"models: {name} has no preset {preset!r}; it has {', '.join(cls.presets)}")
    config = cls.presets[preset]
    known = [field.name for field in dataclasses.fields(config)]
    for option in options:
        if option not in known:
            raise ValueError(f"models: {name} has no option {option!r}; it has {', '.join(known)}")
    return cls(num_joints, dataclasses.replace(config, **options))


def pretrained(name: str = "coco17") -> tuple[System, dict[str, Any]]:
    """A trained system that comes with the package: no download.

    The cards beside the weights in ``pypose_ops/data`` say what they are for, how good they are, and on which terms.

    Args:
        name (str): ``"coco17"``, MoveNet Lightning as Google published it (Apache-2.0), which finds people too; or
            ``"lsp14"``, for the joints of Leeds Sports Pose, for research as the images that it was trained with.

    Returns:
        tuple[System, dict]: in evaluation mode, on the CPU, float32; and what the file says about it: ``system``,
        ``preset``, ``options``, and ``skeleton``, whose joints it finds (a key of ``pypose_ops.skeletons.SKELETONS``).

    Raises:
        ValueError: no such weights.

    Example:
        >>> system, info = pretrained()
        >>> info["skeleton"]
        'coco'
    """
    from .weights.files import load_packaged

    return load_packaged(name)
