"""Exports trained systems as programs from an image and boxes to joints and scores, and runs them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pypose_ops.errors import InputError

from .inference import Poses, best_people
from .systems.system import System
from .weights.files import skeleton_of

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

FORMATS = ("onnx", "pt2", "aoti")
INPUTS, OUTPUTS = ("image", "boxes"), ("joints", "scores")
_LARGEST_SIDE, _MOST_BOXES = 16384, 1024
_METADATA = "pypose_ops"  # the entry with all metadata, as JSON


def export_poses(
    system: System,
    info: dict[str, Any],
    path: str | os.PathLike[str],
    *,
    format: str,
    flip: bool = False,
    boxes: int | None = None,
    padding: float = 1.25,
) -> Path:
    """Exports network, flip test, decoding and affine transform as one program.

    Its inputs are ``image (H, W, 3)`` uint8 of any size and ``boxes (N, 4)`` float32, two corners in image pixels; its
    outputs ``joints (N, K, 2)`` in image pixels, NaN where none was found, and ``scores (N, K)``. Its
    metadata name system, skeleton, joints, input size, mean and standard deviation.

    Args:
        system (System): exported in the precision of its parameters.
        info (dict): the metadata of its weight file.
        path (path): of the file.
        format (str): ``"onnx"``; ``"pt2"``, of ``torch.export``; or ``"aoti"``, compiled by AOTInductor for the device
            that the system is on.
        flip (bool): include the flip test.
        boxes (int, optional): a fixed N. None: any number up to 1024.
        padding (float): size of the crop relative to the box.

    Raises:
        ValueError: an unknown format; what ONNX cannot express, see :func:`pypose_ops.onnx.export`.
    """
    if format not in FORMATS:
        raise ValueError(f"export_poses: format must be one of {', '.join(FORMATS)}, got {format!r}")
    skeleton = skeleton_of(info)
    module = Poses(system.eval(), skeleton, padding=padding, flip=flip)
    device = next(system.parameters()).device
    example = torch.zeros(64, 48, 3, dtype=torch.uint8), torch.tensor([[4.0, 4.0, 40.0, 60.0]]).repeat(boxes or 2, 1)
    example = tuple(tensor.to(device) for tensor in example)
    metadata = {
        "system": info["system"], "skeleton": info["skeleton"], "joints": list(skeleton.joints),
        "input_size": list(system.input_size), "mean": list(system.mean), "std": list(system.std),
        "calibration": info.get("calibration"), "padding": padding, "flip": flip, "boxes": boxes,
        "dtype": str(next(system.parameters()).dtype).removeprefix("torch."), "device": device.type,
    }  # fmt: skip
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{path.name}")  # whole or not at all
    try:
        with torch.no_grad():
            _WRITERS[format](module, example, part, boxes, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _sizes(boxes: torch.Tensor, dim: Any) -> Any:
    """Image and boxes: which sizes are dynamic; ``dim(name, most)``."""
    return {0: dim("height", _LARGEST_SIDE), 1: dim("width", _LARGEST_SIDE)}, (
        {0: dim("count", _MOST_BOXES)} if boxes is None else None
    )


def _write_onnx(
    module: nn.Module, example: tuple[Any, ...], path: Path, boxes: torch.Tensor, metadata: dict[str, Any]
) -> None:
    import pypose_ops.onnx  # imported here: it needs an extra

    pypose_ops.onnx.export(
        module, example, path, input_names=INPUTS, output_names=OUTPUTS,
        dynamic_shapes=_sizes(boxes, lambda name, most: torch.export.Dim.DYNAMIC),
        metadata={_METADATA: json.dumps(metadata)},
    )  # fmt: skip


def _exported(module: nn.Module, example: tuple[Any, ...], boxes: torch.Tensor) -> Any:
    sizes = _sizes(boxes, lambda name, most: torch.export.Dim(name, min=1, max=most))
    return torch.export.export(module, example, dynamic_shapes=sizes)


def _write_pt2(
    module: nn.Module, example: tuple[Any, ...], path: Path, boxes: torch.Tensor, metadata: dict[str, Any]
) -> None:
    torch.export.save(_exported(module, example, boxes), path, extra_files={_METADATA: json.dumps(metadata)})


def _write_aoti(
    module: nn.Module, example: tuple[Any, ...], path: Path, boxes: torch.Tensor, metadata: dict[str, Any]
) -> None:
    torch._inductor.aoti_compile_and_package(
        _exported(module, example, boxes),
        package_path=str(path),
        inductor_configs={"aot_inductor.metadata": {_METADATA: json.dumps(metadata)}},
    )


_WRITERS = {"onnx": _write_onnx, "pt2": _write_pt2, "aoti": _write_aoti}


def checked_inputs(
    name: str, metadata: dict[str, Any], image: torch.Tensor, boxes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Checks an image and boxes and makes them contiguous: a compiled program would silently misread others.

    Raises:
        ValueError: a wrong dtype, size or number of boxes, or another device.
    """
    for what, tensor, dtype, shape in (
        ("image", image, torch.uint8, "(H, W, 3)"),
        ("boxes", boxes, torch.float32, "(N, 4)"),
    ):
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != dtype:
            found = getattr(tensor, "dtype", type(tensor).__name__)
            raise ValueError(f"{name}: {what} must be a {str(dtype).removeprefix('torch.')} tensor, got {found}")
        if tensor.device.type != metadata["device"]:
            raise ValueError(f"{name}: {what} must be on {metadata['device']}, got {tensor.device}")
        if tensor.dim() != len(shape.split(",")) or tensor.shape[-1] != int(shape[-2]):
            raise ValueError(f"{name}: {what} must be {shape}, got shape {tuple(tensor.shape)}")
    if not all(1 <= n <= _LARGEST_SIDE for n in image.shape[:2]):
        raise ValueError(f"{name}: image must have 1 to {_LARGEST_SIDE} pixels a side, got {tuple(image.shape)}")
    least, most = (1, _MOST_BOXES) if metadata["boxes"] is None else (metadata["boxes"],) * 2
    if not least <= len(boxes) <= most:
        wanted = f"{least} to {most}" if most > least else most
        raise ValueError(f"{name}: boxes must be {wanted} boxes, got {len(boxes)}")
    return image.contiguous(), boxes.contiguous()


