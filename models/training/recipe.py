"""How a system is trained: the options of a training run, and the recipes of ``recipes/SYSTEM.toml``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pypose_ops.errors import InputError

from .crops import Augmentation

if TYPE_CHECKING:
    from pypose_ops.models.systems.system import System

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).with_name("recipes")


@dataclass
class Recipe:
    """How a system is trained.

    Attributes:
        epochs (int): in all; each phase has its share of them, or ``phase_epochs`` says how many.
        batch (int): people in a step, on each device.
        lr (float): the highest learning rate; it rises for a twentieth of a phase, and falls along a cosine.
        weight_decay (float): of AdamW.
        clip (float): largest norm of the gradient; 0: not clipped.
        precision (str): as Lightning has it: "32-true", "bf16-mixed", "16-mixed".
        ema (float): decay of an exponential average of the weights, which is what is validated and kept; 0: none.
        patience (int): epochs without a better PCK after which the last phase stops; 0: it does not.
        seed (int): of everything that is random.
        phase_epochs (tuple[int, ...]): see ``epochs``.
        lr_factors (dict[str, float]): of the learning rate of parameters whose names begin so: ``{"backbone": 0.5}``.
        freeze (tuple[str, ...]): the beginnings of the names of parameters that keep still, with their normalisations.
        data_weights (tuple[float, ...]): how often an epoch sees each person of each data set; empty: once.
        last_epochs (int): at the end of each phase on the first data set alone, which should be the cleanest.
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

    def shares(self, phases: Sequence[str]) -> tuple[float, ...]:
        """Epochs of each of ``phases``."""
        if self.phase_epochs:
            return list(self.phase_epochs)
        each, rest = divmod(self.epochs, len(phases))
        return [each + (k < rest) for k in range(len(phases))]


def read_recipe(system: System, preset: str) -> Any:
    """What ``recipes/SYSTEM.toml`` says of a preset: attributes of :class:`Recipe` that are not the defaults.

    ``augmentation`` is a dict of those of :class:`.crops.Augmentation`, and ``options`` one of arguments of the system.

    Raises:
        InputError: there is no recipe of that system or preset.
    """
    path = FOLDER / f"{system}.toml"
    try:
        presets = tomllib.loads(path.read_text())
    except FileNotFoundError:
        names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise InputError(f"--recipe: there is one for {names}, not for {system}") from None
    if preset not in presets:
        raise InputError(f"--recipe: {path.name} has one for the presets {', '.join(presets)}, not for {preset}")
    return presets[preset]
