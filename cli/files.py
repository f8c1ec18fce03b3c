"""Reading and writing users' files: everything that is wrong with one becomes a one-line InputError."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps

from pypose_ops.datasets.arrays import load_npz, take
from pypose_ops.errors import InputError


@dataclass
class HeatmapFile:
    """Heatmaps (B, K, H, W), ``hm2img`` (B, 2, 3) or None, joint names or None, and the file's own notes."""

    heatmaps: torch.Tensor
    hm2img: torch.Tensor | None
    joint_names: list[str] | None
    meta: dict


def load_heatmaps(path, key="heatmaps"):
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
        if not np.isfinite(hm2img).all() or (np.abs(np.linalg.det(hm2img[..., :2])) < 1e-12).any():
            raise InputError(f"{path}: hm2img must be finite and invertible")
        hm2img = torch.from_numpy(np.broadcast_to(hm2img, (people, 2, 3)).astype(np.float32))

    names = arrays.get("joint_names")
    if names is not None and (names.shape != (joints,) or names.dtype.kind != "U"):
        raise InputError(f"{path}: joint_names must be {joints} strings, got shape {names.shape} of {names.dtype}")
    try:
        meta = json.loads(str(arrays.get("meta", "{}")))
    except json.JSONDecodeError:
        raise InputError(f"{path}: meta is not json") from None
    return HeatmapFile(torch.from_numpy(heatmaps), hm2img, None if names is None else names.tolist(), meta)


def read_picture(path, upright=False):
    """A picture as an RGB PIL image; with ``upright`` turned as its EXIF says it was taken."""
    try:
        with Image.open(path) as image:
            return (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(f"{path}: not a readable picture") from None


def write_picture(image, path):
    """Writes a picture; the folder is made when it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({error})") from None
