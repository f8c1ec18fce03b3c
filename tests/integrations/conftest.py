"""Lets peers be imported beside a CPU build of torch and numpy 2, for which parts of their wheels do not load."""

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import torch

# torchvision: its compiled operators are for another torch; importing it registers fake kernels for these two.
_library = torch.library.Library("torchvision", "FRAGMENT")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    if not hasattr(torch.ops.torchvision, _schema.split("(")[0]):
        _library.define(_schema)

# xtcocotools: its masks are compiled for numpy 1; pycocotools' are the same.
if importlib.util.find_spec("xtcocotools") and importlib.util.find_spec("pycocotools"):
    sys.modules["xtcocotools._mask"] = importlib.import_module("pycocotools._mask")

# mmpose.models imports these for heads that no test builds; mmcv-lite has no compiled operators, and mmdet needs them.
_mmcv = importlib.util.find_spec("mmcv")
if _mmcv and not list(Path(str(_mmcv.origin)).parent.glob("_ext.*")):
    for _module, _names in {
        "mmcv.ops": ("MultiScaleDeformableAttention", "DeformConv2d", "ModulatedDeformConv2d"),
        "mmdet": (),
        "mmdet.utils": ("ConfigType", "reduce_mean"),
    }.items():
        sys.modules[_module] = types.ModuleType(_module)
        sys.modules[_module].__spec__ = importlib.machinery.ModuleSpec(_module, None)
        for _name in _names:
            setattr(sys.modules[_module], _name, type(_name, (torch.nn.Module,), {}))
