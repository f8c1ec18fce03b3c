"""COCO's matching and its precision in torch, on any device: every image, area range and threshold at once.

On the CPU ``csrc/grouping/match_people.h`` does the same in a fraction of the time and memory.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ._pairs import Pairs, match_images, pair_oks

RECALLS = np.linspace(0.0, 1.0, 101)


def reachable(thresholds: Sequence[float]) -> list[float]:
    """As pycocotools has them: what coincides is similar enough for a threshold of 1."""
    return [min(float(threshold), 1 - 1e-10) for threshold in thresholds]


class SortedPeople(NamedTuple):
    """Predictions by image and score, annotated people by image; ``order`` and ``by_image`` are where they were."""

    pred: torch.Tensor
    scores: torch.Tensor
    rank: torch.Tensor
    order: torch.Tensor
    area: torch.Tensor
    crowd: torch.Tensor
    uncounted: torch.Tensor  # crowds, and people without labelled joints
    by_image: torch.Tensor
    pairs: Pairs
    similarity: torch.Tensor


def sorted_people(
    pred: torch.Tensor,
    scores: torch.Tensor,
    pred_image: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor,
    target_image: torch.Tensor,
    visible: torch.Tensor,
    boxes: torch.Tensor | None,
    crowd: torch.Tensor | None,
    sigmas: Sequence[float],
    max_people: int,
) -> SortedPeople:
    images, number = torch.unique(torch.cat((pred_image, target_image)), return_inverse=True)
    pred_number, target_number = number[: len(pred)], number[len(pred) :]

    rank, order = best_of_each(scores, pred_number, len(images), max_people)
    pred, scores, pred_number = pred[order].double(), scores[order], pred_number[order]
    by_image = torch.argsort(target_number, stable=True)
    target, visible, area = target[by_image].double(), visible[by_image], area[by_image].double()
    boxes = None if boxes is None else boxes[by_image].double()
    crowd = torch.zeros_like(area, dtype=torch.bool) if crowd is None else crowd[by_image].bool()
    pairs = match_images(pred_number, target_number[by_image], len(images))
    similarity = pair_oks(pairs, pred, target, area, sigmas, visible, boxes)
    uncounted = crowd | ~visible.any(1)
    return SortedPeople(pred, scores, rank, order, area, crowd, uncounted, by_image, pairs, similarity)


def best_of_each(
    scores: torch.Tensor, image: torch.Tensor, images: int, limit: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorts by image and score and keeps the best of each image; returns the order and the ranks within images."""
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[torch.argsort(image[order], stable=True)]
    count = torch.bincount(image, minlength=images)
    rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[image[order]]
    kept = rank < limit
    return rank[kept], order[kept]


