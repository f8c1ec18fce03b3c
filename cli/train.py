"""Train a system on images of people; writes weights, logs and checkpoints to a folder.

--data FORMAT:PATH, one or more times:
  lsp:PATH, lspet:PATH          a folder or the official zip archive
  mpii:FILE                     the .mat of the release, or the JSON of MSRA (MMPose) or CPM (hourglass)
  coco:FILE, aic:FILE           JSON annotations; AI Challenger's own format or COCO's
Images are searched next to FILE and in images/; otherwise: coco:FILE,images=FOLDER.

200 images (at most a fifth) of the first data set are held out; the epoch with the best PCK@0.2 on them is kept. Writes
DIR/weights.safetensors, held_out.json, run.json, logs/, tensorboard/ and checkpoints/. --resume continues an
interrupted run, with the same losses as an uninterrupted one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pypose_ops.cli import words
from pypose_ops.cli.train_options import RECIPE, recipe_of, system_of
from pypose_ops.cli.train_run import (
    Stopped,
    check_checkpoint,
    is_first,
    locked,
    say,
    start_run,
    stoppable,
    weights_of_phase,
)
from pypose_ops.datasets import ImageError, PoseDataset, hold_out, joined, open_dataset
from pypose_ops.datasets.files import write_json
from pypose_ops.datasets.skeleton_files import skeleton_named
from pypose_ops.errors import InputError
from pypose_ops.models import SYSTEMS, load_checkpoint
from pypose_ops.models.training.corrections import apply_corrections
from pypose_ops.models.training.crops import Augmentation
from pypose_ops.models.training.recipe import Recipe
from pypose_ops.models.weights.files import PACKAGED, open_weights, save_weights
from pypose_ops.models.weights.transfer import begin_with
from pypose_ops.skeletons import Skeleton

if TYPE_CHECKING:
    from pypose_ops.models.systems.system import System
    from pypose_ops.models.training.loading import People


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("system", metavar="SYSTEM", help=f"one of {', '.join(SYSTEMS)}")
    parser.add_argument("--data", metavar="FORMAT:PATH", action="append", required=True)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True)
    parser.add_argument(
        "--preset", default="compact", help="preset of the system, paper or compact (default: %(default)s)"
    )
    parser.add_argument("--set", metavar="OPTION=VALUE", action="append", default=[], help="an option of the system")
    parser.add_argument("--skeleton", help="a name, or FILE.toml; default: that of the first data set")
    parser.add_argument(
        "--recipe", action="store_true", help="use the recipe of the system; options given here override it"
    )
    for name, text in RECIPE.items():
        default = getattr(Recipe, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), help=f"{text} (default: {default})")
    parser.add_argument(
        "--lr-factor",
        metavar="NAME=F",
        action="append",
        help="factor of the learning rate for parameters with this prefix",
    )
    parser.add_argument("--freeze", metavar="NAME", action="append", help="freeze parameters with this prefix")
    parser.add_argument(
        "--data-weight", metavar="W", type=float, action="append", help="sampling weight of each --data, in order"
    )
    parser.add_argument(
        "--corrections", metavar="FILE", help="corrections of labels, written by scripts/clean_labels.py"
    )
    parser.add_argument("--phase-epochs", metavar="N,N", help="epochs of each phase, instead of equal shares")
    parser.add_argument("--held-out", type=int, default=200, help="number of validation images (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue the run in DIR")
    text = f"start from weights of the same system, also with other joints: a file, {' or '.join(PACKAGED)}"
    parser.add_argument("--weights", metavar="NAME|FILE", help=text)
    text = "weights of torchvision's ResNet or VGG, of EfficientNet-Lite, or of a trained system with this backbone"
    parser.add_argument("--backbone", metavar="FILE", help=text)
    for option in dataclasses.fields(Augmentation):
        name = option.name.replace("_", "-")
        parser.add_argument(f"--augment-{name}", type=float, help=f"default: {option.default}")
    parser.add_argument(
        "--workers", type=int, help="processes for image decoding; default: 0 if all images fit in memory"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="number per machine (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: %(default)s)")
    parser.add_argument("--profile", action="store_true", help="write a profile to DIR")
    parser.add_argument("--progress", action="store_true", help="show a progress bar even without a terminal")


def open_data(args: argparse.Namespace, recipe: Recipe) -> tuple[PoseDataset, PoseDataset, list[int]]:
    """Training people, held-out people, and how many of the former each data set has."""
    skeleton = skeleton_named(args.skeleton) if args.skeleton else None
    datasets = []
    for spec in args.data:
        datasets.append(open_dataset(spec, "train", skeleton))
        corrected = apply_corrections(datasets[-1], args.corrections) if args.corrections else 0
        skeleton = datasets[0].skeleton
        notes = {"without labelled joints, skipped": datasets[-1].skipped}
        notes["labels far outside their images, not counted"] = datasets[-1].dropped_joints
        notes["with corrected labels"] = corrected
        notes |= datasets[-1].notes
        say(f"{spec}: {len(datasets[-1])} people", *(f"{n} {what}" for what, n in notes.items() if n), sep="; ")
    first, held_out = hold_out(datasets[0], args.held_out, recipe.seed)
    parts = [first, *datasets[1:]]
    return joined(parts), held_out, [len(part) for part in parts]


def run(args: argparse.Namespace) -> None:
    if args.system not in SYSTEMS:
        raise InputError(f"SYSTEM must be one of {', '.join(SYSTEMS)}, got {args.system}")
    recipe, options = recipe_of(args)
    try:
        from pypose_ops.models.training.training import pl
    except ModuleNotFoundError as error:
        raise InputError(f"train needs PyTorch Lightning, pip install 'pypose_ops[train]' ({error})") from None
    train, held_out, counts = open_data(args, recipe)

    pl.seed_everything(recipe.seed, verbose=False)
    system, info = system_of(args, train.skeleton, options)
    if recipe.phase_epochs and len(recipe.phase_epochs) != len(system.phases):
        raise InputError(f"--phase-epochs must be {len(system.phases)} numbers, for {', '.join(system.phases)}")
    if not recipe.phase_epochs and recipe.epochs < len(system.phases):
        wanted = f"{len(system.phases)} or more, one for each of {', '.join(system.phases)}"
        raise InputError(f"--epochs must be {wanted}; got {recipe.epochs}")
    from pypose_ops.models.training.levers import check_names

    check_names("--lr-factor", system, list(recipe.lr_factors))
    check_names("--freeze", system, recipe.freeze)
    with locked(args.out) if is_first() else contextlib.nullcontext():
        if is_first():
            start_run(args, recipe, info, train.image_paths() | held_out.image_paths())
        with stoppable():
            try:
                go(args, recipe, system, info, train, held_out, counts)
            except Stopped:
                say(
                    f"pypose-ops: stopped; continue {args.out} after its last complete epoch with --resume",
                    file=sys.stderr,
                )
                raise
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise InputError(
                    f"{args.out}: cannot be written ({error.strerror}); --resume goes on after its last whole epoch"
                ) from None


def go(
    args: argparse.Namespace,
    recipe: Recipe,
    system: System,
    info: dict[str, Any],
    train: PoseDataset,
    held_out: PoseDataset,
    counts: list[int],
) -> None:
    """Trains from the start, or continues a stopped run."""
    first = 0
    if args.resume:
        finished = [k for k in range(len(system.phases)) if weights_of_phase(args.out, k, system.phases).exists()]
        first = finished[-1] + 1 if finished else 0
    if first == len(system.phases):
        raise InputError(f"{args.out}: the run is complete, nothing to resume")
    start = weights_of_phase(args.out, first - 1, system.phases) if first else args.weights
    if start:
        fresh = begin_with(system, train.skeleton, start, *open_weights(start, args.system))
        if fresh:
            say(f"{start}: does not fit everywhere; {words.first(fresh, 6)} keep their random initialisation")
    elif args.backbone and not args.resume:
        load_checkpoint(args.backbone, into=system)
    from pypose_ops.models.training.loading import People

    people, validation = People(train), People(held_out) if len(held_out) else None
    if people.complete and all(isinstance(p, ImageError) for p in people.cache.values()):
        raise InputError(f"{train.name}: none of its images could be read, the first is {next(iter(people.cache))}")
    parameters = sum(p.numel() for p in system.parameters())
    say(f"{args.system} {args.preset}: {parameters:,} parameters, {len(train)} people, {len(held_out)} held out")
    begun = time.monotonic(), time.process_time()
    bad = train_phases(args, recipe, system, info, first, train.skeleton, people, validation, counts)
    if is_first():
        finish(args, recipe, system, info, train.skeleton, validation, bad)
        spent = (now - then for now, then in zip((time.monotonic(), time.process_time()), begun, strict=True))
        minutes = "{:.1f} minutes, {:.1f} of CPU time".format(*(seconds / 60 for seconds in spent))
        print(f"wrote {args.out / 'weights.safetensors'} after {minutes}")


def train_phases(
    args: argparse.Namespace,
    recipe: Recipe,
    system: System,
    info: dict[str, Any],
    first: int,
    skeleton: Skeleton,
    people: People,
    validation: People | None,
    counts: list[int],
) -> set[str]:
    """Trains the phases from number ``first`` on; returns the unreadable images."""
    from pypose_ops.models.training.training import folder_of, train_phase

    bad = set()
    for number in range(first, len(system.phases)):
        last = folder_of(args.out, number, system.phases[number]) / "last.ckpt"
        bad |= train_phase(
            system, skeleton, recipe, number, people, validation, args.out,
            checkpoint=check_checkpoint(last) if args.resume and number == first and last.exists() else None,
            counts=counts, workers=args.workers, device=args.device, devices=args.devices, nodes=args.nodes,
            profile=args.profile, progress=args.progress or sys.stdout.isatty(),
        )  # fmt: skip
        if is_first():
            save_weights(weights_of_phase(args.out, number, system.phases), system, info)
    return bad


def finish(
    args: argparse.Namespace,
    recipe: Recipe,
    system: System,
    info: dict[str, Any],
    skeleton: Skeleton,
    validation: People | None,
    bad: set[str],
) -> None:
    """Scores the held-out people, calibrates the scores on them, and reports skipped images."""
    from pypose_ops.models.calibration import calibrate
    from pypose_ops.models.training.scores import evaluate

    if bad:
        print(f"{len(bad)} images could not be read and were skipped: {words.first(sorted(bad))}")
    if validation is not None:
        device = next(system.parameters()).device
        result = evaluate(system, skeleton, validation, batch=recipe.batch, device=device)
        write_json(args.out / "held_out.json", result)
        if result["stages"]:
            print(f"held-out people: PCK@0.2 {result['stages'][-1]['pck']['mean']}")
            said = calibrate(system, skeleton, validation, batch=recipe.batch, device=device).as_info()
            path = weights_of_phase(args.out, len(system.phases) - 1, system.phases)
            save_weights(path, system, info | {"calibration": said})
