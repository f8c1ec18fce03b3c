"""COCO's keypoint average precision and recall: the ten numbers of pycocotools, vectorised over people."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch

from ..ops._arguments import check_number, check_tensor
from ..ops._autograd import call
from ..skeletons import COCO
from ._matching import RECALLS, coco_curves, matches, reachable, sorted_people
from ._pairs import check_each, check_people, check_visible

_ops = torch.ops.pypose_ops

THRESHOLDS = np.linspace(0.5, 0.95, 10)
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
    visible, scores = _check(
        "coco_ap", pred, scores, pred_image, target, area, target_image, visible, crowd, len(sigmas)
    )
    people = pred, scores, pred_image, target, area, target_image, visible, boxes, crowd
    if _on_host(people):
        lows, highs = zip(*AREAS, strict=True)
        curves = call(
            _ops._coco_ap.default, (), *people, list(sigmas), max_people, [*reachable(THRESHOLDS)], lows, highs,
            [*RECALLS],
        )  # fmt: skip
    else:
        curves = coco_curves(sorted_people(*people, sigmas, max_people), AREAS, THRESHOLDS)
    return CocoScores(**dict(zip(NAMES, summary(*curves), strict=True)))


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
    visible, scores = _check(
        "match_people", pred, scores, pred_image, target, area, target_image, visible, crowd, len(sigmas)
    )
    threshold = check_number("match_people", "threshold", threshold)
    people = pred, scores, pred_image, target, area, target_image, visible, boxes, crowd
    if _on_host(people):
        (at,) = reachable([threshold])
        return call(_ops._match_people.default, (), *people, list(sigmas), max_people, at)
    return matches(sorted_people(*people, sigmas, max_people), threshold, len(target))


def _check(
    name: str,
    pred: torch.Tensor,
    scores: torch.Tensor,
    pred_image: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor,
    target_image: torch.Tensor,
    visible: torch.Tensor | None,
    crowd: torch.Tensor | None,
    joints: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which joints count, and the scores in float64."""
    check_people(name, "pred", pred, pred_image, joints)
    check_people(name, "target", target, target_image, joints)
    for argument, value, people in (("scores", scores, pred), ("area", area, target)):
        check_tensor(name, argument, value)
        check_each(name, argument, value, people)
    check_each(name, "crowd", crowd, target)
    visible = check_visible(name, visible, target)
    scores = scores.double()
    finite = scores.isfinite()
    if not finite.all():
        raise ValueError(f"{name}: scores must be finite, {int((~finite).sum())} of {len(scores)} are not")
    return visible, scores


def _on_host(people: Sequence[torch.Tensor | None]) -> bool:
    """Whether the native kernels can take them: on the CPU, with images that are integers."""
    pred_image, target_image = people[2], people[5]
    if torch.compiler.is_compiling() or pred_image.is_floating_point() or target_image.is_floating_point():
        return False
    return all(tensor is None or tensor.device.type == "cpu" for tensor in people)


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
        given = {name: None if value is None else value[kept[name]] for name, value in people.items()}
        results.append(coco_ap(**given, sigmas=sigmas))
    if not results:
        return coco_ap(**people, sigmas=sigmas)
    values = {name: torch.stack([result[name] for result in results]) for name in NAMES}
    counted = {name: v[v > -1] for name, v in values.items()}
    return CocoScores(**{name: v.mean() if len(v) else values[name][0] for name, v in counted.items()})
