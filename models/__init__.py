"""Classic pose estimation systems as thin modules over the operators."""

import dataclasses
import importlib
from pathlib import Path
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

# name -> module and class, imported on demand.
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


def build(
    name: str, num_joints: int = 14, preset: str = "paper", *, pretrained: Path | str | None = None, **options: Any
) -> System:
    """Builds a system by name.

    Args:
        name (str): one of ``SYSTEMS``.
        num_joints (int): the number of joints, K.
        preset (str): ``"paper"``, or ``"compact"`` (at most 3 M parameters, for a CPU).
        pretrained (Path or str, optional): a file of ImageNet weights for its backbones, see :func:`load_checkpoint`.
        options: fields of the system's config, over those of the preset.

    Raises:
        ValueError: an unknown system, preset or option.
        InputError: ``pretrained`` cannot be read or does not fit.
    """
    cls = system_class(name)
    if preset not in cls.presets:
        raise ValueError(f"models: {name} has no preset {preset!r}; it has {', '.join(cls.presets)}")
    config = cls.presets[preset]
    known = [field.name for field in dataclasses.fields(config)]
    for option in options:
        if option not in known:
            raise ValueError(f"models: {name} has no option {option!r}; it has {', '.join(known)}")
    system = cls(num_joints, dataclasses.replace(config, **options))
    return system if pretrained is None else load_checkpoint(pretrained, into=system).train()


def pretrained(name: str = "coco17") -> tuple[System, dict[str, Any]]:
    """Returns a trained system that ships with the package; nothing is downloaded.

    The model cards next to the weights in ``pypose_ops/data`` give their purpose, accuracy and licence.

    Args:
        name (str): ``"coco17"``, MoveNet Lightning as published by Google (Apache-2.0), which also finds people; or
            ``"lsp14"``, for the joints of Leeds Sports Pose; for research only, as its training images.

    Returns:
        tuple[System, dict]: the system in evaluation mode, on the CPU, in float32; and its metadata: ``system``,
        ``preset``, ``options`` and ``skeleton``, a key of ``pypose_ops.skeletons.SKELETONS``.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> system, info = pretrained()
        >>> info["skeleton"]
        'coco'
    """
    from .weights.files import load_packaged

    return load_packaged(name)
