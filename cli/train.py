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
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pypose_ops.datasets import ImageError, data_path, hold_out, joined, open_dataset
from pypose_ops.datasets.files import check_outputs, write_json
from pypose_ops.datasets.skeleton_files import skeleton_as_json, skeleton_named
from pypose_ops.errors import InputError
from pypose_ops.models import SYSTEMS, build, load_checkpoint, system_class
from pypose_ops.models.training.corrections import apply_corrections
from pypose_ops.models.training.crops import Augmentation
from pypose_ops.models.training.recipe import Recipe, read_recipe
from pypose_ops.models.weights.checkpoint import check_unpacked
from pypose_ops.models.weights.files import PACKAGED, open_weights, save_weights
from pypose_ops.models.weights.transfer import begin_with
from pypose_ops.skeletons import Skeleton

if TYPE_CHECKING:
    import torch

    from pypose_ops.models.systems.system import System

# Attributes of Recipe with an option of the same name.
RECIPE = {
    "epochs": "number of epochs over all phases",
    "batch": "people per step and device",
    "lr": "highest learning rate",
    "weight_decay": "of AdamW",
    "clip": "maximum gradient norm, 0 for no limit",
    "precision": "32-true, bf16-mixed or 16-mixed",
    "ema": "decay of the exponential moving average of the weights, 0 for none",
    "patience": "stop after this many epochs without a better PCK, 0 for never",
    "seed": "random seed",
    "last_epochs": "epochs at the end of each phase on the first data set only, which should be the cleanest",
}


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
    parser.add_argument(
        "--backbone", metavar="FILE", help="weights of torchvision's ResNet or VGG, or of EfficientNet-Lite"
    )
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


def is_first() -> bool:
    """Whether this is the first of several processes."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def say(*text: str, **options: Any) -> None:
    """Prints in the first process only."""
    if is_first():
        print(*text, **options)


def recipe_of(args: argparse.Namespace) -> Any:
    """The Recipe from the options, and the options of the system from the recipe file."""
    said = read_recipe(args.system, args.preset) if args.recipe else {}
    options, augmentation = said.pop("options", {}), said.pop("augmentation", {})
    given = {name: value for name, value in vars(args).items() if value is not None}
    said |= {name: given[name] for name in RECIPE if name in given}
    names = [field.name for field in dataclasses.fields(Augmentation)]
    augmentation |= {name: given[f"augment_{name}"] for name in names if f"augment_{name}" in given}
    if args.epochs is not None:
        said.pop("phase_epochs", None)
    if args.phase_epochs:
        try:
            said["phase_epochs"] = [int(n) for n in args.phase_epochs.split(",")]
        except ValueError:
            raise InputError(f"--phase-epochs must be numbers with commas between, got {args.phase_epochs}") from None
    said["lr_factors"] = lr_factors(args.lr_factor) if args.lr_factor else said.get("lr_factors", {})
    said["freeze"] = tuple(args.freeze or said.get("freeze", ()))
    said["data_weights"] = tuple(args.data_weight or said.get("data_weights", ()))
    said["phase_epochs"] = tuple(said.get("phase_epochs", ()))
    recipe = Recipe(**said, augmentation=Augmentation(**augmentation))
    check_recipe(recipe, args)
    return recipe, options


def lr_factors(texts: Any) -> Any:
    """``{name: factor}`` of ``NAME=F``."""
    try:
        return {name: float(factor) for name, _, factor in (text.partition("=") for text in texts)}
    except ValueError:
        raise InputError(f"--lr-factor must be NAME=F with a number, got {' '.join(texts)}") from None


def check_recipe(recipe: Recipe, args: argparse.Namespace) -> None:
    """Refuses invalid training options."""
    values = vars(args) | {name: getattr(recipe, name) for name in RECIPE}
    values |= {f"augment_{name}": value for name, value in dataclasses.asdict(recipe.augmentation).items()}
    for name in ("epochs", "batch", "lr", "devices", "nodes"):
        if not values[name] > 0:
            raise InputError(f"--{name} must be positive, got {values[name]}")
    not_negative = ("weight_decay", "clip", "patience", "held_out", "seed", "last_epochs")
    for name, value in values.items():
        if (name in not_negative or name.startswith("augment_")) and value < 0:
            raise InputError(f"--{name.replace('_', '-')} must not be negative, got {value}")
    if not 0 <= recipe.ema < 1:
        raise InputError(f"--ema must be from 0 to 1, got {recipe.ema}")
    if recipe.data_weights and (
        len(recipe.data_weights) != len(args.data) or not all(w > 0 for w in recipe.data_weights)
    ):
        raise InputError(f"--data-weight must be a positive number for each --data, got {list(recipe.data_weights)}")
    if not all(0 < factor < float("inf") for factor in recipe.lr_factors.values()):
        raise InputError(f"--lr-factor must be positive, got {recipe.lr_factors}")
    if recipe.precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise InputError(f"--precision must be 32-true, bf16-mixed or 16-mixed, got {recipe.precision}")


def system_of(args: argparse.Namespace, skeleton: Skeleton, options: Any) -> Any:
    """The module, and its metadata for weight files. ``options``: of the recipe."""
    # AI Challenger has as many joints as LSP, so options that depend on joint names come from the skeleton.
    options = system_class(args.system).options_of(skeleton) | options
    for text in args.set:
        name, equals, value = text.partition("=")
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(f"--set must be OPTION=VALUE with a json value, got {text}") from None
    info = {"system": args.system, "preset": args.preset, "skeleton": skeleton_as_json(skeleton), "options": options}
    try:
        return build(args.system, len(skeleton), args.preset, **options), info
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None


def start_run(args: argparse.Namespace, recipe: Recipe, info: dict[str, Any], images: set[str]) -> None:
    """Writes run.json or, to resume, checks that it is the same run; first rank only; ``images`` are read."""
    path = args.out / "run.json"
    run = {**info, "data": args.data, "held_out": args.held_out, "world": args.devices * args.nodes}
    run = json.loads(json.dumps(run | {"recipe": dataclasses.asdict(recipe)}))
    if path.exists() and not args.resume:
        raise InputError(f"{args.out}: already contains a run; use --resume to continue it, or another --out")
    if not path.exists() and args.resume:
        raise InputError(f"{args.out}: nothing to resume, no run.json")
    if args.resume:
        try:
            before = json.loads(path.read_text())
            different = [k for k in run if before.get(k) != run[k]]
        except (OSError, ValueError, AttributeError, RecursionError):
            raise InputError(f"{path}: expected JSON written by train") from None
        if different:
            k = different[0]
            raise InputError(f"{path}: the run has {k} {json.dumps(before.get(k))}, not {json.dumps(run[k])}")
        return
    inputs = [args.weights, args.backbone, args.corrections, args.skeleton, *map(data_path, args.data), *images]
    check_outputs([path, args.out / "weights.safetensors", args.out / "held_out.json"], inputs)
    write_json(path, run)


class Stopped(SystemExit):
    """A signal stopped the run; the exit code is 128 plus its number."""


@contextlib.contextmanager
def stoppable() -> Any:
    """SIGTERM and SIGINT raise :class:`Stopped`, once."""

    def stop(number: int, frame: Any) -> None:
        for name in names:
            signal.signal(name, signal.SIG_IGN)
        raise Stopped(128 + number)

    names = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.signal(name, stop) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextlib.contextmanager
def locked(folder: Path) -> Any:
    """Refuses a folder that another process trains in."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another process trains in it") from None
        yield


