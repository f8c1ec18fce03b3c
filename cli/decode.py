"""Decode a file of heatmaps to joints, and draw them on the image.

HEATMAPS.npz contains
  heatmaps     (K, H, W) or (B, K, H, W), float16, float32 or float64 (another name: --key)
  hm2img       optional (2, 3) or (B, 2, 3): affine heatmap px -> image px, pixel centres at integers;
               without it coordinates are heatmap px; with --image the maps are assumed to cover the image
  joint_names  optional K strings; default: the names of --skeleton
  meta         optional JSON text, copied to --json

With --paf NAME the heatmaps cover a whole image with several people, and the file also contains
  NAME          (C, H, W) part affinity fields
  limbs         (L, 2) joint numbers; maps after the last joint (the background) are ignored
  paf_channels  optional (L, 2): channels of the x and the y component of each limb; default: 0 1, 2 3, ...
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table

from pypose_ops import decode_heatmaps, viz
from pypose_ops.datasets.files import check_outputs, write_json
from pypose_ops.datasets.skeleton_files import skeleton_named
from pypose_ops.errors import InputError
from pypose_ops.ops.decode_heatmaps import REFINES
from pypose_ops.skeletons import SKELETONS, Skeleton, joint_map

from .files import load_heatmaps, read_image, write_image
from .people import decode_people, json_points

if TYPE_CHECKING:
    from PIL import Image

REFINE = {str(refine or "none"): refine for refine in REFINES}  # their names on the command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("heatmaps", metavar="HEATMAPS.npz", type=Path)
    parser.add_argument("--key", default="heatmaps", help="the array to decode (default: %(default)s)")
    parser.add_argument("--image", metavar="IMAGE", type=Path, help="the image the maps were computed from")
    parser.add_argument(
        "--out", metavar="OUT.png", type=Path, help="write the image with the pose; the maps go to OUT-heatmaps.png"
    )
    parser.add_argument("--refine", choices=REFINE, default="dark", help="sub-pixel step (default: %(default)s)")
    parser.add_argument("--skeleton", help="a name, or FILE.toml; default: the skeleton with this number of joints")
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="minimum score of drawn joints (default: %(default)s)"
    )
    parser.add_argument("--paf", metavar="NAME", help="group several people by these part affinity fields")
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write the joints to a JSON file")


def find_skeleton(names: Sequence[str] | None, count: int, wanted: str | None = None) -> tuple[Skeleton, Sequence[str]]:
    """The skeleton for drawing, and the joint names of the maps.

    Named maps may be in any order; unnamed ones are in the order of the skeleton.
    """
    candidates = [skeleton_named(wanted)] if wanted else list(SKELETONS.values())
    if names is not None:
        maps = {skeleton.name: joint_map(names, skeleton.joints) for skeleton in candidates}
        # The skeleton with the fewest missing joints; among those, the one with most of the maps.
        return min(candidates, key=lambda s: (maps[s.name].count(-1), -len(s))), names
    fitting = [skeleton for skeleton in candidates if len(skeleton) == count]
    if len(fitting) > 1:
        raise InputError(f"{count} maps could be {' or '.join(s.name for s in fitting)}: choose with --skeleton")
    if not fitting and wanted:
        raise InputError(f"--skeleton {wanted} has {len(candidates[0])} joints, the file has {count} maps")
    if not fitting:
        names = tuple(f"joint_{k}" for k in range(count))
        fitting = [Skeleton("unknown", names, edges=(), flip_pairs=(), upper_body=())]
    return fitting[0], list(fitting[0].joints)


def draw(
    image: Image.Image,
    heatmaps: torch.Tensor,
    peaks: Any,
    names: Sequence[str],
    skeleton: Skeleton,
    hm2img: Any,
    out: Path,
    threshold: float = 0.2,
) -> list[Path]:
    """Writes the pose image and, per person, the heatmap image; returns the paths."""
    index = joint_map(names, skeleton.joints)
    scores = peaks.scores[:, index].clone()
    scores[:, [k for k, i in enumerate(index) if i < 0]] = float("-inf")
    write_image(viz.draw_pose(image, peaks.coords[:, index], scores, skeleton, threshold=threshold), out)
    paths = [out]
    for i, maps in enumerate(heatmaps):
        number = f"-{i}" if len(heatmaps) > 1 else ""
        paths.append(heatmaps_path(out, number))
        montage = viz.heatmap_montage(
            image, maps, hm2img[i], names=names, keypoints=peaks.coords[i], scores=peaks.scores[i]
        )
        write_image(montage, paths[-1])
    return paths


def heatmaps_path(out: Path, number: str = "") -> Path:
    """Where the drawing of a person's maps goes."""
    return out.with_name(f"{out.stem}-heatmaps{number}{out.suffix}")


def print_joints(peaks: Any, names: Sequence[str], unit: str) -> None:
    """A table of joints per person."""
    for i, (coords, scores) in enumerate(zip(peaks.coords.tolist(), peaks.scores.tolist(), strict=True)):
        table = Table("joint", title=f"person {i}, {unit}" if len(peaks.coords) > 1 else unit)
        for column in ("x", "y", "score"):
            table.add_column(column, justify="right")
        for name, (x, y), score in zip(names, coords, scores, strict=True):
            table.add_row(name.replace("_", " "), f"{x:.2f}", f"{y:.2f}", f"{score:.3f}")
        Console().print(table)


def run(args: argparse.Namespace) -> None:
    if (args.image is None) != (args.out is None):
        raise InputError("--image and --out go together")
    inputs = [args.heatmaps, args.image, args.skeleton]
    check_outputs([args.json] if args.json else [], inputs, "--json")
    check_outputs([args.out, heatmaps_path(args.out)] if args.out else [], inputs)
    file = load_heatmaps(args.heatmaps, args.key)
    if args.out and len(file.heatmaps) > 1:
        numbered = [heatmaps_path(args.out, f"-{i}") for i in range(len(file.heatmaps))]
        check_outputs(numbered, inputs)
    image = None if args.image is None else read_image(args.image)
    if args.paf is not None:
        people, names, unit = decode_people(args, file, image)
    else:
        people, names, unit = decode_person(args, file, image)
    if args.json is not None:
        result = {"joints": names, "unit": unit, "refine": args.refine, "people": people, "meta": file.meta}
        write_json(args.json, result, parents=False)
        print(f"wrote {args.json}")


def decode_person(args: argparse.Namespace, file: Any, image: Image.Image) -> Any:
    """Prints, draws and returns the joints of maps with one person each."""
    skeleton, names = find_skeleton(file.joint_names, file.heatmaps.shape[1], args.skeleton)
    hm2img, unit = file.hm2img, "image px"
    if hm2img is None and image is not None:
        hm2img = torch.from_numpy(viz.whole_image(file.heatmaps.shape[:1:-1], image.size)).float()
        hm2img = hm2img.expand(len(file.heatmaps), 2, 3)
    elif hm2img is None:
        unit = "heatmap px"
    peaks = decode_heatmaps(file.heatmaps, refine=REFINE[args.refine], transform=hm2img)
    print_joints(peaks, names, unit)
    if image is not None:
        for path in draw(image, file.heatmaps, peaks, names, skeleton, hm2img, args.out, args.threshold):
            print(f"wrote {path}")
    rows = zip(peaks.coords.tolist(), peaks.scores.tolist(), strict=True)
    people = [{"keypoints": json_points(k), "scores": s} for k, s in rows]
    return people, names, unit
