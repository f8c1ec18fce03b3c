"""COCO's keypoint average precision and recall: the ten numbers of pycocotools, vectorised over people."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import torch

from ..skeletons import COCO
from ._pairs import Pairs, check_each, check_people, check_visible, match_images, pair_oks

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = ((0.0, 1e10), (32.0**2, 96.0**2), (96.0**2, 1e10))  # all, medium, large


class CocoScores(TypedDict):
    """COCO's ten keypoint numbers, float64 from 0 to 1; -1 for a range of areas without annotations.

    Attributes:
        AP, AP50, AP75: average precision over the thresholds 0.5, 0.55, ... 0.95 of the OKS, at 0.5 and at 0.75.
        APm, APl: of people with an area from 32^2 to 96^2, and above.
        AR, AR50, AR75, ARm, ARl: average recall.
    """

    AP: torch.Tensor
    AP50: torch.Tensor
    AP75: torch.Tensor
    APm: torch.Tensor
    APl: torch.Tensor
    AR: torch.Tensor
    AR50: torch.Tensor
    AR75: torch.Tensor
    ARm: torch.Tensor
    ARl: torch.Tensor


NAMES = tuple(CocoScores.__annotations__)


def coco_ap(
    pred: torch.Tensor,
    scores: torch.Tensor,
    pred_image: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor,
    target_image: torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    boxes: torch.Tensor | None = None,
    crowd: torch.Tensor | None = None,
    sigmas: Sequence[float] = COCO.sigmas,
    max_people: int = 20,
) -> CocoScores:
    """COCO's ten keypoint numbers, as pycocotools computes them.

    Args:
        pred: (D, K, 2) tensor of predicted people.
        scores: (D,) finite; ties keep their order.
        pred_image: (D,) integers, the image of each.
        target, target_image: (G, K, 2) and (G,), the annotated people.
        visible: (G, K), bool or a number that counts from 0.5 on; None: every joint with finite coordinates.
        area: (G,) their segments' areas in square pixels.
        boxes: (G, 4) ``x1, y1, x2, y2``, which represent people without labelled joints; without boxes nothing
            matches those people. They are ignored in any case, as are predictions matched to them.
        crowd: (G,) bool: people who are ignored and can be matched repeatedly.
        sigmas: K constants of the joints.
        max_people: number of best predictions per image that count.

    Returns:
        :class:`CocoScores`: float64 tensors from 0 to 1; -1 for a range of areas (m: 32^2 to 96^2, l: larger) without
        annotations.
    """
    people = _sorted_people(
        "coco_ap", pred, scores, pred_image, target, area, target_image, visible, boxes, crowd, sigmas, max_people
    )
    limits = torch.tensor(AREAS, dtype=torch.float64, device=area.device)
    left_out = people.uncounted | (people.area < limits[:, :1]) | (people.area > limits[:, 1:])
    extent = people.pred.amax(1) - people.pred.amin(1)
    extent = extent[:, 0] * extent[:, 1]
    outside = (extent < limits[:, :1]) | (extent > limits[:, 1:])

    matched, person = greedy_match(people.pairs, people.similarity, people.rank, left_out, people.crowd)
    to_left_out = matched & left_out_of(left_out, person)
    ignored = torch.where(matched, to_left_out, outside[:, None])
    precision, recall = precision_recall(matched, ignored, people.scores, (~left_out).sum(1))
    return CocoScores(**dict(zip(NAMES, summary(precision, recall), strict=True)))


def match_people(
    pred: torch.Tensor,
    scores: torch.Tensor,
    pred_image: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor,
    target_image: torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    boxes: torch.Tensor | None = None,
    crowd: torch.Tensor | None = None,
    sigmas: Sequence[float] = COCO.sigmas,
    max_people: int = 20,
    threshold: float = 0.1,
) -> torch.Tensor:
    """Which prediction is of which annotated person: COCO's matching at one threshold.

    Predictions, best first, take the free person of their image with the highest OKS.

    Args:
        pred, scores, pred_image, target, area, target_image, visible, boxes, crowd, sigmas, max_people: as in
            :func:`coco_ap`.
        threshold: a lower OKS is no match; 0.1 as in Ronchi & Perona (ICCV 2017), who look at what went wrong.

    Returns:
        (G,) int64: the index of the prediction; -1 for people without a prediction, crowds and people without labelled
        joints.
    """
    people = _sorted_people(
        "match_people", pred, scores, pred_image, target, area, target_image, visible, boxes, crowd, sigmas, max_people
    )
    matched, person = greedy_match(
        people.pairs, people.similarity, people.rank, people.uncounted[None], people.crowd, (threshold,)
    )
    matched, person = (matched & ~left_out_of(people.uncounted[None], person))[0, 0], person[0, 0]
    found = torch.full_like(target_image, -1, dtype=torch.int64)
    found[people.by_image[person[matched]]] = people.order[matched]
    return found


class _SortedPeople(NamedTuple):
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


def _sorted_people(
    name: str,
    pred: torch.Tensor,
    scores: torch.Tensor,
    pred_image: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor,
    target_image: torch.Tensor,
    visible: torch.Tensor | None,
    boxes: torch.Tensor | None,
    crowd: torch.Tensor | None,
    sigmas: Sequence[float],
    max_people: int,
) -> _SortedPeople:
    joints = len(sigmas)
    check_people(name, "pred", pred, pred_image, joints)
    check_people(name, "target", target, target_image, joints)
    check_each(name, "scores", scores, pred)
    check_each(name, "area", area, target)
    check_each(name, "crowd", crowd, target)
    visible = check_visible(name, visible, target)
    scores = scores.double()
    if not scores.isfinite().all():
        raise ValueError(f"{name}: scores must be finite, {int((~scores.isfinite()).sum())} of {len(scores)} are not")
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
    return _SortedPeople(pred, scores, rank, order, area, crowd, uncounted, by_image, pairs, similarity)


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
    at: Sequence[float] = tuple(THRESHOLDS),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matches predictions, best first within an image, for every area range (A) and threshold (T) at once.

    A prediction takes the free person of highest OKS at or above the threshold, counted people before ignored ones, the
    last one in case of a tie.

    Returns:
        (A, T, D) bool: whether a prediction is matched; and int64: the person it is matched to, 0 where it is not.
    """
    device, areas, people = similarity.device, len(left_out), left_out.shape[1]
    thresholds = torch.tensor(np.minimum(at, 1 - 1e-10), device=device)
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