def open_data(args: argparse.Namespace, recipe: Recipe) -> Any:
    """Training and held-out people."""
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


def weights_of_phase(out: Path, number: int, phases: Sequence[str]) -> Any:
    """The file of the weights after a phase."""
    return out / (
        "weights.safetensors" if number == len(phases) - 1 else f"phase-{number}-{phases[number]}.safetensors"
    )


def check_checkpoint(path: Path) -> Any:
    """Checks that Lightning can read a checkpoint."""
    import torch

    try:
        check_unpacked(path)
        if "state_dict" not in torch.load(path, map_location="cpu", weights_only=True):
            raise KeyError("state_dict")
    except InputError:
        raise
    except Exception as error:  # zip, pickle and torch raise many kinds of errors
        raise InputError(f"{path}: expected a checkpoint written by train; damaged ({type(error).__name__})") from None
    return path


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
    train: Any,
    held_out: Any,
    counts: torch.Tensor,
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
            say(f"{start}: weights for other joints; {', '.join(fresh)} keep their random initialisation")
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
    first: Any,
    skeleton: Skeleton,
    people: Any,
    validation: Any,
    counts: torch.Tensor,
) -> Any:
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
    validation: Any,
    bad: Any,
) -> None:
    """Scores the held-out people, calibrates the scores on them, and reports skipped images."""
    from pypose_ops.models.calibration import calibrate
    from pypose_ops.models.training.scores import evaluate

    if bad:
        names = ", ".join(sorted(bad)[:3]) + (", ..." if len(bad) > 3 else "")
        print(f"{len(bad)} images could not be read and were skipped: {names}")
    if validation is not None:
        device = next(system.parameters()).device
        result = evaluate(system, skeleton, validation, batch=recipe.batch, device=device)
        write_json(args.out / "held_out.json", result)
        if result["stages"]:
            print(f"held-out people: PCK@0.2 {result['stages'][-1]['pck']['mean']}")
            said = calibrate(system, skeleton, validation, batch=recipe.batch, device=device).as_info()
            path = weights_of_phase(args.out, len(system.phases) - 1, system.phases)
            save_weights(path, system, info | {"calibration": said})
