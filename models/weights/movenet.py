"""Reads MoveNet (Google, Apache-2.0) in TensorFlow.js format: a JSON graph with its weights in binary files."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pypose_ops.datasets.files import load_json
from pypose_ops.errors import InputError
from pypose_ops.skeletons import COCO

from .. import build
from ..systems.system import System

DTYPES = {"float32": "<f4", "int32": "<i4", "float16": "<f2", "bool": "u1", "uint8": "u1", "uint16": "<u2"}
FEATURES = "center_net_mobile_net_v2fpn_feature_extractor/model_1/"
PRESETS = {32: "movenet_lightning", 56: "movenet_thunder"}  # by the channels of the stem
HEADS = {"head": "kpt_heatmap_0", "center": "center_0", "regress": "kpt_regress_0", "offset": "kpt_offset_0"}


class TfjsGraph:
    """A graph model of TensorFlow.js.

    Args:
        path (Path): the JSON file.

    Attributes:
        nodes (dict[str, dict]): by name.
        constants (dict[str, ndarray]): constants by node name.

    Raises:
        InputError: the file is no such model, or its weight files are missing, too short or too long.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = Path(path)
        try:
            content = load_json(self.path)
            self.nodes: dict[str, dict[str, Any]] = {n["name"]: n for n in content["modelTopology"]["node"]}
            groups = content["weightsManifest"]
            self.constants: dict[str, np.ndarray] = {}
            for group in groups:
                self._read(group)
        except FileNotFoundError as error:
            raise InputError(f"{error.filename}: no such file") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.path}: expected a graph model of TensorFlow.js ({error})") from None

    def _read(self, group: dict[str, Any]) -> None:
        data, start = b"".join((self.path.parent / name).read_bytes() for name in group["paths"]), 0
        for weight in group["weights"]:
            quantised = weight.get("quantization", {})
            dtype = np.dtype(DTYPES[quantised.get("dtype", weight["dtype"])])
            count = math.prod(weight["shape"])
            values = np.frombuffer(data, dtype, count, start).reshape(weight["shape"])
            start += count * dtype.itemsize
            if "scale" in quantised:
                values = values * np.float32(quantised["scale"]) + np.float32(quantised["min"])
            self.constants[weight["name"]] = values.astype(np.float32) if weight["dtype"] == "float32" else values
        if start != len(data):
            raise ValueError(f"{', '.join(group['paths'])} has {len(data)} bytes, expected {start}")

    def convolutions(self) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
        """Yields node name, kernel and bias of every convolution."""
        for name, node in self.nodes.items():
            if "Conv2d" in node["op"] or "Conv2D" in node["op"]:
                held = [self.constants[i] for i in node["input"] if i in self.constants]
                yield name, held[0], held[1] if len(held) > 1 else None


def module_name(node: str) -> str | None:
    """The convolution of :class:`.HeatmapNet` that a node of the graph corresponds to, or None."""
    node = node.removeprefix("StatefulPartitionedCall/")
    for ours, theirs in HEADS.items():
        if node.startswith(f"{theirs}/"):
            if node.endswith("/depthwise"):
                return f"{ours}.hidden.depthwise"
            return f"{ours}.hidden.pointwise.conv" if node.endswith("Relu") else f"{ours}.out"
    if not node.startswith(FEATURES):
        return None
    node = node.removeprefix(FEATURES)
    if found := re.fullmatch(r"model/(?:expanded_conv|block_(\d+))_(expand|depthwise|project).*", node):
        return f"backbone.blocks.{found[1] or 0}.{found[2]}.conv"
    if node.startswith("model/"):
        return {"model/Conv1_relu/Relu6": "backbone.stem.conv", "model/out_relu/Relu6": "backbone.head.conv"}.get(node)
    if found := re.fullmatch(r"conv2d(?:_(\d+))?/BiasAdd", node):  # from the coarsest to the finest
        return f"pyramid.lateral.{3 - int(found[1] or 0)}.conv"
    if found := re.fullmatch(r"separable_conv2d(?:_(\d+))?/.*depthwise", node):
        return f"pyramid.merge.{2 - int(found[1] or 0)}.depthwise"
    if found := re.fullmatch(r"re_lu(?:_(\d+))?/Relu", node):
        return f"pyramid.merge.{2 - int(found[1] or 0)}.pointwise.conv"
    return None


def movenet_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a single-person MoveNet by the names of :class:`.HeatmapNet`.

    Args:
        path (Path): the JSON file of movenet-lightning or movenet-thunder, version 4, next to its ``.bin``.

    Raises:
        InputError: the file is no such model.
    """
    graph, tensors = TfjsGraph(path), {}
    for node, kernel, bias in graph.convolutions():
        name = module_name(node)
        if name is None:
            raise InputError(f"{path}: expected MoveNet, its graph has a convolution {node}")
        # Height, width, inputs, outputs; of a depthwise one height, width, channels, 1.
        order = (2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1)
        tensors[f"{name}.weight"] = torch.from_numpy(kernel.transpose(order).copy())
        if bias is not None:
            tensors[f"{name}.bias"] = torch.from_numpy(bias.copy())
    return tensors


def load_movenet(path: Path) -> tuple[System, dict[str, Any]]:
    """Builds a system from a single-person MoveNet.

    Args:
        path (Path): as :func:`movenet_tensors`.

    Returns:
        tuple[System, dict]: the system in evaluation mode, and the ``info`` of :func:`.save_weights`.

    Raises:
        InputError: the file is no such model.
    """
    tensors = movenet_tensors(path)
    try:
        preset = PRESETS[len(tensors["backbone.stem.conv.bias"])]
        system = build("heatmap_net", len(COCO), preset, people=True)
        system.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: expected MoveNet SinglePose Lightning or Thunder ({reason})") from None
    info = {"system": "heatmap_net", "preset": preset, "skeleton": COCO.name, "options": {"people": True}}
    return system.eval(), info
