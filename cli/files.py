"""Reads and writes users' files; problems are reported as one-line InputErrors."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pypose_ops.datasets.files import load_npz, take, write_bytes
from pypose_ops.datasets.images import ImageError, ImageFile
from pypose_ops.errors import InputError

# PNG's level 1 takes a quarter of the time of Pillow's default, 6, for files a tenth larger.
_ENCODING: dict[str, dict[str, int]] = {"PNG": {"compress_level": 1}, "JPEG": {"quality": 95, "subsampling": 0}}


@dataclass
class HeatmapFile:
    """Heatmaps (B, K, H, W), ``hm2img`` (B, 2, 3) or None, joint names or None, and the metadata of the file."""

    heatmaps: torch.Tensor
    hm2img: torch.Tensor | None
    joint_names: list[str] | None
    meta: dict[str, Any]


def load_heatmaps(path: Path, key: str = "heatmaps") -> HeatmapFile:
    """Reads a heatmap file: see ``pypose-ops decode --help`` for its layout."""
    arrays = load_npz(path)
    heatmaps = take(arrays, key, path)
    if heatmaps.dtype.kind != "f" or heatmaps.dtype.itemsize > 8:
        raise InputError(f"{path}: {key} must be a float16, float32 or float64 array, got {heatmaps.dtype}")
    if heatmaps.ndim not in (3, 4) or 0 in heatmaps.shape:
        raise InputError(f"{path}: {key} must be (K, H, W) or (B, K, H, W) and not empty, got shape {heatmaps.shape}")
    heatmaps = heatmaps.reshape(-1, *heatmaps.shape[-3:])
    people, joints = heatmaps.shape[:2]

    hm2img = arrays.get("hm2img")
    if hm2img is not None:
        if hm2img.shape not in {(2, 3), (people, 2, 3)} or hm2img.dtype.kind not in "fiu":
            raise InputError(f"{path}: hm2img must be (2, 3) or ({people}, 2, 3) numbers, got shape {hm2img.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            hm2img = hm2img.astype(np.float32)
            areas = np.abs(np.linalg.det(hm2img[..., :2].astype(np.float64)))
        if not np.isfinite(hm2img).all() or not (areas >= 1e-12).all():
            raise InputError(f"{path}: hm2img must be finite and invertible")
        hm2img = torch.from_numpy(np.broadcast_to(hm2img, (people, 2, 3)).copy())

    names = arrays.get("joint_names")
    if names is not None and (names.shape != (joints,) or names.dtype.kind != "U"):
        raise InputError(f"{path}: joint_names must be {joints} strings, got shape {names.shape} of {names.dtype}")
    try:
        meta = json.loads(str(arrays.get("meta", "{}")))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: meta is not json") from None
    return HeatmapFile(torch.from_numpy(heatmaps), hm2img, None if names is None else names.tolist(), meta)


def read_image(path: Path) -> Image.Image:
    """Reads an upright RGB PIL image, as the data sets do."""
    try:
        image, frames = ImageFile(str(path)).upright_of()
        if frames > 1:
            print(f"{path}: {frames} frames; the first is used")
        return image
    except ImageError as error:
        raise InputError(str(error)) from None


def write_image(image: Image.Image, path: Path) -> None:
    """Writes an image atomically; creates the folder if missing."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: cannot be written (unknown image format {path.suffix!r})")
    data = io.BytesIO()
    try:
        image.save(data, format=kind, **_ENCODING.get(kind, {}))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({error})") from None
    write_bytes(path, data.getvalue())
