"""Export weights in half precision, or as a program for other runtimes.

--format onnx, pt2 (torch.export) or aoti (AOTInductor) exports network, flip test, decoding and affine transform as one
program: image (H, W, 3) uint8 and boxes (N, 4), two corners in image pixels -> joints (N, K, 2) in image pixels and
scores.

Exported weights keep their metadata: system, preset, options, skeleton. With --data the joints and PCK@0.2 of both
files are compared on people of a data set. --calibrate fits a temperature and a bias per joint, which turn scores into
probabilities, on the people that train holds out of a data set.

--from movenet reads MoveNet SinglePose Lightning or Thunder, version 4, in TensorFlow.js format: FILE is the JSON of
the graph, next to its .bin.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pypose_ops.datasets import SPLITS, ImageError, data_path, hold_out, joined, open_dataset
from pypose_ops.datasets.files import check_outputs, same_file
from pypose_ops.errors import InputError
from pypose_ops.models.deployment import FORMATS, export_poses
from pypose_ops.models.weights.files import PACKAGED, load_weights, open_weights, save_weights, skeleton_of
from pypose_ops.models.weights.movenet import load_movenet
from pypose_ops.skeletons import Skeleton

if TYPE_CHECKING:
    import torch

    from pypose_ops.models.systems.system import System

ORIGINS = ("movenet",)
DTYPES = ("float16", "bfloat16", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    weights = f"{' or '.join(PACKAGED)} (packaged), or a file written by train"
    parser.add_argument("weights", metavar="NAME|FILE", help=weights)
    parser.add_argument("--from", dest="origin", choices=ORIGINS, help="origin of FILE; default: written by train")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True)
    parser.add_argument(
        "--format", choices=("weights", *FORMATS), default="weights", help="format of --out (default: %(default)s)"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="precision of exported weights (default: float16)")
    parser.add_argument("--half", action="store_true", help="export the network of a program in float16")
    parser.add_argument("--flip", action="store_true", help="include a flip test in the program")
    parser.add_argument(
        "--batch", metavar="dynamic|N", default="dynamic", help="number of boxes of a program (default: %(default)s)"
    )
    parser.add_argument("--data", metavar="FORMAT:PATH", action="append", default=[], help="as in train")
    parser.add_argument(
        "--calibrate", metavar="FORMAT:PATH", help="fit probabilities on the 200 people that train holds out by seed 0"
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="default: %(default)s")
    parser.add_argument(
        "--people", metavar="N", type=int, default=100, help="maximum number of people (default: %(default)s)"
    )


def check_range(path: Path, system: System, dtype: torch.dtype) -> None:
    """Refuses values that overflow in ``dtype``."""
    for name, tensor in system.state_dict().items():
        if tensor.is_floating_point() and not tensor.to(dtype).isfinite().all():
            raise InputError(f"{path}: {name} goes up to {tensor.abs().max():.3g}, beyond the range of {dtype}")


def compare(systems: Any, skeleton: Skeleton, people: Any) -> Any:
    """Describes the distance between the joints of two systems, in image pixels, and the PCK@0.2 of both."""
    from pypose_ops.models.training.loading import People
    from pypose_ops.models.training.scores import predict_people, score

    loaded, found = People(people, memory=0), []
    for system in systems:
        coords, _, index, bad = predict_people(system, skeleton, loaded)
        if coords is None:
            raise InputError(f"{people.name}: none of its images could be read, the first is {sorted(bad)[0]}")
        found.append(coords[-1])
    distance = (found[0] - found[1]).norm(dim=-1).nan_to_num().flatten()
    before, after = (score(c, loaded.keypoints[index], loaded.visible[index], skeleton)["pck"]["mean"] for c in found)
    pck = "no labelled torsos" if before is None else f"PCK@0.2 {before:.2f} before, {after:.2f} after"
    far = f"{distance.quantile(0.99):.3f} px or less for 99 % of them, at most {distance.max():.3f}"
    return f"{len(index)} people: {pck}; joints moved by {distance.mean():.4f} px, {far}"


def calibrated(system: System, skeleton: Skeleton, spec: str, out: Path) -> tuple[dict[str, list[float]], str]:
    """The calibration of a system on held-out people of a data set, for its metadata, and a sentence about it."""
    from pypose_ops.models.calibration import calibrate
    from pypose_ops.models.training.loading import People

    dataset = open_dataset(spec, "train", skeleton)
    check_outputs([out], dataset.image_paths())
    people = hold_out(dataset, 200, 0)[1]
    if not people.samples:
        raise InputError(f"--calibrate {spec}: too few images, at most a fifth of them is held out")
    loaded = People(people)
    if all(isinstance(image, ImageError) for image in loaded.cache.values()):
        raise InputError(f"--calibrate {spec}: no image of its held-out people could be read")
    return calibrate(system, skeleton, loaded).as_info(), f"calibrated on {len(people)} people of {people.name}"


def batch_of(args: argparse.Namespace) -> Any:
    """The number of boxes, None for any; refuses incompatible options."""
    program = args.format != "weights"
    for name in ("dtype", "data", "calibrate") if program else ():
        if getattr(args, name):
            raise InputError(f"--{name} is for weights, got --format {args.format}")
    for name in ("half", "flip"):
        if getattr(args, name) and not program:
            raise InputError(f"--{name} needs --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if args.batch == "dynamic":
        return None
    if not program:
        raise InputError(f"--batch needs --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if not args.batch.isdecimal() or not 1 <= int(args.batch) <= 1024:
        raise InputError(f"--batch must be dynamic or a number from 1 to 1024, got {args.batch}")
    return int(args.batch)


def write_program(args: argparse.Namespace, system: System, info: dict[str, Any], batch: int) -> None:
    try:
        export_poses(system, info, args.out, format=args.format, flip=args.flip, boxes=batch)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"--format {args.format}: {error}") from None
    count = "any number of" if batch is None else batch
    print(f"wrote {args.out}: {info['system']} for {count} boxes, {args.out.stat().st_size / 2**20:.2f} MiB")


def run(args: argparse.Namespace) -> None:
    import torch

    if args.people < 1:
        raise InputError(f"--people must be positive, got {args.people}")
    batch = batch_of(args)
    file, movenet = Path(args.weights), args.origin == "movenet"
    named = args.weights in PACKAGED and not movenet  # of the package, whatever files have that name
    if not named and args.out.exists() and same_file(args.out, file):
        raise InputError(f"--out {args.out}: is the input file, expected another file")
    sources = [*args.data, *([args.calibrate] if args.calibrate else [])]
    check_outputs([args.out], [*(file.parent.glob("*.bin") if movenet else ()), *map(data_path, sources)])
    system, info = load_movenet(file) if movenet else open_weights(args.weights)
    skeleton, dtype = skeleton_of(info), getattr(torch, args.dtype or "float16")
    people = joined([open_dataset(spec, args.split, skeleton) for spec in args.data]) if args.data else None
    if people is not None:
        check_outputs([args.out], people.image_paths())
    if args.format == "weights" or args.half:
        check_range(args.weights, system, dtype)
    if args.format != "weights":
        write_program(args, system.half() if args.half else system, info, batch)
        return
    said = ""
    if args.calibrate:
        info["calibration"], said = calibrated(system, skeleton, args.calibrate, args.out)
    save_weights(args.out, system, info, dtype)
    count, size = sum(p.numel() for p in system.parameters()), args.out.stat().st_size
    what = f"{info['system']} {info['preset']}, {count:,} parameters"
    print(f"wrote {args.out}: {what}, {args.dtype or 'float16'}, {size / 2**20:.2f} MiB" + (said and f", {said}"))
    if people is not None:
        people = replace(people, samples=people.samples[: args.people])
        print(compare((system, load_weights(args.out)[0]), skeleton, people))
