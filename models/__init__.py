"""Classic pose systems as thin modules over the operators."""

import dataclasses
import importlib
from typing import Any

from .modules.joint_graphs import full_edges, limb_edges, tree_edges
from .modules.spatial_model import SpatialModel
from .systems.system import Batch, System, SystemConfig
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
    "pretrained",
    "system_class",
    "tree_edges",
]

# name -> module and class; imported when asked for.
SYSTEMS: dict[str, str] = {
    "cnn_mrf": "systems.cnn_mrf:CnnMrf",
    "deeppose": "systems.deeppose:DeepPose",
    "dual_source": "systems.dual_source:DualSource",
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


def pretrained() -> tuple[System, dict[str, Any]]:
    """The trained system that comes with the package: no download.

    Its weights are ``pypose_ops/data/pose_lsp.safetensors``; the card beside them says what they are good for, how
    good they are, and that the terms of their training data, research, are theirs.

    Returns:
        tuple[System, dict]: in evaluation mode, on the CPU, float32; and what the file says about it: ``system``,
        ``preset``, ``options``, and ``skeleton``, whose joints it finds (a key of ``pypose_ops.skeletons.SKELETONS``).

    Example:
        >>> system, info = pretrained()
        >>> info["skeleton"]
        'lsp'
    """
    from .weights.files import load_packaged

    return load_packaged()
