"""Find the joints of people in images, and draw them.

Images are rotated upright by their EXIF orientation; coordinates refer to the upright image. Without --boxes all people
are searched; with --whole each image shows one person. BOXES.json is a list of boxes for the only IMAGE,
an object with a list for each of the file names, or COCO's detections or annotations; a box is
  [x1, y1, x2, y2]                           two corners, image px
  {"bbox": [x, y, w, h], "score": 0.9}       as in COCO's files; or "box" with two corners
and extends beyond the image if the person does. Unreadable images are skipped, with exit code 1. The score of a person
is that of the box times the mean of the joint scores; duplicates are removed (OKS-NMS). Writes DIR/NAME.json and
DIR/NAME.png, or .jpg, for each image; the person's left side is drawn orange, the right side blue.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pypose_ops.datasets import ImageError, ImageFile
from pypose_ops.datasets.files import check_outputs, write_json
from pypose_ops.errors import InputError
from pypose_ops.models.calibration import calibration_of
from pypose_ops.models.deployment import OnnxProgram, program_people
from pypose_ops.models.inference import find_people_in
from pypose_ops.models.person_finder import find_boxes, finder_of, finds_people
from pypose_ops.models.weights.files import open_weights, skeleton_of
from pypose_ops.skeletons import Skeleton

from . import words
from .background import in_background
from .crop import check_inside, parse_boxes
from .files import write_image
from .inputs import boxes_by_image, expand, image_id_of, output_names
from .test import WEIGHTS, device_of

if TYPE_CHECKING:
    from PIL import Image

    from pypose_ops.models.systems.system import System


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="files, folders, or patterns")
    parser.add_argument("--weights", metavar="NAME|FILE", default="coco17", help=WEIGHTS)
    parser.add_argument(
        "--model",
        metavar="FILE.onnx",
        type=Path,
        help="file written by export, run by ONNX Runtime, instead of weights",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out/predict"), help="default: %(default)s")
    people = parser.add_mutually_exclusive_group()
    people.add_argument("--boxes", metavar="BOXES.json", type=Path, help="default: people are searched")
    people.add_argument("--whole", action="store_true", help="each image shows one person")
    parser.add_argument(
        "--people",
        metavar="P",
        type=float,
        default=0.3,
        help="minimum probability of a person (default: %(default)s)",
    )
    parser.add_argument("--flip", action="store_true", help="flip test: average with the mirrored crop")
    parser.add_argument("--scales", metavar="S,S", help="scales of the crop to average, if the system supports it")
    parser.add_argument(
        "--nms", type=float, default=0.9, help="OKS above which people are duplicates (default: %(default)s)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="minimum score of drawn joints (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--batch", type=int, help="people per batch (default: 8 on a CPU, else 32)")
    parser.add_argument("--threads", type=int, help="CPU threads; 1 is fastest next to other work")
    drawings = parser.add_mutually_exclusive_group()
    drawings.add_argument(
        "--format",
        choices=("png", "jpg"),
        default="png",
        help="of the drawings (default: %(default)s); jpg is written in a tenth of the time",
    )
    drawings.add_argument("--no-images", action="store_true", help="write only JSON")
    parser.add_argument(
        "--coco-results", metavar="OUT.json", type=Path, help="write all people in COCO's results format"
    )


def scales_of(text: str | None, system: System) -> dict[str, Any]:
    """Options of ``system.poses``."""
    if text is None:
        return {}
    try:
        scales = tuple(float(s) for s in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < s < 100 for s in scales):
        raise InputError(f"--scales must be positive numbers with commas between, got {text}")
    if "scales" not in inspect.signature(system.poses).parameters or finds_people(system):
        raise InputError(f"--scales: not supported by {type(system).__name__}")
    return {"scales": scales}


def scored_boxes(path: Path, entries: Any) -> Any:
    """Boxes (N, 4), scores (N,), rotations (N,)."""
    import torch

    if entries is None:
        return torch.zeros(0, 4), torch.zeros(0), torch.zeros(0)
    boxes, rotations = parse_boxes(path, entries)
    if isinstance(entries, dict):
        entries = entries["boxes"]
    try:
        scores = torch.tensor([float(e.get("score", 1.0)) if isinstance(e, dict) else 1.0 for e in entries])
        if not scores.isfinite().all():
            raise ValueError
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InputError(f"{path}: a score must be a number, and finite") from None
    return boxes, scores, rotations


def as_records(found: Any, calibration: Any = None) -> Any:
    """The people found by :func:`find_people`, for JSON."""
    probabilities = found[1] if calibration is None else calibration.probabilities(found[1])
    more = [{} if calibration is None else {"probabilities": each} for each in probabilities.tolist()]
    return [
        {
            "box": int(box),
            "score": score,
            "keypoints": [None if x != x else [x, y] for x, y in joints],
            "scores": each,
        }
        | probable
        for joints, each, score, box, probable in zip(*(t.tolist() for t in found), more, strict=True)
    ]


def as_coco(people: Any, image_id: Any) -> Any:
    """The people in COCO's results format."""
    return [
        {
            "image_id": image_id,
            "category_id": 1,
            "keypoints": [
                v
                for xy, score in zip(person["keypoints"], person["scores"], strict=True)
                for v in ((0.0, 0.0, 0.0) if xy is None else (*xy, score))
            ],
            "score": person["score"],
        }
        for person in people
    ]