def greedy_match(
    pairs: Pairs,
    similarity: torch.Tensor,
    rank: torch.Tensor,
    left_out: torch.Tensor,
    crowd: torch.Tensor,
    at: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matches predictions, best first within an image, for every area range (A) and threshold (T) at once.

    A prediction takes the free person of highest OKS at or above the threshold, counted people before ignored ones, the
    last one in case of a tie.

    Returns:
        (A, T, D) bool: whether a prediction is matched; and int64: the person it is matched to, 0 where it is not.
    """
    device, areas, people = similarity.device, len(left_out), left_out.shape[1]
    thresholds = torch.tensor(reachable(at), dtype=torch.float64, device=device)
    matched = torch.zeros(areas, len(thresholds), len(rank), dtype=torch.bool, device=device)
    to = torch.zeros_like(matched, dtype=torch.int64)
    free = torch.ones(areas, len(thresholds), people, dtype=torch.bool, device=device)

    # Unique numbers in the order of preference; the largest wins.
    by_similarity = torch.argsort(similarity, stable=True)
    preference = torch.empty_like(by_similarity)
    preference[by_similarity] = torch.arange(len(by_similarity), device=device)
    preference = preference + len(similarity) * ~left_out[:, pairs.target]
    # The sequential part: one step per rank, over all images at once.
    by_rank = torch.argsort(rank[pairs.pred], stable=True)
    for step in by_rank.split(torch.bincount(rank[pairs.pred]).tolist()):
        pred, target = pairs.pred[step], pairs.target[step]
        allowed = (similarity[step] >= thresholds[:, None]) & (free[..., target] | crowd[target])
        wanted = preference[:, None, step].where(allowed, -1)
        here, segment = torch.unique_consecutive(pred, return_inverse=True)
        best = wanted.new_full((*wanted.shape[:2], len(here)), -1)
        best.scatter_reduce_(2, segment.expand_as(wanted), wanted, "amax")
        found = best >= 0
        person = pairs.target[by_similarity[best.clamp(min=0) % len(similarity)]]
        matched[..., here] = found
        to[..., here] = person.where(found, 0)
        taken = torch.zeros_like(free).scatter_reduce_(2, person, found, "amax")
        free &= ~taken
    return matched, to


def left_out_of(left_out: torch.Tensor, person: torch.Tensor) -> torch.Tensor:
    """Whether each person (A, T, D) is left out; the padding serves index 0 of images without annotations."""
    padded = torch.nn.functional.pad(left_out, (0, 1))
    return padded[:, None].expand(-1, person.shape[1], -1).gather(2, person)


def precision_recall(
    matched: torch.Tensor, ignored: torch.Tensor, scores: torch.Tensor, people: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Precision at RECALLS, (A, T, R), and the last recall, (A, T); -1 where ``people`` (A,) is 0."""
    order = torch.argsort(scores, descending=True, stable=True)
    matched, ignored = matched[..., order], ignored[..., order]
    true = (matched & ~ignored).cumsum(-1, dtype=torch.float64)
    false = (~matched & ~ignored).cumsum(-1, dtype=torch.float64)
    recall = true / people[:, None, None].clamp(min=1)
    precision = true / (true + false + np.spacing(1))
    precision = precision.flip(-1).cummax(-1).values.flip(-1)
    wanted = torch.tensor(RECALLS, device=scores.device).expand(*recall.shape[:2], -1).contiguous()
    index = torch.searchsorted(recall, wanted)
    padded = torch.nn.functional.pad(precision, (0, 1))  # unreached recalls
    nobody = (people == 0)[:, None]
    last = torch.nn.functional.pad(recall, (1, 0))[..., -1]  # no predictions: 0
    return padded.gather(2, index).masked_fill(nobody[..., None], -1), last.masked_fill(nobody, -1)


def coco_curves(
    people: SortedPeople, areas: Sequence[tuple[float, float]], thresholds: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Precision at RECALLS, (A, T, R), and the last recall, (A, T), for people of these areas."""
    limits = torch.tensor(areas, dtype=torch.float64, device=people.area.device)
    left_out = people.uncounted | (people.area < limits[:, :1]) | (people.area > limits[:, 1:])
    extent = people.pred.amax(1) - people.pred.amin(1)
    extent = extent[:, 0] * extent[:, 1]
    outside = (extent < limits[:, :1]) | (extent > limits[:, 1:])

    matched, person = greedy_match(people.pairs, people.similarity, people.rank, left_out, people.crowd, thresholds)
    to_left_out = matched & left_out_of(left_out, person)
    ignored = torch.where(matched, to_left_out, outside[:, None])
    return precision_recall(matched, ignored, people.scores, (~left_out).sum(1))


def matches(people: SortedPeople, threshold: float, targets: int) -> torch.Tensor:
    """Per annotated person the prediction that is matched to it, -1: none."""
    uncounted = people.uncounted[None]
    matched, person = greedy_match(people.pairs, people.similarity, people.rank, uncounted, people.crowd, (threshold,))
    matched, person = (matched & ~left_out_of(uncounted, person))[0, 0], person[0, 0]
    found = people.order.new_full((targets,), -1)
    found[people.by_image[person[matched]]] = people.order[matched]
    return found
