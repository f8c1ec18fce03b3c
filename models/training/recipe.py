"""The options of a training run, and the recipes in ``recipes/SYSTEM.toml``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pypose_ops.errors import InputError

from .crops import Augmentation

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).with_name("recipes")


@dataclass
class Recipe:
    """The options of a training run.

    Attributes:
        epochs (int): total, shared equally by the phases, unless ``phase_epochs`` is given.
        batch (int): people per step and device.
        lr (float): maximum learning rate, after a warm-up of 1/20 of the phase and before a cosine decay.
        weight_decay (float): of AdamW.
        clip (float): maximum gradient norm; 0: no clipping.
        precision (str): as in Lightning: "32-true", "bf16-mixed", "16-mixed".
        ema (float): decay of the exponential moving average of the weights, which is validated and kept; 0: none.
        patience (int): epochs without a better PCK before the last phase stops early; 0: never.
        seed (int): random seed.
        phase_epochs (tuple[int, ...]): see ``epochs``.
        lr_factors (dict[str, float]): factors of the learning rate by parameter prefix: ``{"backbone": 0.5}``.
        freeze (tuple[str, ...]): prefixes of frozen parameters and normalisations.
        data_weights (tuple[float, ...]): how often an epoch samples each person, per data set; empty: once.
        last_epochs (int): final epochs of each phase on the first data set only, which should be the cleanest.
        augmentation (Augmentation): of the crops.
    """

    epochs: int = 30
    batch: int = 32
    lr: float = 2e-3
    weight_decay: float = 1e-4
    clip: float = 0.0
    precision: str = "32-true"
    ema: float = 0.0
    patience: int = 0
    seed: int = 0
    phase_epochs: tuple[int, ...] = ()
    lr_factors: dict[str, float] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    data_weights: tuple[float, ...] = ()
    last_epochs: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def shares(self, phases: Sequence[str]) -> list[int]:
        """Epochs of each of ``phases``."""
        if self.phase_epochs:
            return list(self.phase_epochs)
        each, rest = divmod(self.epochs, len(phases))
        return [each + (k < rest) for k in range(len(phases))]


def read_recipe(system: str, preset: str) -> dict[str, Any]:
    """Reads the recipe of a preset from ``recipes/SYSTEM.toml``: attributes of :class:`Recipe` besides the defaults.

    ``augmentation`` is a dict of attributes of :class:`.crops.Augmentation`, ``options`` a dict of system options.

    Raises:
        InputError: there is no recipe for that system or preset.
    """
    path = FOLDER / f"{system}.toml"
    try:
        presets = tomllib.loads(path.read_text())
    except FileNotFoundError:
        names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise InputError(f"recipe: there is one for {names}, not for {system}") from None
    if preset not in presets:
        raise InputError(f"recipe: {path.name} has one for the presets {', '.join(presets)}, not for {preset}")
    return presets[preset]