class Program:
    """A program written by :func:`export_poses`: ``program(image, boxes)`` returns joints and scores.

    Attributes:
        metadata (dict): the metadata of the file.
    """

    metadata: dict[str, Any]
    name = "Program"

    def __call__(self, image: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joints, scores = self._run(*checked_inputs(self.name, self.metadata, image, boxes))
        return joints, scores

    def _run(self, image: Image.Image, boxes: torch.Tensor) -> Sequence[torch.Tensor]:
        raise NotImplementedError


def program_people(
    program: Any,
    image: Image.Image,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    rotations: float = 0.0,
    scale: float = 1.0,
    nms: float = 0.9,
) -> Any:
    """:func:`.inference.find_people` by a program.

    Args:
        program (Program): of :func:`export_poses`.
        image: PIL image, or an ``(H, W, 3)`` uint8 array or tensor.
        boxes, scores, rotations: as there; programs support upright boxes only.
        scale (float): factor by which boxes are enlarged around their centres first.
        nms (float): as there.
    """
    if torch.as_tensor(rotations).any():
        raise InputError("rotated boxes need weights: a program crops upright boxes only")
    skeleton = skeleton_of(program.metadata)
    image, boxes = torch.from_numpy(np.array(image)), boxes.float()
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (scale / 2)
    crops, fixed = torch.cat([middle - half, middle + half], 1), program.metadata["boxes"]
    parts = []
    for part in crops.split(fixed or _MOST_BOXES) if len(crops) else ():
        full = part if fixed is None else torch.cat([part, part[:1].expand(fixed - len(part), 4)])
        parts.append([out[: len(part)] for out in program(image, full)])
    if len(boxes) == 0:
        joints = len(program.metadata["joints"])
        parts = [(torch.zeros(0, joints, 2), torch.zeros(0, joints))]
    coords, joint_scores = (torch.cat(each) for each in zip(*parts, strict=True))
    return best_people(skeleton, coords, joint_scores, boxes, scores, nms=nms)


class OnnxProgram(Program):
    """An ONNX file run by ONNX Runtime on the CPU, or by OpenVINO (``runtime="openvino"``), in float32."""

    metadata: dict[str, Any]
    compiled: Any  # OpenVINO's model

    name = "OnnxProgram"

    def __init__(self, path: str | os.PathLike[str], *, runtime: str = "onnxruntime") -> None:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file")
        if runtime not in ("onnxruntime", "openvino"):
            raise ValueError(f"OnnxProgram: runtime must be onnxruntime or openvino, got {runtime!r}")
        (self._load_openvino if runtime == "openvino" else self._load_onnxruntime)(str(path))

    def _load_onnxruntime(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError(f"{path}: needs onnxruntime, pip install pypose_ops[onnx]") from None
        try:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"{path}: ONNX Runtime cannot read it ({_one_line(error)})") from None
        self.metadata = _metadata_of(path, session.get_modelmeta().custom_metadata_map.get(_METADATA))
        self._infer = lambda arrays: session.run(list(OUTPUTS), dict(zip(INPUTS, arrays, strict=True)))

    def _load_openvino(self, path: Path) -> None:
        try:
            import openvino
        except ImportError:
            raise InputError(f"{path}: needs openvino, pip install pypose_ops[openvino]") from None
        try:
            model = openvino.Core().read_model(path)
            # Otherwise CPUs with bfloat16 compute in it, and joints are off by pixels.
            self.compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except Exception as error:
            raise InputError(f"{path}: OpenVINO cannot read it ({_one_line(error)})") from None
        entry = ["framework", _METADATA]
        self.metadata = _metadata_of(path, model.get_rt_info(entry).value if model.has_rt_info(entry) else None)

        def infer(arrays: dict[str, Any]) -> Any:
            outputs = self.compiled(dict(zip(INPUTS, arrays, strict=True)))
            return [np.array(outputs[name]) for name in OUTPUTS]

        self._infer = infer

    def _run(self, image: Image.Image, boxes: torch.Tensor) -> Any:
        return [torch.from_numpy(array) for array in self._infer([image.numpy(), boxes.numpy()])]


class CompiledProgram(Program):
    """A package of AOTInductor, which checks nothing itself: layouts, dtypes and sizes are checked here."""

    name = "CompiledProgram"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file")
        try:
            self._package = torch._inductor.aoti_load_package(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: AOTInductor cannot load it ({_one_line(error)})") from None
        self.metadata: dict[str, Any] = _metadata_of(path, self._package.loader.get_metadata().get(_METADATA))

    def _run(self, image: Image.Image, boxes: torch.Tensor) -> Any:
        return self._package(image, boxes)


def _metadata_of(path: Path, text: str | None) -> Any:
    try:
        metadata = json.loads(text)
        skeleton_of(metadata, path)
        return metadata
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{path}: expected a file written by pypose-ops export, it has no such metadata") from None


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:200]
