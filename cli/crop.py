"""Crop boxes from an image: one file per box, and a contact sheet.

BOXES.json is a list, or an object with the list under "boxes"; each entry is
  [x1, y1, x2, y2]             two corners, image px
  {"box": [x1, y1, x2, y2]}    the same
  {"bbox": [x, y, w, h]}       as in COCO's annotation files
and an object may have "rotation", in degrees from x towards y. Boxes are padded and extended to the aspect ratio of the
crops.

Writes DIR/crop-0000.png and so on, contact.png, and crops.json with the box and the affine transform crop px -> image
px of each crop.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from pypose_ops import crop_patches, geometry
from pypose_ops.datasets.files import FAR, check_outputs, load_json, write_json
from pypose_ops.errors import InputError

from .files import read_image, write_image

PADDINGS = ("zeros", "border", "reflect")
BATCH = 64  # crops per batch


def image_size(text: str) -> tuple[int, int]:
    """Parses HEIGHTxWIDTH, such as 256x192."""
    try:
        height, width = (int(n) for n in text.lower().split("x"))
    except ValueError:
        height = width = 0
    if not (0 < height <= 8192 and 0 < width <= 8192):
        raise InputError(f"--size must be HEIGHTxWIDTH, from 1 to 8192 a side, got {text!r}")
    return height, width


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", type=Path)
    parser.add_argument("--boxes", metavar="BOXES.json", type=Path, required=True)
    parser.add_argument("--size", metavar="HxW", default="256x192", help="height x width (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True)
    parser.add_argument(
        "--scale", type=float, default=1.25, help="factor by which boxes are enlarged (default: %(default)s)"
    )
    parser.add_argument("--align", choices=geometry.ALIGNS, default="center", help="default: %(default)s")
    parser.add_argument(
        "--padding", choices=PADDINGS, default="zeros", help="pixels outside the image (default: %(default)s)"
    )
    parser.add_argument("--flip", action="store_true", help="mirror the crops horizontally")


def load_boxes(path: Path) -> Any:
    """Boxes (N, 4) as two corners, and rotations (N,) in degrees, float64."""
    return parse_boxes(path, load_json(path))


def parse_boxes(path: Path, entries: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`load_boxes`, from the parsed JSON."""
    if isinstance(entries, dict):
        entries = entries.get("boxes")
    if not isinstance(entries, list) or not entries:
        raise InputError(f'{path}: must be a list of boxes that is not empty, or {{"boxes": [...]}}')
    boxes, rotations = zip(*(_entry(path, i, entry) for i, entry in enumerate(entries)), strict=True)
    return torch.tensor(boxes, dtype=torch.float64), torch.tensor(rotations, dtype=torch.float64)


def _entry(path: Path, i: Any, entry: Any) -> Any:
    rotation, corners = 0.0, entry
    if isinstance(entry, dict):
        rotation, corners = entry.get("rotation", 0.0), entry.get("box", entry.get("bbox"))
    try:
        x1, y1, x2, y2 = map(float, corners)
        rotation = float(rotation)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: box {i} must be four numbers, got {json.dumps(entry)[:80]}") from None
    if isinstance(entry, dict) and "box" not in entry:
        x2, y2 = x1 + x2, y1 + y2
    numbers = (x1, y1, x2, y2, rotation)
    if not (all(math.isfinite(n) and abs(n) <= FAR for n in numbers) and x2 > x1 and y2 > y1):
        raise InputError(f"{path}: box {i} must be finite and not empty, got {json.dumps(entry)[:80]}")
    return (x1, y1, x2, y2), rotation


def check_inside(image: Image.Image, path: Path, boxes: torch.Tensor) -> None:
    """Refuses boxes that show nothing of their image, however they are rotated: they are another image's."""
    center, reach = boxes.unflatten(1, (2, 2)).mean(1), (boxes[:, 2:] - boxes[:, :2]).norm(dim=1, keepdim=True) / 2
    outside = ((center + reach <= -0.5) | (center - reach >= torch.tensor(image.size) - 0.5)).any(1)
    if outside.any():
        i = int(outside.long().argmax())
        box = ", ".join(f"{number:g}" for number in boxes[i].tolist())
        raise InputError(f"{path}: box {i} ({box}) is outside of the image of {image.width}x{image.height}")


def contact_sheet(crops: Any, columns: Any = None, gap: int = 4) -> Image.Image:
    """Images of one size in rows, the longer side at most 192 px each."""
    width, height = crops[0].size
    shrink = min(1.0, 192 / max(width, height))
    tile = max(1, round(width * shrink)), max(1, round(height * shrink))
    columns = min(len(crops), columns or max(1, round(math.sqrt(len(crops) * 1.5))))
    rows = -(-len(crops) // columns)
    sheet = Image.new("RGB", (columns * (tile[0] + gap) + gap, rows * (tile[1] + gap) + gap), "white")
    for i, crop in enumerate(crops):
        at = gap + i % columns * (tile[0] + gap), gap + i // columns * (tile[1] + gap)
        sheet.paste(crop.resize(tile, Image.Resampling.BOX), at)
    return sheet


def run(args: argparse.Namespace) -> None:
    size = image_size(args.size)
    if not (math.isfinite(args.scale) and args.scale > 0):
        raise InputError(f"--scale must be positive, got {args.scale}")
    if args.align == "corners" and min(size) < 2:
        raise InputError(f"--align corners needs a --size of at least 2x2, got {args.size}")
    boxes, rotations = load_boxes(args.boxes)
    names = [f"crop-{i:04d}.png" for i in range(len(boxes))] + ["contact.png", "crops.json"]
    check_outputs([args.out / name for name in names], [args.image, args.boxes])
    opened = read_image(args.image)
    check_inside(opened, args.image, boxes)
    image = torch.from_numpy(np.array(opened)).permute(2, 0, 1)[None]
    center, scale = geometry.box_to_center_and_scale(boxes, size, padding=args.scale)
    transforms = geometry.box_to_transform(center, scale, rotations, size, align=args.align, flip=args.flip)
    crops, index = [], []
    for i in track(range(len(boxes)), description=f"cutting {len(boxes)} boxes", transient=True):
        if i % BATCH == 0:
            patches = crop_patches(
                image, transforms[i : i + BATCH], size, padding=args.padding, antialias=True, dtype=torch.uint8
            )
        path = args.out / f"crop-{i:04d}.png"
        crops.append(Image.fromarray(patches[i % BATCH].permute(1, 2, 0).contiguous().numpy()))
        write_image(crops[-1], path)
        index.append({"file": path.name, "box": boxes[i].tolist(), "crop_to_image": transforms[i].tolist()})
    write_image(contact_sheet(crops), args.out / "contact.png")
    write_json(args.out / "crops.json", index)
    print(f"wrote {len(crops)} crop{'s' * (len(crops) != 1)}, contact.png and crops.json to {args.out}")
