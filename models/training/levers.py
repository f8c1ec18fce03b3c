"""Learning rates by time and parameter prefix, freezing, and sampling of data sets by weight."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler

from pypose_ops.errors import InputError


def begins(name: str, start: str) -> bool:
    """Whether a parameter is ``start`` itself or belongs to the module ``start``."""
    return name == start or name.startswith(f"{start}.")


def check_names(option: str, module: nn.Module, starts: Sequence[str]) -> None:
    """Refuses prefixes without parameters."""
    names = [name for name, _ in module.named_parameters()]
    for start in starts:
        if not any(begins(name, start) for name in names):
            known = sorted({name.split(".")[0] for name in names})
            raise InputError(f"{option}: no parameter starts with {start}; they start with {', '.join(known)}")


def freeze(module: nn.Module, starts: Sequence[str]) -> None:
    """Freezes parameters with these prefixes, and the running statistics of modules with these prefixes."""
    for name, parameter in module.named_parameters():
        if any(begins(name, start) for start in starts):
            parameter.requires_grad_(False)
    for name, part in module.named_modules():
        if any(begins(name, start) for start in starts):
            part.eval()


def parameter_groups(module: nn.Module, lr: float, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameter groups by learning rate; the longest matching prefix wins."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            fitting = [start for start in factors if begins(name, start)]
            factor = factors[max(fitting, key=len)] if fitting else 1.0
            groups.setdefault(lr * factor, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def progress(step: int, steps: Sequence[int]) -> float:
    """The share of training done before a step, with epochs of ``steps`` steps. Every epoch counts the same.

    Counted by steps, a few epochs on a small data set at the end would be left with no learning rate.
    """
    for epoch, length in enumerate(steps):
        if step < length:
            return (epoch + step / length) / len(steps)
        step -= length
    return 1.0


def one_cycle(done: float, rise: float = 0.05) -> float:
    """Factor of the learning rate after a share of training: up from 1/25 by a cosine, then down to almost nothing."""
    start, end = 1 / 25, 1e-4 / 25
    if done < rise:
        return start + (1 - start) * (1 - math.cos(math.pi * done / rise)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


class WeightedSampler(Sampler[int]):
    """Samples people of several data sets in random order, each data set as often as its weight says.

    With a weight of 2.5 every person is sampled twice, and a random half once more. The order depends only on ``seed``
    and the epoch; ``world`` ranks together see the same batches as a single rank would.

    Args:
        counts (Sequence[int]): numbers of people of the concatenated data sets.
        weights (Sequence[float]): of each data set; empty: 1.
        epochs (int): total number.
        last (int): number of final epochs on the first data set only.
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
        """The number of people per rank and epoch."""
        sets = list(zip(self.counts, self.weights, strict=True))
        total = sum(round(count * weight) for count, weight in (sets[:1] if self._is_last(epoch) else sets))
        return math.ceil(total / self.world)

    def fills(self, batch: int) -> bool:
        """Whether every epoch has a batch of people."""
        return all(self.length_of(epoch) >= batch for epoch in range(self.epochs))

    def steps(self, batch: int) -> list[int]:
        """The number of batches of each epoch; incomplete ones are dropped if every epoch has a complete one."""
        count = math.floor if self.fills(batch) else math.ceil
        return [count(self.length_of(epoch) / batch) for epoch in range(self.epochs)]

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
