"""The folder of a training run: started or resumed once, locked, stopped by signals between epochs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pypose_ops.datasets import data_path
from pypose_ops.datasets.files import check_outputs, write_json
from pypose_ops.errors import InputError
from pypose_ops.models.training.recipe import Recipe
from pypose_ops.models.weights.checkpoint import check_unpacked


def is_first() -> bool:
    """Whether this is the first of several processes."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def say(*text: str, **options: Any) -> None:
    """Prints in the first process only."""
    if is_first():
        print(*text, **options)


def start_run(args: argparse.Namespace, recipe: Recipe, info: dict[str, Any], images: set[str]) -> None:
    """Writes run.json or, to resume, checks that it is the same run; first rank only. ``images`` are inputs."""
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
def stoppable() -> Iterator[None]:
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
def locked(folder: Path) -> Iterator[None]:
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


def weights_of_phase(out: Path, number: int, phases: Sequence[str]) -> Path:
    """The file of the weights after a phase."""
    return out / (
        "weights.safetensors" if number == len(phases) - 1 else f"phase-{number}-{phases[number]}.safetensors"
    )


def check_checkpoint(path: Path) -> Path:
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
