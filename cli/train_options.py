"""The options of train: a recipe and a system, checked."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from pypose_ops.datasets.skeleton_files import skeleton_as_json
from pypose_ops.errors import InputError
from pypose_ops.models import System, build, system_class
from pypose_ops.models.training.crops import Augmentation
from pypose_ops.models.training.recipe import Recipe, read_recipe
from pypose_ops.skeletons import Skeleton

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


def recipe_of(args: argparse.Namespace) -> tuple[Recipe, dict[str, Any]]:
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


def lr_factors(texts: Iterable[str]) -> dict[str, float]:
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


def system_of(args: argparse.Namespace, skeleton: Skeleton, options: dict[str, Any]) -> tuple[System, dict[str, Any]]:
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