def summary(precision: torch.Tensor, recall: torch.Tensor) -> Iterator[torch.Tensor]:
    """The ten numbers in the order of NAMES. Thresholds 0 and 5 are 0.5 and 0.75; area ranges 1 and 2 are m and l."""
    for values in (precision, recall):
        yield from (values[0].mean(), values[0, 0].mean(), values[0, 5].mean(), values[1].mean(), values[2].mean())


def coco_ap_by_category(
    people: dict[str, torch.Tensor],
    pred_category: torch.Tensor,
    category: torch.Tensor,
    sigmas: Sequence[float] = COCO.sigmas,
) -> CocoScores:
    """COCO's ten numbers over several categories: matched within each, and averaged over those with people.

    As pycocotools with ``useCats``, its default: AP-10K's species, or riders and horses.

    Args:
        people: the arguments of :func:`coco_ap`, of all categories.
        pred_category: (D,) integers, the category of each predicted person.
        category: (G,) integers, of each annotated one.
        sigmas: K constants of the joints.

    Returns:
        as :func:`coco_ap`; -1 if no category has annotations in that range of areas.
    """
    results = []
    for number in torch.unique(category).tolist():
        kept = {name: category == number for name in ("target", "area", "target_image", "visible", "boxes", "crowd")}
        kept |= {name: pred_category == number for name in ("pred", "scores", "pred_image")}
        results.append(coco_ap(**{name: value[kept[name]] for name, value in people.items()}, sigmas=sigmas))
    if not results:
        return coco_ap(**people, sigmas=sigmas)
    values = {name: torch.stack([result[name] for result in results]) for name in NAMES}
    counted = {name: v[v > -1] for name, v in values.items()}
    return CocoScores(**{name: v.mean() if len(v) else values[name][0] for name, v in counted.items()})
