"""People from heatmaps and part affinity fields, for ``pypose-ops decode --paf``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table

import pypose_ops
from pypose_ops import viz
from pypose_ops.datasets.files import load_npz, take
from pypose_ops.errors import InputError
from pypose_ops.skeletons import Skeleton

from . import words
from .files import write_image

if TYPE_CHECKING:
    from PIL import Image

# OpenPose upsamples its maps to the input size; half of that works as well.
ENLARGE = 4


def json_points(coords: torch.Tensor) -> list[list[float] | None]:
    """Coordinate pairs for JSON, null for missing ones."""
    return [None if x != x else [x, y] for x, y in coords]


def integers(arrays: dict[str, Any], key: str, path: Path, columns: Any, limit: int, of: Any) -> list[list[int]]:
    values = take(arrays, key, path)
    if values.ndim != 2 or values.shape[1] != columns or values.dtype.kind not in "iu":
        raise InputError(f"{path}: {key} must be (L, {columns}) integers, got shape {values.shape} of {values.dtype}")
    if values.size == 0 or values.min() < 0 or values.max() >= limit:
        raise InputError(f"{path}: {key} must be from 0 to {limit - 1}, the {of}")
    return values.tolist()


def load_fields(path: Path, key: str, file: Any) -> Any:
    """Reads the fields (1, C, H, W), limbs and channels of a file."""
    if len(file.heatmaps) != 1:
        raise InputError(f"{path}: --paf decodes one image, the heatmaps are of {len(file.heatmaps)}")
    arrays = load_npz(path)
    pafs = take(arrays, key, path)
    if pafs.dtype.kind != "f" or pafs.ndim != 3 or pafs.shape[1:] != tuple(file.heatmaps.shape[2:]):
        size = "x".join(str(n) for n in file.heatmaps.shape[2:])
        raise InputError(f"{path}: {key} must be (C, H, W) floating-point maps of {size}, got shape {pafs.shape}")
    limbs = integers(arrays, "limbs", path, 2, file.heatmaps.shape[1], "heatmaps")
    if any(a == b for a, b in limbs):
        raise InputError(f"{path}: limbs must join two different joints")
    channels = None
    if "paf_channels" in arrays:
        channels = integers(arrays, "paf_channels", path, 2, len(pafs), f"channels of {key}")
        if len(channels) != len(limbs):
            raise InputError(f"{path}: paf_channels must be {len(limbs)} pairs, one for each limb, got {len(channels)}")
    elif len(pafs) != 2 * len(limbs):
        raise InputError(f"{path}: {key} must have {2 * len(limbs)} channels, or paf_channels must select them")
    return torch.from_numpy(pafs)[None], limbs, channels


def find_people(heatmaps: torch.Tensor, pafs: torch.Tensor, limbs: Any, channels: Any, threshold: float = 0.1) -> Any:
    """Groups the people of an image, in map pixels. Maps after the joints of the limbs (the background) are ignored."""
    joints = 1 + max(k for limb in limbs for k in limb)
    heatmaps, pafs = (
        torch.nn.functional.interpolate(maps.float(), scale_factor=ENLARGE, mode="bicubic")
        for maps in (heatmaps[:, :joints], pafs)
    )
    peaks = pypose_ops.find_peaks(heatmaps, threshold=threshold)
    scores = pypose_ops.score_limbs(pafs, peaks, limbs, channels=channels, fraction=0.8)
    people = pypose_ops.group_people(peaks, scores, limbs)
    return people._replace(coords=(people.coords + 0.5) / ENLARGE - 0.5)


def decode_people(args: argparse.Namespace, file: Any, image: Image.Image) -> Any:
    """Prints and draws the people of a file; returns a list for --json, the joint names and the unit."""
    pafs, limbs, channels = load_fields(args.heatmaps, args.paf, file)
    people = find_people(file.heatmaps, pafs, limbs, channels)
    count, joints = min(int(people.counts[0]), people.coords.shape[1]), people.coords.shape[2]
    names = (file.joint_names or [f"joint_{k}" for k in range(joints)])[:joints]
    hm2img, unit = file.hm2img, "image px"
    if hm2img is None and image is not None:
        hm2img = torch.from_numpy(viz.whole_image(file.heatmaps.shape[:1:-1], image.size)).float()[None]
    elif hm2img is None:
        hm2img, unit = torch.eye(3)[None, :2], "heatmap px"
    coords = people.coords[0, :count] @ hm2img[0, :, :2].T + hm2img[0, :, 2]
    table = Table("person", title=words.people(count))
    for column in ("score", "joints", "x", "y"):
        table.add_column(column, justify="right")
    for i in range(count):
        x, y = coords[i].nanmean(0).tolist()
        table.add_row(str(i), f"{people.scores[0, i]:.3f}", str(int(people.joint_counts[0, i])), f"{x:.1f}", f"{y:.1f}")
    Console().print(table)
    print(f"x and y: the mean of the joints, {unit}")
    if image is not None:
        skeleton = Skeleton("paf", tuple(names), tuple(map(tuple, limbs)), flip_pairs=(), upper_body=())
        drawn = viz.draw_pose(
            image, coords, people.joint_scores[0, :count], skeleton, threshold=min(args.threshold, 0.1)
        )
        write_image(drawn, args.out)
        print(f"wrote {args.out}")
    rows = zip(coords.tolist(), people.joint_scores[0].tolist(), people.scores[0].tolist(), strict=False)
    found = [{"keypoints": json_points(k), "scores": s, "score": score} for k, s, score in rows]
    return found, names, unit
