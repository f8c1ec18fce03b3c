"""Find the joints of people in pictures, and draw them.

Pictures are turned upright as their EXIF says; pixels below are those of the upright picture. Without --boxes everybody
is looked for; with --whole a picture is one person, who fills it. BOXES.json is a list of boxes for the only PICTURE,
or an object with a list for each of the file names; a box is
  [x1, y1, x2, y2]                           two corners, picture px
  {"bbox": [x, y, w, h], "score": 0.9}       as in COCO's files; or "box" with two corners
and reaches out of the picture where the person does. The score of a person is that of the box times the mean of the
joints'; of people found twice the better one stays (OKS-NMS). DIR gets NAME.json and NAME.png for each picture; the
person's left side is drawn orange, the right side blue.
"""

import inspect
import json
from pathlib import Path

from pypose_ops.errors import InputError
from pypose_ops.models.calibration import calibration_of
from pypose_ops.models.deployment import OnnxProgram, program_people
from pypose_ops.models.inference import find_people
from pypose_ops.models.person_finder import find_boxes, finder_of
from pypose_ops.models.weights.files import open_weights
from pypose_ops.skeletons import SKELETONS

from .crop import parse_boxes
from .files import read_picture, write_picture
from .test import WEIGHTS, device_of


def add_arguments(parser):
    parser.add_argument("pictures", metavar="PICTURE", type=Path, nargs="+")
    parser.add_argument("--weights", metavar="NAME|FILE", default="coco17", help=WEIGHTS)
    parser.add_argument(
        "--model", metavar="FILE.onnx", type=Path, help="of export, by ONNX Runtime, instead of weights"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out/predict"), help="default: %(default)s")
    people = parser.add_mutually_exclusive_group()
    people.add_argument("--boxes", metavar="BOXES.json", type=Path, help="default: people are looked for")
    people.add_argument("--whole", action="store_true", help="each picture is one person")
    parser.add_argument(
        "--people",
        metavar="P",
        type=float,
        default=0.3,
        help="least probability of a person found (default: %(default)s)",
    )
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


def check_written(pictures, out):
    """No result may replace another one, or a picture of the user's."""
    if len({p.stem for p in pictures}) < len(pictures):
        raise InputError("PICTURE: two have the same name, and would be written to the same file")
    for path in pictures:
        drawn = out / f"{path.stem}.png"
        if path.exists() and drawn.exists() and path.samefile(drawn):
            raise InputError(f"--out {out}: {path} would be overwritten, expected another folder")


def write_people(picture, name, found, skeleton, path, threshold, calibration=None):
    """Draws ``path.png`` and writes ``path.json`` of what :func:`find_people` found."""
    from pypose_ops import viz

    probabilities = found[1] if calibration is None else calibration.probabilities(found[1])
    more = [{} if calibration is None else {"probabilities": each} for each in probabilities.tolist()]

    people = [
        {
            "box": int(box),
            "score": score,
            "keypoints": [None if x != x else [x, y] for x, y in joints],
            "scores": each,
        }
        | probable
        for joints, each, score, box, probable in zip(*(t.tolist() for t in found), more, strict=True)
    ]
    drawn = viz.draw_pose(picture, found[0], found[1], skeleton, threshold=threshold)
    write_picture(drawn, path.with_name(f"{path.name}.png"))
    text = json.dumps({"picture": name, "joints": skeleton.joints, "people": people}, indent=1)
    path = path.with_name(f"{path.name}.json")
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def people_of(args, system, pictures):
    """A function from an image and its path to boxes (N, 4), scores (N,), rotations (N,) of the people in it."""
    import torch

    if args.boxes:
        boxes = boxes_by_picture(args.boxes, pictures)
        return lambda image, path: boxes[path]
    if args.whole:
        box = lambda image: torch.tensor([[-0.5, -0.5, image.width - 0.5, image.height - 0.5]])  # noqa: E731
        return lambda image, path: (box(image), torch.ones(1), torch.zeros(1))
    finder = finder_of(system).to(device_of(args.device))

    def found(image, path):
        boxes, scores = find_boxes(finder, image, threshold=args.people)
        return boxes, scores, torch.zeros(len(boxes))

    return found


def system_of(args):
    """What the weights say of themselves, what finds the people in boxes of a picture, and the system."""
    system, info = open_weights(args.weights)
    system.to(device_of(args.device))
    skeleton, options = SKELETONS[info["skeleton"]], scales_of(args.scales, system)
    options |= {"padding": 1.0 if args.whole else 1.25, "nms": args.nms, "flip": args.flip}
    return info, lambda picture, *boxes: find_people(system, skeleton, picture, *boxes, **options), system


def program_of(args):
    """The same of a program, which has no system."""
    given = [name for name, value in (("flip", args.flip), ("scales", args.scales)) if value]
    if given:
        raise InputError(f"--{given[0]} is for weights: --model {args.model} does what it was exported with")
    program = OnnxProgram(args.model)
    padding = program.metadata["padding"]

    def people_in(picture, boxes, scores, rotations):
        return program_people(
            program, picture, boxes, scores, rotations, 1.0 / padding if args.whole else 1.0, args.nms
        )

    return program.metadata, people_in, None


def run(args):
    for name in ("nms", "people"):
        if not 0 < getattr(args, name) <= 1:
            raise InputError(f"--{name} must be from 0 to 1, got {getattr(args, name)}")
    info, people_in, system = program_of(args) if args.model else system_of(args)
    skeleton = SKELETONS[info["skeleton"]]
    boxes_in = people_of(args, system, args.pictures)
    check_written(args.pictures, args.out)
    for path in args.pictures:
        picture = read_picture(path, upright=True)
        found = people_in(picture, *boxes_in(picture, path))
        write_people(picture, path.name, found, skeleton, args.out / path.stem, args.threshold, calibration_of(info))
        count = len(found[0])
        print(f"{path}: {count} {'person' if count == 1 else 'people'}, wrote {args.out / path.stem}.png and .json")
