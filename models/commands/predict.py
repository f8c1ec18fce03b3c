"""Find the joints of people in pictures, and draw them.

Without --boxes the whole picture is taken as one person. BOXES.json is a list of boxes for the only PICTURE, or an
object with a list for each picture's file name; a box is
  [x1, y1, x2, y2]                           two corners, picture px
  {"bbox": [x, y, w, h], "score": 0.9}       as in COCO's files; or "box" with two corners
The score of a person is that of the box times the mean of the joints'; of people found twice the better one stays
(OKS-NMS). DIR gets NAME.json and NAME.png for each picture.
"""

import inspect
import json
from pathlib import Path

import numpy as np

from pypose_ops.commands import InputError
from pypose_ops.commands.crop import parse_boxes
from pypose_ops.commands.files import read_picture, write_picture
from pypose_ops.skeletons import SKELETONS

from ..weights import load_weights
from .evaluate import device_of


def add_arguments(parser):
    parser.add_argument("pictures", metavar="PICTURE", type=Path, nargs="+")
    parser.add_argument("--weights", metavar="FILE", type=Path, required=True)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True)
    parser.add_argument("--boxes", metavar="BOXES.json", type=Path)
    parser.add_argument("--flip", action="store_true", help="look at the mirrored crop too")
    parser.add_argument("--scales", metavar="S,S", help="scales of the crop to average, where the system has that")
    parser.add_argument("--nms", type=float, default=0.9, help="OKS from which two are one (default: %(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="smallest joint score drawn (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="default: %(default)s")


def scales_of(text, system):
    """Options of ``system.poses``."""
    if text is None:
        return {}
    try:
        scales = tuple(float(s) for s in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < s < 100 for s in scales):
        raise InputError(f"--scales must be positive numbers with commas between, got {text}")
    if "scales" not in inspect.signature(system.poses).parameters:
        raise InputError(f"--scales: {type(system).__name__} has no test at several scales")
    return {"scales": scales}


def scored_boxes(path, entries):
    """Boxes (N, 4), scores (N,), rotations (N,)."""
    import torch

    boxes, rotations = parse_boxes(path, entries)
    if isinstance(entries, dict):
        entries = entries["boxes"]
    try:
        scores = torch.tensor([float(e.get("score", 1.0)) if isinstance(e, dict) else 1.0 for e in entries])
    except (TypeError, ValueError):
        raise InputError(f"{path}: a score must be a number") from None
    return boxes, scores, rotations


def boxes_by_picture(path, pictures):
    """``{picture: (boxes (N, 4), scores (N,), rotations (N,))}``."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: expected json") from None
    named = isinstance(content, dict) and "boxes" not in content
    if not named and len(pictures) > 1:
        raise InputError(f"{path}: expected an object with a list for each of the {len(pictures)} pictures")
    lists = content if named else {pictures[0].name: content}
    found = {}
    for picture in pictures:
        if picture.name not in lists:
            raise InputError(f"{path}: no boxes for {picture.name}, it has {', '.join(lists)[:80] or 'none'}")
        found[picture] = scored_boxes(path, lists[picture.name])
    return found


def find_people(
    system, skeleton, image, boxes, scores, rotations, *, padding, nms=0.9, flip=False, device="cpu", **options
):
    """The people in boxes of one picture.

    Args:
        image (Tensor): ``(3, H, W)`` uint8.
        boxes, scores, rotations (Tensor): ``(N, 4)``, ``(N,)``, ``(N,)`` degrees.
        padding (float): by how much the crop is larger than the box.
        nms (float): OKS from which two people are one.

    Returns:
        tuple: joints ``(M, K, 2)`` in picture pixels, their scores ``(M, K)``, people's scores ``(M,)``, highest first,
        and which boxes they are of.
    """
    import torch

    from pypose_ops import crop_patches, geometry, oks_nms

    image, boxes = image.to(device), boxes.float().to(device)
    center, scale = geometry.box_to_center_and_scale(boxes, system.input_size, padding=padding)
    transforms = geometry.box_to_transform(
        center, scale, rotations.float().to(device), system.input_size, align="center"
    )
    crops = crop_patches(
        image[None], transforms, system.input_size, mean=tuple(system.mean), std=tuple(system.std), antialias=True
    )
    pairs = list(skeleton.flip_pairs) if flip else None
    with torch.no_grad():
        peaks = system.poses(crops, flip_pairs=pairs, **options)[-1]
    coords, joint_scores = geometry.transform_points(peaks.coords.float(), transforms), peaks.scores.float()
    coords = coords.where(joint_scores[..., None] > 0, float("nan"))
    people = scores.float().to(device) * joint_scores.mean(1)
    sigmas = skeleton.sigmas or (0.08,) * len(skeleton)  # LSP defines none: about the mean of COCO's body
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = oks_nms(coords.nan_to_num(), people, area, sigmas=sigmas, threshold=nms).mask
    order = people.masked_fill(~kept, -1).argsort(descending=True, stable=True)[: int(kept.sum())]
    return coords[order].cpu(), joint_scores[order].cpu(), people[order].cpu(), order.cpu()


def run(args):
    import torch

    from pypose_ops import viz

    if not 0 < args.nms <= 1:
        raise InputError(f"--nms must be from 0 to 1, got {args.nms}")
    device = device_of(args.device)
    system, info = load_weights(args.weights)
    system.to(device)
    skeleton, options = SKELETONS[info["skeleton"]], scales_of(args.scales, system)
    boxes = boxes_by_picture(args.boxes, args.pictures) if args.boxes else {}
    if len({p.stem for p in args.pictures}) < len(args.pictures):
        raise InputError("PICTURE: two have the same name, and would be written to the same file")
    for path in args.pictures:
        picture = read_picture(path)
        whole = torch.tensor([[-0.5, -0.5, picture.width - 0.5, picture.height - 0.5]]), torch.ones(1), torch.zeros(1)
        found = find_people(
            system, skeleton, torch.from_numpy(np.array(picture)).permute(2, 0, 1), *boxes.get(path, whole),
            padding=1.25 if args.boxes else 1.0, nms=args.nms, flip=args.flip, device=device, **options,
        )  # fmt: skip
        people = [
            {
                "box": int(box),
                "score": score,
                "keypoints": [None if x != x else [x, y] for x, y in joints],
                "scores": each,
            }
            for joints, each, score, box in zip(*(t.tolist() for t in found), strict=True)
        ]
        drawn = viz.draw_pose(picture, found[0], found[1], skeleton, threshold=args.threshold)
        write_picture(drawn, args.out / f"{path.stem}.png")
        text = json.dumps({"picture": path.name, "joints": skeleton.joints, "people": people}, indent=1)
        (args.out / f"{path.stem}.json").write_text(text + "\n")
        print(f"{path}: {len(people)} people, wrote {args.out / path.stem}.png and .json")
