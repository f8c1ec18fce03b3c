"""The score of the AI Challenger keypoint track."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch

from ..skeletons import AIC
from ._pairs import check_each, check_people, check_visible, match_images, pair_oks

THRESHOLDS = np.linspace(0.5, 0.95, 10)


class AICScores(TypedDict):
    """AI Challenger's score, float64 from 0 to 1; NaN without any people.

    Attributes:
        score: the mean over the thresholds.
        per_threshold: (10,).
    """

    score: torch.Tensor
    per_threshold: torch.Tensor


def aic_score(
    pred: torch.Tensor,
    pred_image: torch.Tensor,
    target: torch.Tensor,
    area: torch.Tensor,
    target_image: torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    sigmas: Sequence[float] = AIC.sigmas,
) -> AICScores:
    """AI Challenger's score: the mean over the thresholds 0.5, 0.55, ... 0.95 of the share of people found.

    A person is found if the best OKS of any prediction in the image is above the threshold: predictions are neither
    ranked nor matched exclusively. The denominator is the larger of the numbers of annotated and predicted people per
    image, so a false positive costs as much as a miss. People in images without predictions are missed; predictions in
    images without annotations do not count.

    Args:
        pred, pred_image: (D, K, 2) tensor of predicted people and (D,) integers, the image of each.
        target, target_image: (G, K, 2) and (G,), the annotated people.
        visible: (G, K): joints that count; in AI Challenger's files those marked 1, not those marked 2
            (occluded). None: every joint with finite coordinates.
        area: (G,) areas of their boxes in square pixels; 1 is added, as in the official evaluation.
        sigmas: K constants of the joints.

    Returns:
        dict: ``score``, float64 tensor from 0 to 1; ``per_threshold`` (10,); NaN without any people.
    """
    name, joints = "aic_score", len(sigmas)
    check_people(name, "pred", pred, pred_image, joints)
    check_people(name, "target", target, target_image, joints)
    check_each(name, "area", area, target)
    visible = check_visible(name, visible, target)
    images, number = torch.unique(torch.cat((pred_image, target_image)), return_inverse=True)
    pred_number, target_number = number[: len(pred)], number[len(pred) :]
    pred_order, target_order = (torch.argsort(n, stable=True) for n in (pred_number, target_number))
    pairs = match_images(pred_number[pred_order], target_number[target_order], len(images))
    similarity = pair_oks(
        pairs,
        pred[pred_order].double(),
        target[target_order].double(),
        area[target_order].double() + 1,
        sigmas,
        visible[target_order],
    )
    best = similarity.new_zeros(len(target)).scatter_reduce_(0, pairs.target, similarity, "amax")
    counts = [torch.bincount(n, minlength=len(images)) for n in (pred_number, target_number)]
    total = torch.maximum(*counts).where(counts[1] > 0, 0).sum()
    found = (best > torch.tensor(THRESHOLDS, device=best.device)[:, None]).sum(1)
    per_threshold = found / total.double()
    return {"score": per_threshold.mean(), "per_threshold": per_threshold}
