"""What of a system is trained how fast, and how often each data set is seen."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler

from pypose_ops.errors import InputError


def begins(name: str, start: str) -> bool:
    """Whether a parameter is of the module ``start``, or is it."""
    return name == start or name.startswith(f"{start}.")


def check_names(option: str, module: nn.Module, starts: Sequence[str]) -> None:
    """Refuses beginnings of names that no parameter has."""
    names = [name for name, _ in module.named_parameters()]
    for start in starts:
        if not any(begins(name, start) for name in names):
            known = sorted({name.split(".")[0] for name in names})
            raise InputError(f"{option}: no parameter's name begins with {start}; they begin with {', '.join(known)}")


def freeze(module: nn.Module, starts: Sequence[str]) -> None:
    """Parameters whose names begin so get no gradient; modules whose names begin so keep their running statistics."""
    for name, parameter in module.named_parameters():
        if any(begins(name, start) for start in starts):
            parameter.requires_grad_(False)
    for name, part in module.named_modules():
        if any(begins(name, start) for start in starts):
            part.eval()


def parameter_groups(module: nn.Module, lr: float, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Groups for an optimiser: what is trained by its learning rate; of several beginnings the longest counts."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            fitting = [start for start in factors if begins(name, start)]
            factor = factors[max(fitting, key=len)] if fitting else 1.0
            groups.setdefault(lr * factor, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


class WeightedSampler(Sampler[int]):
    """People of several data sets in a random order, each data set as often as its weight says.

    Of a weight of 2.5 everybody is seen twice, and a random half once more. The order depends on ``seed`` and the epoch
    alone; ``world`` ranks with batches each see together what one with all of them would.

    Args:
        counts (Sequence[int]): people of the data sets, which follow one another.
        weights (Sequence[float]): of each; empty: 1.
        epochs (int): in all.
        last (int): so many of them, at the end, see the first data set alone.
        seed, rank, world (int): see above.
    """

    counts: list[int]
    weights: list[float]
    epochs: int
    last: int
    seed: int
    rank: int
    world: int

    def __init__(
        self,
        counts: Sequence[int],
        weights: Sequence[float] = (),
        *,
        epochs: int,
        last: int = 0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.counts, self.weights = list(counts), list(weights) or [1.0] * len(counts)
        self.epochs, self.last, self.seed, self.rank, self.world = epochs, last, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch: int = epoch

    def length_of(self, epoch: int) -> int:
        """People that each rank sees in an epoch."""
        sets = list(zip(self.counts, self.weights, strict=True))
        total = sum(round(count * weight) for count, weight in (sets[:1] if self._is_last(epoch) else sets))
        return math.ceil(total / self.world)

    def steps(self, batch: int) -> int:
        """Batches of all epochs together."""
        lengths = (self.length_of(epoch) for epoch in range(self.epochs))
        return sum(n // batch if n >= batch else 1 for n in lengths)

    def _is_last(self, epoch: int) -> bool:
        return epoch >= self.epochs - self.last

    def __len__(self) -> int:
        return self.length_of(self.epoch)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        parts, start = [], 0
        for number, (count, weight) in enumerate(zip(self.counts, self.weights, strict=True)):
            if number == 0 or not self._is_last(self.epoch):
                whole, rest = divmod(round(count * weight), count)
                people = torch.arange(count).repeat(whole)
                parts.append(start + torch.cat((people, torch.randperm(count, generator=generator)[:rest])))
            start += count
        order = torch.cat(parts)
        order = order[torch.randperm(len(order), generator=generator)]
        missing = -len(order) % self.world
        order = torch.cat((order, order[:missing]))
        return iter(order[self.rank :: self.world].tolist())