def people_of(args: argparse.Namespace, system: System, files: Any) -> Any:
    """Returns a function from an image and its path to boxes (N, 4), scores (N,) and rotations (N,)."""
    import torch

    if args.boxes:
        entries = boxes_by_image(args.boxes, files)
        boxes = {path: scored_boxes(args.boxes, given) for path, given in entries.items()}

        def given(image: Image.Image, path: Path) -> Any:
            check_inside(image, path, boxes[path][0])
            return boxes[path]

        return given
    if args.whole:
        box = lambda image: torch.tensor([[-0.5, -0.5, image.width - 0.5, image.height - 0.5]])  # noqa: E731
        return lambda image, path: (box(image), torch.ones(1), torch.zeros(1))
    finder = finder_of(system).to(device_of(args.device))

    def found(image: Image.Image, path: Path) -> Any:
        boxes, scores = find_boxes(finder, image, threshold=args.people)
        return boxes, scores, torch.zeros(len(boxes))

    return found


def system_of(args: argparse.Namespace) -> Any:
    """The metadata of the weights, the function that finds people in boxes, and the system."""
    system, info = open_weights(args.weights)
    system.to(device_of(args.device))
    skeleton, options = skeleton_of(info), scales_of(args.scales, system)
    options |= {"batch": args.batch, "padding": 1.0 if args.whole else 1.25, "nms": args.nms, "flip": args.flip}
    return info, lambda images: find_people_in(images, system, skeleton, **options), system


def program_of(args: argparse.Namespace) -> Any:
    """The same for an exported program, without a system."""
    given = [name for name, value in (("flip", args.flip), ("scales", args.scales)) if value]
    if given:
        raise InputError(f"--{given[0]} is for weights: the options of --model {args.model} were fixed at export")
    program = OnnxProgram(args.model)
    padding = program.metadata["padding"]

    def people_in(images: Iterable[Any]) -> Iterator[Any]:
        for image in images:
            yield program_people(program, *image, 1.0 / padding if args.whole else 1.0, args.nms)

    return program.metadata, people_in, None


def check_options(args: argparse.Namespace) -> None:
    """Refuses invalid options."""
    for name in ("nms", "people"):
        if not 0 < getattr(args, name) <= 1:
            raise InputError(f"--{name} must be from 0 to 1, got {getattr(args, name)}")
    for name in ("batch", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name} must be positive, got {getattr(args, name)}")


def run(args: argparse.Namespace) -> Any:
    import torch

    check_options(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    info, people_in, system = program_of(args) if args.model else system_of(args)
    skeleton, images = skeleton_of(info), expand(args.images)
    boxes_in, names = people_of(args, system, images), output_names(images)
    drawn = None if args.no_images else f".{args.format}"
    endings = (".json",) if drawn is None else (".json", drawn)
    outputs = [args.out / f"{name}{ending}" for name in names.values() for ending in endings]
    inputs = [*images, args.boxes, args.model, args.weights]
    check_outputs(outputs, inputs)
    check_outputs([args.coco_results] if args.coco_results else [], inputs, "--coco-results")
    results, bad, read = [], [], deque()
    overlap = map if torch.get_num_threads() == 1 else in_background

    def open_image(path: Path) -> Any:
        try:
            return path, ImageFile(str(path)).upright_of()
        except ImageError as error:
            return path, error

    def opened() -> Iterator[Any]:
        for path, file in overlap(open_image, images):
            try:
                if isinstance(file, ImageError):
                    raise file
                image, frames = file
                people = boxes_in(image, path)
            except (ImageError, InputError) as error:
                if len(images) == 1:
                    raise InputError(str(error)) from None
                bad.append(str(error))
                continue
            read.append((path, image, f"{frames} frames, the first is used; " if frames > 1 else ""))
            yield image, *people

    def write(found: Any) -> Any:
        path, image, note, poses = found
        people, out = as_records(poses, calibration_of(info)), args.out / names[path]
        if drawn is not None:
            draw(image, poses, skeleton, out.with_name(f"{out.name}{drawn}"), args.threshold)
        record = {"image": path.name, "joints": skeleton.joints, "people": people}
        write_json(out.with_name(f"{out.name}.json"), record)
        return path, note, people, out

    for path, note, people, out in overlap(write, ((*read.popleft(), poses) for poses in people_in(opened()))):
        results += as_coco(people, image_id_of(path))
        written = " and ".join(reversed(endings))
        print(f"{path}: {note}{words.people(len(people))}, wrote {out}{written}")
    if args.coco_results:
        write_json(args.coco_results, results)
        print(f"wrote {words.people(len(results))} to {args.coco_results}")
    if bad:
        print(f"pypose-ops: {len(bad)} of {len(images)} images skipped: {'; '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


def draw(image: Image.Image, found: Any, skeleton: Skeleton, path: Path, threshold: float) -> list[Path]:
    """Writes the image with the people drawn on it."""
    from pypose_ops import viz

    write_image(viz.draw_pose(image, found[0], found[1], skeleton, threshold=threshold), path)
