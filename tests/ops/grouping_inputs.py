"""People and peaks for the contracts of grouping."""

import functools
import inspect
import math
from dataclasses import replace
from typing import NamedTuple

import torch

import pypose_ops
from pypose_ops import reference

NAN, INF = math.nan, math.inf


SIGMAS = (0.03, 0.08, 0.1)


class LocalPeaks(NamedTuple):
    coords: torch.Tensor
    scores: torch.Tensor
    counts: torch.Tensor


def random_source(seed):
    """A function as torch.rand, and its generator: one for each module, whose samples then depend on no other's."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    return rand, generator


rand, _ = random_source(5)


# score_limbs ----------------------------------------------------------------------------------------------------------
# The checks take tensors, not a LocalPeaks.
def with_peaks(module):
    def score_limbs(pafs, coords, counts, limbs, **options):
        return module.score_limbs(pafs, LocalPeaks(coords, coords[..., 0], counts), limbs, **options)

    def group_people(coords, scores, counts, limb_scores, limbs, **options):
        return module.group_people(LocalPeaks(coords, scores, counts), limb_scores, limbs, **options)

    def group_by_tags(coords, scores, counts, tags, **options):
        return module.group_by_tags(LocalPeaks(coords, scores, counts), tags, **options)

    return score_limbs, group_people, group_by_tags


ours, theirs = with_peaks(pypose_ops), with_peaks(reference)


def signed(op, like):
    """The options in the signature, so that samples may name them."""
    own = list(inspect.signature(op).parameters.values())[:-1]
    options = [p for p in inspect.signature(like).parameters.values() if p.kind is p.KEYWORD_ONLY]
    signature = inspect.Signature([*own, *options])

    @functools.wraps(op)
    def call(*args, **kwargs):
        return op(*args, **kwargs)

    call.__signature__ = signature
    return call


def with_holes(samples):
    """Joints that a person lacks are NaN, in the operators and in their definitions."""
    return [replace(sample, equal_nan=True) for sample in samples]


COORDS = rand(2, 4, 5, 2) * torch.tensor([10.0, 8.0])


COUNTS = torch.tensor([[5, 3, 1, 0], [2, 5, 4, 5]])


STRANGE_COORDS = torch.tensor([[NAN, 2], [INF, 2], [3, -INF], [NAN, NAN], [2, 2.0]]).expand(1, 4, 5, 2)


ALL = torch.full((1, 4), 5)


FULL = (rand(3, 4, 9, 2), rand(3, 4, 9), torch.full((3, 4), 9))


def found(people):
    """Per person the peak of every joint; None where it has none."""
    rows = people.coords[0, : people.counts[0]].tolist()
    return [[None if math.isnan(x) else int(m) for x, m in row] for row in rows]
